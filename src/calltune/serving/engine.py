"""The model at work: one thread that decodes all answers together, and what hands them out."""

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
from calltune.serving.errors import Fault

IDLE_SECONDS = 60.0
"""After so long without work the memory of finished rows is given back."""

ENGINE_FAILED = "the engine failed"

log = logging.getLogger("calltune.serving")


class Piece(NamedTuple):
    """What has been written of an answer since the last piece."""

    tokens: list[int]
    finish: FinishReason | None = None
    problem: str | None = None
    """Why it cannot go on, where that is the end."""


class _Taken(NamedTuple):
    """A prompt that is no longer wanted."""

    id: str


class _Stop(NamedTuple):
    """The thread is to end."""


@dataclass(slots=True)
class Counts:
    """What has been done, for whoever measures."""

    n_running: int = 0
    n_waiting: int = 0
    n_tokens: int = 0
    n_prompt_tokens: int = 0
    n_failures: int = 0
    """How often everything that was running had to be given up."""


class Open:
    """An answer on its way: pieces of it, the last of which says how it ended."""

    def __init__(
        self,
        prompt: Prompt,
        orders: "SimpleQueue[Prompt | _Taken | _Stop]",
        pieces: "dict[str, asyncio.Queue[Piece]]",
    ) -> None:
        self._id = prompt.id
        self._orders = orders
        self._all = pieces
        self._is_over = False
        self._pieces = pieces[prompt.id] = asyncio.Queue()
        orders.put(prompt)

    def __aiter__(self) -> "Open":
        return self

    async def __anext__(self) -> Piece:
        if self._is_over:
            raise StopAsyncIteration
        piece = await self._pieces.get()
        self._is_over = piece.finish is not None or piece.problem is not None
        return piece

    def close(self) -> None:
        """Ask for nothing more; a sequence that is not finished is freed."""
        if self._all.pop(self._id, None) is not None and not self._is_over:
            self._orders.put(_Taken(self._id))


class Engine:
    """Answers prompts as they come."""

    def __init__(self, make_scheduler: Callable[[], Scheduler], max_open: int) -> None:
        """`make_scheduler()` gives empty `Scheduler`; up to `most_open` prompts run or wait."""
        self.counts = Counts()
        self._make_scheduler = make_scheduler
        self._max_open = max_open
        self._orders: SimpleQueue[Prompt | _Taken | _Stop] = SimpleQueue()
        self._pieces: dict[str, asyncio.Queue[Piece]] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work; pieces are handed out in the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the pass that it is in."""
        self._orders.put(_Stop())
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether it is at work, or would be."""
        return self._thread.is_alive()

    @property
    def n_open(self) -> int:
        """How many prompts run or wait."""
        return len(self._pieces)

    def check_room(self, n_prompts: int) -> None:
        """See that so many more prompts can be taken.

        Raises:
            Fault: too many are waiting.
        """
        if not self.is_alive:
            raise Fault(503, "The model is not running; restart the server")
        if self.n_open + n_prompts > self._max_open:
            raise Fault(
                429,
                f"{self.n_open} answers are being written or waited for; try again",
                code="queue_full",
            )

    def open(self, prompt: Prompt) -> Open:
        """Begin to answer a prompt; whoever opens an answer closes it."""
        return Open(prompt, self._orders, self._pieces)

    def _run(self) -> None:
        worker = _Worker(self._make_scheduler(), self.counts)
        while True:
            if not worker.take(self._orders):
                return
            try:
                worker.step()
            except Exception:
                # Whatever it was, those who wait must be told, and the next ones answered.
                log.exception("the engine failed; its answers are given up")
                worker.fail(self._make_scheduler())
            self._hand_out(worker.news())

    def _hand_out(self, news: dict[str, Piece]) -> None:
        if news and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, news)

    def _deliver(self, news: dict[str, Piece]) -> None:
        for prompt_id, piece in news.items():
            if prompt_id in self._pieces:
                self._pieces[prompt_id].put_nowait(piece)


class _Worker:
    """What the thread does, pass after pass."""

    def __init__(self, scheduler: Scheduler, counts: Counts) -> None:
        self._scheduler = scheduler
        self._counts = counts
        self._sent: dict[str, int] = {}
        """By a prompt's id, how many of its answer's tokens have been handed out."""
        self._news: dict[str, Piece] = {}

    def take(self, orders: "SimpleQueue[Prompt | _Taken | _Stop]") -> bool:
        """Take orders, waiting for one where nothing else is to be done; whether to go on."""
        since = time.monotonic()
        is_clean = False
        while True:
            try:
                order = orders.get(block=self._scheduler.is_empty, timeout=IDLE_SECONDS)
            except Empty:
                if not self._scheduler.is_empty:
                    return True
                if not is_clean and time.monotonic() - since >= IDLE_SECONDS:
                    self._scheduler.clear()
                    is_clean = True
                continue
            match order:
                case _Stop():
                    return False
                case _Taken(id=prompt_id):
                    self._scheduler.cancel(prompt_id)
                    self._sent.pop(prompt_id, None)
                    self._count()
                case Prompt():
                    self._scheduler.add(order)
                    self._sent[order.id] = 0
                    self._counts.n_prompt_tokens += len(order.tokens)

    def step(self) -> None:
        """One pass."""
        with use_numpy_ops():
            finished = self._scheduler.step()
        for done in finished:
            self._say(done.id, done.tokens, done.finish_reason)
        for sequence in list(self._scheduler.running()):
            constraint = sequence.prompt.constraint
            problem = constraint.problem if constraint is not None else None
            if problem is not None:
                # Nothing holds it any more, and it must not go on without.
                self._scheduler.cancel(sequence.prompt.id)
            self._say(sequence.prompt.id, sequence.generated, None, problem)
        self._count()

    def fail(self, scheduler: Scheduler) -> None:
        """Begin anew; all that was running or waiting is told."""
        self._counts.n_failures += 1
        self._scheduler = scheduler
        for prompt_id in self._sent:
            self._news[prompt_id] = Piece([], problem=ENGINE_FAILED)
        self._sent.clear()

    def news(self) -> dict[str, Piece]:
        """What has been written since the last call, by prompt."""
        news, self._news = self._news, {}
        return news

    def _count(self) -> None:
        self._counts.n_running = len(list(self._scheduler.running()))
        self._counts.n_waiting = self._scheduler.n_waiting

    def _say(
        self,
        prompt_id: str,
        written: list[int],
        finish: FinishReason | None,
        problem: str | None = None,
    ) -> None:
        # Of a prompt that was taken back nothing more is said.
        if prompt_id not in self._sent:
            return
        new = written[self._sent[prompt_id] :]
        if new or finish is not None or problem is not None:
            self._news[prompt_id] = Piece(new, finish, problem)
            self._sent[prompt_id] = len(written)
            self._counts.n_tokens += len(new)
        if finish is not None or problem is not None:
            del self._sent[prompt_id]
