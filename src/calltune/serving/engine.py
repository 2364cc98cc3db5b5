"""The engine thread: runs the scheduler for all requests, and hands their tokens to asyncio.

One thread decodes all answers together by continuous batching; see `generation.scheduler`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple

from calltune.generation.scheduler import Scheduler
from calltune.generation.sequence import FinishReason, Prompt
from calltune.models.numpy_ops import use_numpy_ops
from calltune.serving.errors import APIError

IDLE_SECONDS = 60.0
"""After this long without work the memory of finished sequences is freed."""

ENGINE_FAILED = "the engine failed"

log = logging.getLogger("calltune.serving")


class TokenChunk(NamedTuple):
    """The tokens of an answer that were generated since the chunk before."""

    tokens: list[int]
    finish_reason: FinishReason | None = None
    """Set in the last chunk of a complete answer."""
    problem: str | None = None
    """Why the answer had to be given up; set in its last chunk."""


class _Cancel(NamedTuple):
    """The prompt with this id is no longer wanted."""

    id: str


class _Stop(NamedTuple):
    """The thread is to end."""


Command = Prompt | _Cancel | _Stop


@dataclass(slots=True)
class EngineCounts:
    """What the engine is doing and has done, for metrics."""

    n_running: int = 0
    n_waiting: int = 0
    n_tokens: int = 0
    n_prompt_tokens: int = 0
    n_failures: int = 0
    """How often all running answers had to be given up."""


class Generation:
    """One running answer: an asynchronous iterator of its chunks, the last of which ends it."""

    def __init__(
        self,
        prompt: Prompt,
        commands: "SimpleQueue[Command]",
        queues: "dict[str, asyncio.Queue[TokenChunk]]",
    ) -> None:
        """Queue the prompt; made by `Engine.submit`."""
        self._id = prompt.id
        self._commands = commands
        self._queues = queues
        self._is_over = False
        self._chunks = queues[prompt.id] = asyncio.Queue()
        commands.put(prompt)

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> TokenChunk:
        if self._is_over:
            raise StopAsyncIteration
        chunk = await self._chunks.get()
        self._is_over = chunk.finish_reason is not None or chunk.problem is not None
        return chunk

    def close(self) -> None:
        """Cancel the answer unless it has ended, which frees its place in the batch."""
        if self._queues.pop(self._id, None) is not None and not self._is_over:
            self._commands.put(_Cancel(self._id))


class Engine:
    """Generates answers to prompts from any number of requests, in one thread."""

    def __init__(self, make_scheduler: Callable[[], Scheduler], max_open: int) -> None:
        """`make_scheduler()` gives an empty scheduler; up to `max_open` answers run or wait."""
        self.counts = EngineCounts()
        self._make_scheduler = make_scheduler
        self._max_open = max_open
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._queues: dict[str, asyncio.Queue[TokenChunk]] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the thread; chunks are delivered in the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current step, and wait for it."""
        self._commands.put(_Stop())
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def n_open(self) -> int:
        """How many answers run or wait."""
        return len(self._queues)

    def check_capacity(self, n_prompts: int) -> None:
        """Check that `n_prompts` more answers can be accepted.

        Raises:
            APIError: too many answers wait (429), or the thread has ended (503).
        """
        if not self.is_alive:
            raise APIError(503, "The model is not running; restart the server")
        if self.n_open + n_prompts > self._max_open:
            raise APIError(
                429, f"{self.n_open} answers are running or waiting; try again", code="queue_full"
            )

    def submit(self, prompt: Prompt) -> Generation:
        """Start answering a prompt; the caller must close what is returned."""
        return Generation(prompt, self._commands, self._queues)

    def _run(self) -> None:
        worker = _Worker(self._make_scheduler(), self.counts)
        while True:
            if not worker.take(self._commands):
                return
            try:
                worker.step()
            except Exception:
                # Whatever it was: waiting clients must be told, and later ones answered.
                log.exception("the engine failed; its running answers are given up")
                worker.fail(self._make_scheduler())
            self._hand_over(worker.take_chunks())

    def _hand_over(self, chunks: dict[str, TokenChunk]) -> None:
        if chunks and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, chunks)

    def _deliver(self, chunks: dict[str, TokenChunk]) -> None:
        for prompt_id, chunk in chunks.items():
            if prompt_id in self._queues:
                self._queues[prompt_id].put_nowait(chunk)


class _Worker:
    """The work of the engine thread, step by step."""

    def __init__(self, scheduler: Scheduler, counts: EngineCounts) -> None:
        self._scheduler = scheduler
        self._counts = counts
        self._n_sent: dict[str, int] = {}
        """How many tokens of each running answer are in chunks already."""
        self._chunks: dict[str, TokenChunk] = {}

    def take(self, commands: "SimpleQueue[Command]") -> bool:
        """Carry out commands, waiting for one if there is nothing to do; False is to end."""
        since = time.monotonic()
        is_clear = False
        while True:
            try:
                command = commands.get(block=self._scheduler.is_empty, timeout=IDLE_SECONDS)
            except Empty:
                if not self._scheduler.is_empty:
                    return True
                if not is_clear and time.monotonic() - since >= IDLE_SECONDS:
                    self._scheduler.clear()
                    is_clear = True
                continue
            match command:
                case _Stop():
                    return False
                case _Cancel(id=prompt_id):
                    self._scheduler.cancel(prompt_id)
                    self._n_sent.pop(prompt_id, None)
                    self._update_counts()
                case Prompt():
                    self._scheduler.add(command)
                    self._n_sent[command.id] = 0
                    self._counts.n_prompt_tokens += len(command.tokens)

    def step(self) -> None:
        """Run one step of the scheduler and collect the new tokens."""
        with use_numpy_ops():
            finished = self._scheduler.step()
        for done in finished:
            self._add_chunk(done.id, done.tokens, done.finish_reason)
        for sequence in list(self._scheduler.running()):
            constraint = sequence.prompt.constraint
            problem = constraint.problem if constraint is not None else None
            if problem is not None:
                # Without its constraint the answer must not go on.
                self._scheduler.cancel(sequence.prompt.id)
            self._add_chunk(sequence.prompt.id, sequence.generated, None, problem)
        self._update_counts()

    def fail(self, scheduler: Scheduler) -> None:
        """Give up all answers, and go on with an empty scheduler."""
        self._counts.n_failures += 1
        self._scheduler = scheduler
        for prompt_id in self._n_sent:
            self._chunks[prompt_id] = TokenChunk([], problem=ENGINE_FAILED)
        self._n_sent.clear()

    def take_chunks(self) -> dict[str, TokenChunk]:
        """The chunks since the last call, by prompt id."""
        chunks, self._chunks = self._chunks, {}
        return chunks

    def _update_counts(self) -> None:
        self._counts.n_running = len(list(self._scheduler.running()))
        self._counts.n_waiting = self._scheduler.n_waiting

    def _add_chunk(
        self,
        prompt_id: str,
        generated: list[int],
        finish_reason: FinishReason | None,
        problem: str | None = None,
    ) -> None:
        # A cancelled prompt gets no more chunks.
        if prompt_id not in self._n_sent:
            return
        new = generated[self._n_sent[prompt_id] :]
        is_last = finish_reason is not None or problem is not None
        if new or is_last:
            self._chunks[prompt_id] = TokenChunk(new, finish_reason, problem)
            self._n_sent[prompt_id] = len(generated)
            self._counts.n_tokens += len(new)
        if is_last:
            del self._n_sent[prompt_id]
