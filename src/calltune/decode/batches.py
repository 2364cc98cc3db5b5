"""Many rows decoded together: slots are filled as they come free, and the model runs ahead.

A wide pass feeds what is known of some rows: a prompt, or tokens that a constraint forces. A
narrow pass feeds every row one token and gives it the next. The model is handed a narrow pass
before the tokens of the one before it are looked at, so that it need not wait for Python.
"""

from collections import deque
from typing import Any

import mlx.core as mx
import numpy as np

from calltune.decode.choose import choose
from calltune.decode.row import LEAST_SHARED, Completion, Prompt, Row, shared_length
from calltune.decode.slots import Slots

Array = Any
WIDE_POSITIONS = 2048
WIDE_POSITIONS_GPU = 8192
"""About so many positions are fed in a wide pass. Wider was quicker on an H100."""
CACHED_BYTES = 1 << 30
"""Freed memory that MLX may keep for arrays to come."""


class Batches:
    """Prompts in, completions out, up to `size` of them decoded at once."""

    def __init__(self, model: Any, stops: frozenset[int], limit: int, size: int) -> None:
        self._stops = stops
        self._limit = limit
        self._slots = Slots(model, size)
        self._rows: list[Row | None] = [None] * size
        self._prompts: list[list[int]] = [[] for _ in range(size)]
        """What each slot's tokens begin with, be its row finished or not."""
        self._chosen: Array = mx.zeros((size,), mx.int32)
        self._waiting: deque[Row] = deque()
        self._is_closed = False
        on_gpu = mx.default_device().type == mx.DeviceType.gpu
        self._wide_positions = WIDE_POSITIONS_GPU if on_gpu else WIDE_POSITIONS

    @property
    def wants_more(self) -> bool:
        """Whether another prompt should be added, so that no slot will stand empty."""
        return len(self._waiting) < len(self._rows)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not any(self._rows)

    def add(self, prompt: Prompt) -> None:
        """Queue a prompt."""
        assert prompt.tokens, prompt.id
        self._waiting.append(Row(prompt))

    def close(self) -> None:
        """Say that no more prompts will come; slots that are left over are given up."""
        self._is_closed = True

    def step(self) -> list[Completion]:
        """Feed every row, give it its next token; the answers that were complete before that."""
        self._shrink()
        while self._admit():
            self._feed_wide()
        self._feed_wide()
        logits = self._feed_narrow()
        # The model is at work from here on, while the tokens that it was fed are looked at.
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        finished = self._look_at_fed()
        self._chosen = choose(logits, self._rows)
        mx.async_eval(self._chosen)  # type: ignore[no-untyped-call]
        return finished

    def _shrink(self) -> None:
        needed = len(self._running()) + len(self._waiting)
        if self._is_closed and 0 < needed <= len(self._rows) // 2:
            order = sorted(range(len(self._rows)), key=lambda slot: self._rows[slot] is None)
            kept = order[:needed]
            self._slots.keep(kept)
            self._rows = [self._rows[slot] for slot in kept]
            self._prompts = [self._prompts[slot] for slot in kept]
            self._chosen = self._chosen[mx.array(kept)]

    def _admit(self) -> bool:
        """Let waiting rows into free slots; whether any came in.

        A row that begins like one that has just come in waits until that one has been fed.
        """
        entered: list[int] = []
        while self._waiting and None in self._rows:
            tokens = self._waiting[0].prompt.tokens
            shared = [self._shared(slot, tokens) for slot in range(len(self._rows))]
            source = max(range(len(shared)), key=shared.__getitem__)
            beside = [shared_length(self._prompts[slot], tokens) for slot in entered]
            if max(beside, default=0) - shared[source] >= LEAST_SHARED:
                break
            entered.append(self._enter(self._waiting.popleft(), source, shared[source]))
        return bool(entered)

    def _enter(self, row: Row, source: int, shared: int) -> int:
        """Give a row a free slot, and its first tokens from another one; the slot."""
        slot = source if self._rows[source] is None else self._rows.index(None)
        self._slots.share(source, slot, shared)
        self._prompts[slot] = row.prompt.tokens
        self._rows[slot] = row
        row.take_up(shared)
        return slot

    def _shared(self, slot: int, tokens: list[int]) -> int:
        """How many first tokens a prompt need not be fed if it follows what is in a slot."""
        if self._prompts[slot][:LEAST_SHARED] != tokens[:LEAST_SHARED]:
            return 0
        there = self._prompts[slot][: self._slots.lengths[slot]]
        # The last token is fed in any case: what comes after it is asked for.
        shared = min(shared_length(there, tokens), len(tokens) - 1)
        return shared if shared >= LEAST_SHARED else 0

    def _feed_wide(self) -> None:
        """Feed what is known, as long as that is quicker than token after token."""
        running = self._running()
        # A narrow pass feeds one token of every row.
        while sum(row.n_behind for row in running.values()) >= max(1, len(running)):
            slots = self._furthest_behind(running)
            parts = [running[slot].take_known(self._wide_positions) for slot in slots]
            tokens = np.zeros((len(parts), max(map(len, parts))), np.int32)
            for index, part in enumerate(parts):
                tokens[index, : len(part)] = part
            self._slots.feed(slots, mx.array(tokens), [len(part) for part in parts])
            self._slots.evaluate()
            if mx.get_cache_memory() > CACHED_BYTES:
                mx.clear_cache()

    def _furthest_behind(self, running: dict[int, Row]) -> list[int]:
        """The slots with most to feed, of like width, as many as a wide pass has room for."""
        behind = {slot: row.n_behind for slot, row in running.items()}
        order = sorted(behind, key=lambda slot: -behind[slot])
        width = min(behind[order[0]], self._wide_positions)
        like = [slot for slot in order if 2 * behind[slot] >= width]
        return like[: max(1, self._wide_positions // width)]

    def _running(self) -> dict[int, Row]:
        """The rows by slot."""
        return {slot: row for slot, row in enumerate(self._rows) if row is not None}

    def _feed_narrow(self) -> Array:
        """The logits after one token of every row, (B, V); free slots are fed a token as well."""
        running = self._running()
        known = [0] * len(self._rows)
        for slot, row in running.items():
            row.was_chosen = not row.known
            if row.known:
                known[slot] = row.known.pop(0)
        is_chosen = [slot in running and running[slot].was_chosen for slot in range(len(known))]
        tokens = mx.where(mx.array(is_chosen), self._chosen, mx.array(known))
        counts = [int(slot in running) for slot in range(len(known))]
        return self._slots.feed(range(len(known)), tokens[:, None], counts)[:, -1]

    def _look_at_fed(self) -> list[Completion]:
        """Write down the tokens fed that the model had chosen; the rows that end with them."""
        chosen = self._chosen.tolist()
        finished = []
        for slot, row in self._running().items():
            if row.was_chosen:
                row.write(chosen[slot], self._stops, self._limit)
            row.write_forced(self._stops, self._limit)
            if row.finish is not None:
                finished.append(row.completion())
                self._rows[slot] = None
        return finished
