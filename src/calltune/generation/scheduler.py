"""Many rows decoded together: slots are filled as they come free, and the model runs ahead.

A wide pass feeds what is known of some rows: a prompt, or tokens that a constraint forces. A
narrow pass feeds every row one token and gives it the next. The model is handed a narrow pass
before the tokens of the one before it are looked at, so that it need not wait for Python.
"""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from calltune.generation.kv_cache import Adapters, Shelf, Slots
from calltune.generation.sampling import choose
from calltune.generation.sequence import MIN_SHARED, Completion, Prompt, Row

Array = Any
WIDE_POSITIONS = 2048
WIDE_POSITIONS_GPU = 8192
"""About so many positions are fed in a wide pass. Wider was quicker on an H100."""
CACHED_BYTES = 1 << 30
"""Freed memory that MLX may keep for arrays to come."""


class Pace(NamedTuple):
    """How prompts that come in share the model with rows that are being answered."""

    wide_positions: int
    """About so many positions are fed in a wide pass."""
    wide_passes: int | None
    """So many wide passes at most before every row gets its next token; None is any number. A
    prompt that needs several then waits after each one, so that the answers have half of the time,
    and two thirds where there are several of them."""
    round_to: int = 1
    """Wide passes feed a multiple of so many tokens of each row, and a power of two of rows, for a
    GPU takes long to prepare for a shape that it has not seen; 1 is any number of either."""


class Batches:
    """Prompts in, completions out, up to `size` of them decoded at once."""

    def __init__(
        self,
        model: Any,
        stops: frozenset[int],
        limit: int,
        size: int,
        *,
        pace: Pace | None = None,
        n_kept: int = 0,
        adapters: Adapters | None = None,
    ) -> None:
        """For answers of up to `limit` tokens that one of `stops` ends.

        Without a pace prompts are fed whole as soon as there is a place for them. `n_kept`
        finished rows are kept for prompts to come that begin alike.
        """
        on_gpu = mx.default_device().type == mx.DeviceType.gpu
        self._pace = pace or Pace(WIDE_POSITIONS_GPU if on_gpu else WIDE_POSITIONS, None)
        self._stops = stops
        self._limit = limit
        self._slots = Slots(model, size + n_kept, adapters)
        self._shelf = Shelf(self._slots, size)
        self._rows: list[Row | None] = [None] * size
        self._chosen: Array = mx.zeros((size,), mx.int32)
        self._waiting: deque[Row] = deque()
        self._owed_seconds = 0.0
        """Narrow passes may take so long before a prompt fed in parts gets its next one."""

    @property
    def wants_more(self) -> bool:
        """Whether another prompt should be added, so that no slot will stand empty."""
        return len(self._waiting) < len(self._rows)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to do."""
        return not self._waiting and not any(self._rows)

    @property
    def n_waiting(self) -> int:
        """How many prompts have no slot yet."""
        return len(self._waiting)

    def running(self) -> Iterator[Row]:
        """The rows that are being answered."""
        return (row for row in self._rows if row is not None)

    def add(self, prompt: Prompt) -> None:
        """Queue a prompt."""
        assert prompt.tokens, prompt.id
        self._waiting.append(Row(prompt))

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt back, be it waiting or half answered; nothing if it is neither."""
        self._waiting = deque(row for row in self._waiting if row.prompt.id != prompt_id)
        for slot, row in self._running().items():
            if row.prompt.id == prompt_id:
                self._leave(slot, row)

    def clear(self) -> None:
        """Give the memory of finished rows back, where nothing is left to do."""
        assert self.is_empty
        self._shelf.clear()

    def step(self) -> list[Completion]:
        """Feed every row, give it its next token; the answers that were complete before that."""
        self._move_together()
        n_wide = 0
        while self._pace.wide_passes is None or n_wide < self._pace.wide_passes:
            self._admit()
            if not self._feed_wide():
                break
            n_wide += 1
        started = time.perf_counter()
        logits = self._feed_narrow()
        # The model is at work from here on, while the tokens that it was fed are looked at.
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        finished = self._look_at_fed()
        B = len(logits)
        self._chosen[:B] = choose(logits, self._rows[:B])
        mx.async_eval(self._chosen)  # type: ignore[no-untyped-call]
        self._owed_seconds = max(0.0, self._owed_seconds - (time.perf_counter() - started))
        return finished

    def _move_together(self) -> None:
        """Bring rows down to the first slots where that makes narrow passes half as wide."""
        running = self._running()
        while running and self._width(max(running) + 1) > 2 * self._width(len(running)):
            source, target = max(running), self._rows.index(None)
            self._shelf.move(source, target)
            self._chosen[target] = self._chosen[source]
            self._rows[target], self._rows[source] = self._rows[source], None
            running = self._running()

    def _admit(self) -> None:
        """Let waiting rows into free slots.

        A row that begins like one that is still being fed waits until that one has been.
        """
        while self._waiting and None in self._rows:
            prompt = self._waiting[0].prompt
            found = self._shelf.find(prompt)
            if found.coming - found.shared >= MIN_SHARED:
                return
            free = [slot for slot, row in enumerate(self._rows) if row is None]
            slot = found.slot if found.slot in free and found.shared else free[0]
            self._shelf.enter(prompt, slot, found)
            row = self._waiting.popleft()
            row.take_up(found.shared)
            self._rows[slot] = row

    def _feed_wide(self) -> bool:
        """Feed what is known, if that is quicker than token after token; whether it was."""
        started = time.perf_counter()
        running = self._running()
        behind = self._behind(running)
        # A narrow pass feeds one token of every row.
        if sum(behind.values()) < max(1, len(running)):
            return False
        slots = self._furthest_behind(behind)
        parts = [running[slot].take_known(self._pace.wide_positions) for slot in slots]
        width = -(-max(map(len, parts)) // self._pace.round_to) * self._pace.round_to
        tokens = np.zeros((len(parts), width), np.int32)
        for index, part in enumerate(parts):
            tokens[index, : len(part)] = part
        self._slots.feed(slots, mx.array(tokens), [len(part) for part in parts])
        self._slots.evaluate()
        if mx.get_cache_memory() > CACHED_BYTES:
            mx.clear_cache()
        if self._pace.wide_passes is not None and any(running[slot].n_behind for slot in slots):
            for slot in slots:
                running[slot].is_fed_in_parts = True
            seconds = time.perf_counter() - started
            n_answers = sum(not row.n_behind for row in running.values())
            self._owed_seconds += seconds * min(n_answers, 2)
        return True

    def _behind(self, running: dict[int, Row]) -> dict[int, int]:
        """How many tokens wide passes may feed of each row, by slot."""
        behind = {slot: row.n_behind for slot, row in running.items()}
        if self._owed_seconds > 0 and not all(behind.values()):
            return {s: n for s, n in behind.items() if not (n and running[s].is_fed_in_parts)}
        return behind

    def _furthest_behind(self, behind: dict[int, int]) -> list[int]:
        """The slots with most to feed, of like width, as many as a wide pass has room for."""
        order = sorted(behind, key=lambda slot: -behind[slot])
        width = min(behind[order[0]], self._pace.wide_positions)
        like = [slot for slot in order if 2 * behind[slot] >= width]
        count = min(len(like), max(1, self._pace.wide_positions // width))
        return like[: count if self._pace.round_to == 1 else 1 << (count.bit_length() - 1)]

    def _running(self) -> dict[int, Row]:
        """The rows by slot."""
        return {slot: row for slot, row in enumerate(self._rows) if row is not None}

    def _width(self, n_rows: int) -> int:
        """How many slots a narrow pass feeds for the first `n_rows`: few widths, all over again."""
        return int(min(1 << (n_rows - 1).bit_length(), len(self._rows)))

    def _feed_narrow(self) -> Array:
        """The logits after one token of every row, (B, V); free slots are fed a token as well."""
        running = self._running()
        known = [0] * self._width(max(running, default=0) + 1)
        for slot, row in running.items():
            row.was_chosen = not row.known
            if row.known:
                known[slot] = row.known.pop(0)
        is_chosen = [slot in running and running[slot].was_chosen for slot in range(len(known))]
        tokens = mx.where(mx.array(is_chosen), self._chosen[: len(known)], mx.array(known))
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
                self._leave(slot, row)
        return finished

    def _leave(self, slot: int, row: Row) -> None:
        self._rows[slot] = None
        self._shelf.leave(slot, row)
