"""Continuous batching: admits prompts into free slots and runs prefill and decode steps.

A prefill feeds the known tokens of some sequences: a prompt, or tokens that a constraint forces.
A decode step feeds one token of every sequence and samples the next. It is handed to the model
before the tokens of the step before it are read back, so that the model need not wait for Python.
Iteration-level scheduling as in Orca (https://www.usenix.org/conference/osdi22/presentation/yu),
with chunked prefill as in Sarathi-Serve (arXiv 2403.02310).
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from calltune.generation.kv_cache import KVCache, PrefixReuse
from calltune.generation.sampling import sample
from calltune.generation.sequence import MIN_SHARED, Completion, Prompt, Sequence
from calltune.models.adapters import AdapterSelection

Array = Any
PREFILL_TOKENS = 2048
PREFILL_TOKENS_GPU = 8192
"""About how many tokens one prefill feeds. Larger was faster on an H100."""
MAX_CACHED_BYTES = 1 << 30
"""Freed memory that MLX may keep for later arrays."""


class PrefillPolicy(NamedTuple):
    """How the prefill of new prompts shares the model with the decoding of others."""

    prefill_tokens: int
    """About how many tokens one prefill feeds."""
    max_prefills: int | None
    """How many prefills may come before each decode step; None is any number. With a number, a
    prompt that needs several waits after each, so that decoding gets half of the time, or two
    thirds where several answers are being decoded."""
    length_multiple: int = 1
    """Prefills are padded to a multiple of this many tokens, and take a power of two of sequences,
    since a GPU takes long to prepare for an array shape that it has not seen; 1 is no padding and
    any number of sequences."""


class Scheduler:
    """Decodes up to `batch_size` prompts at a time; prompts may join or leave at any step."""

    def __init__(
        self,
        model: Any,
        stop_tokens: frozenset[int],
        max_tokens: int,
        batch_size: int,
        *,
        policy: PrefillPolicy | None = None,
        n_kept: int = 0,
        adapters: AdapterSelection | None = None,
    ) -> None:
        """For answers of up to `max_tokens` tokens that one of `stop_tokens` ends.

        Without a policy prompts are prefilled whole as soon as a slot is free. `n_kept` finished
        sequences stay in the cache for later prompts with the same prefix.
        """
        on_gpu = mx.default_device().type == mx.DeviceType.gpu
        self._policy = policy or PrefillPolicy(
            PREFILL_TOKENS_GPU if on_gpu else PREFILL_TOKENS, None
        )
        self._stop_tokens = stop_tokens
        self._max_tokens = max_tokens
        self._cache = KVCache(model, batch_size + n_kept, adapters)
        self._prefix_reuse = PrefixReuse(self._cache, batch_size)
        self._sequences: list[Sequence | None] = [None] * batch_size
        self._sampled: Array = mx.zeros((batch_size,), mx.int32)
        self._waiting: deque[Sequence] = deque()
        self._owed_seconds = 0.0
        """Time that decoding gets before the next prefill of a chunked prompt."""

    @property
    def wants_more(self) -> bool:
        """Whether to add another prompt, so that no slot will be empty."""
        return len(self._waiting) < len(self._sequences)

    @property
    def is_empty(self) -> bool:
        """Whether no prompt runs or waits."""
        return not self._waiting and not any(self._sequences)

    @property
    def n_waiting(self) -> int:
        """How many prompts have no slot yet."""
        return len(self._waiting)

    def running(self) -> Iterator[Sequence]:
        """The sequences that have a slot."""
        return (sequence for sequence in self._sequences if sequence is not None)

    def add(self, prompt: Prompt) -> None:
        """Queue a prompt."""
        assert prompt.tokens, prompt.id
        self._waiting.append(Sequence(prompt))

    def cancel(self, prompt_id: str) -> None:
        """Drop a prompt, whether it waits or runs; no effect if it does neither."""
        self._waiting = deque(s for s in self._waiting if s.prompt.id != prompt_id)
        for slot, sequence in self._by_slot().items():
            if sequence.prompt.id == prompt_id:
                self._remove(slot, sequence)

    def clear(self) -> None:
        """Free the memory of finished sequences; only while no prompt runs or waits."""
        assert self.is_empty
        self._prefix_reuse.clear()

    def step(self) -> list[Completion]:
        """Run prefills and one decode step; the answers that the step before it completed."""
        self._compact()
        n_prefills = 0
        while self._policy.max_prefills is None or n_prefills < self._policy.max_prefills:
            self._admit()
            if not self._prefill():
                break
            n_prefills += 1
        started = time.perf_counter()
        logits = self._decode_step()
        # The model computes from here on, while the tokens that it was fed are read back.
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        finished = self._read_back()
        B = len(logits)
        self._sampled[:B] = sample(logits, self._sequences[:B])
        mx.async_eval(self._sampled)  # type: ignore[no-untyped-call]
        self._owed_seconds = max(0.0, self._owed_seconds - (time.perf_counter() - started))
        return finished

    def _compact(self) -> None:
        """Move sequences to the first slots where that halves the batch of a decode step."""
        running = self._by_slot()
        while running and self._decode_batch(max(running) + 1) > 2 * self._decode_batch(
            len(running)
        ):
            source, target = max(running), self._sequences.index(None)
            self._prefix_reuse.move(source, target)
            self._sampled[target] = self._sampled[source]
            self._sequences[target], self._sequences[source] = self._sequences[source], None
            running = self._by_slot()

    def _admit(self) -> None:
        """Move waiting sequences into free slots.

        One that has a common prefix with a sequence still in prefill waits for that one.
        """
        while self._waiting and None in self._sequences:
            prompt = self._waiting[0].prompt
            match = self._prefix_reuse.find(prompt)
            if match.upcoming - match.length >= MIN_SHARED:
                return
            free = [slot for slot, sequence in enumerate(self._sequences) if sequence is None]
            slot = match.slot if match.slot in free and match.length else free[0]
            self._prefix_reuse.assign(prompt, slot, match)
            sequence = self._waiting.popleft()
            sequence.start(match.length)
            self._sequences[slot] = sequence

    def _prefill(self) -> bool:
        """Feed known tokens if that is faster than token by token; whether it was done."""
        started = time.perf_counter()
        running = self._by_slot()
        prefillable = self._prefillable(running)
        # A decode step feeds one token of every sequence.
        if sum(prefillable.values()) < max(1, len(running)):
            return False
        slots = self._select_for_prefill(prefillable)
        chunks = [running[slot].take_pending(self._policy.prefill_tokens) for slot in slots]
        multiple = self._policy.length_multiple
        width = -(-max(map(len, chunks)) // multiple) * multiple
        tokens = np.zeros((len(chunks), width), np.int32)
        for index, chunk in enumerate(chunks):
            tokens[index, : len(chunk)] = chunk
        self._cache.forward(slots, mx.array(tokens), [len(chunk) for chunk in chunks])
        self._cache.evaluate()
        if mx.get_cache_memory() > MAX_CACHED_BYTES:
            mx.clear_cache()
        is_limited = self._policy.max_prefills is not None
        if is_limited and any(running[slot].n_prefillable for slot in slots):
            for slot in slots:
                running[slot].is_chunked = True
            seconds = time.perf_counter() - started
            n_decoding = sum(not sequence.n_prefillable for sequence in running.values())
            self._owed_seconds += seconds * min(n_decoding, 2)
        return True

    def _prefillable(self, running: dict[int, Sequence]) -> dict[int, int]:
        """How many tokens a prefill may feed of each sequence, by slot."""
        counts = {slot: sequence.n_prefillable for slot, sequence in running.items()}
        if self._owed_seconds > 0 and not all(counts.values()):
            return {s: n for s, n in counts.items() if not (n and running[s].is_chunked)}
        return counts

    def _select_for_prefill(self, counts: dict[int, int]) -> list[int]:
        """The slots with most to feed, of similar length, as many as one prefill has room for."""
        order = sorted(counts, key=lambda slot: -counts[slot])
        width = min(counts[order[0]], self._policy.prefill_tokens)
        similar = [slot for slot in order if 2 * counts[slot] >= width]
        count = min(len(similar), max(1, self._policy.prefill_tokens // width))
        is_padded = self._policy.length_multiple != 1
        return similar[: 1 << (count.bit_length() - 1) if is_padded else count]

    def _by_slot(self) -> dict[int, Sequence]:
        """The running sequences by slot."""
        return {slot: each for slot, each in enumerate(self._sequences) if each is not None}

    def _decode_batch(self, n_slots: int) -> int:
        """The batch size of a decode step over the first `n_slots`: few sizes, so shapes repeat."""
        return int(min(1 << (n_slots - 1).bit_length(), len(self._sequences)))

    def _decode_step(self) -> Array:
        """The logits after one token of every sequence, (B, V); free slots are fed a token too."""
        running = self._by_slot()
        pending = [0] * self._decode_batch(max(running, default=0) + 1)
        for slot, sequence in running.items():
            sequence.was_sampled = not sequence.pending
            if sequence.pending:
                pending[slot] = sequence.pending.pop(0)
        is_sampled = [slot in running and running[slot].was_sampled for slot in range(len(pending))]
        tokens = mx.where(mx.array(is_sampled), self._sampled[: len(pending)], mx.array(pending))
        counts = [int(slot in running) for slot in range(len(pending))]
        return self._cache.forward(range(len(pending)), tokens[:, None], counts)[:, -1]

    def _read_back(self) -> list[Completion]:
        """Append the sampled tokens that were fed to their sequences; those that end with them."""
        sampled = self._sampled.tolist()
        finished = []
        for slot, sequence in self._by_slot().items():
            if sequence.was_sampled:
                sequence.append(sampled[slot], self._stop_tokens, self._max_tokens)
            sequence.append_forced(self._stop_tokens, self._max_tokens)
            if sequence.finish_reason is not None:
                finished.append(sequence.completion())
                self._remove(slot, sequence)
        return finished

    def _remove(self, slot: int, sequence: Sequence) -> None:
        self._sequences[slot] = None
        self._prefix_reuse.release(slot, sequence)
