"""Room for the keys and values of a fixed number of rows, which come and go.

mlx_lm's batch caches copy all rows whenever one joins or leaves. Here every row has a slot; a row
that leaves is forgotten, not moved, and what its slot holds can still be copied to another row
that begins with the same tokens. Rows start at position 0, so tokens that pad a pass to the right
need no shifting: what they wrote is never seen, and is overwritten.

What the slots hold, finished rows as well, for prompts to come that begin alike.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import mlx.core as mx

from calltune.generation.sequence import MIN_SHARED, Prompt, Row, shared_length

Array = Any
STEP = 256
"""Positions are added so many at a time."""
ROUND = 64
"""Keys are read up to a multiple of so many positions, so that shapes repeat."""


def fits(model: Any) -> bool:
    """Whether the model keeps nothing of the past but keys and values."""
    from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

    return all(
        type(cache) is KVCache or (type(cache) is RotatingKVCache and not cache.keep)
        for cache in make_prompt_cache(model)
    )


class Adapters(Protocol):
    """A model's adapters, of which each row goes through one."""

    def choose(self, rows: Sequence[int]) -> None:
        """Let the rows of the coming pass go through these; 0 is none of them."""


class Slots:
    """The keys and values of up to `count` rows, in every layer of a model."""

    def __init__(self, model: Any, count: int, adapters: Adapters | None = None) -> None:
        self.lengths = [0] * count
        """How many tokens of each slot's row have been fed."""
        self.adapters = [0] * count
        """Which of the model's adapters each slot's row goes through."""
        self.capacity = 0
        """How many positions a slot has."""
        self._model = model
        self._choice = adapters
        self._layers = [_Layer(self) for _ in model.layers]

    @property
    def n_bytes(self) -> int:
        """How much memory the keys and values take."""
        arrays = [(layer.keys, layer.values) for layer in self._layers if layer.keys is not None]
        return sum(array.nbytes for pair in arrays for array in pair)

    def feed(self, slots: Sequence[int], tokens: Array, counts: Sequence[int]) -> Array:
        """Feed the next tokens of some rows; the logits, not evaluated yet.

        slots B of them, all different; tokens (B, N) int32, of which the first `counts[i]` of each
        row are its own; logits (B, N, V).
        """
        starts = [self.lengths[slot] for slot in slots]
        width = tokens.shape[1]
        self._grow(max(starts) + width)
        self._begin(slots, starts, width)
        if self._choice is not None:
            self._choice.choose([self.adapters[slot] for slot in slots])
        logits = self._model(tokens, cache=self._layers)
        for slot, count in zip(slots, counts, strict=True):
            self.lengths[slot] += count
        return logits

    def evaluate(self) -> None:
        """Compute the keys and values of what was fed, and nothing more."""
        mx.eval([(layer.keys, layer.values) for layer in self._layers])

    def share(self, source: int, target: int, length: int) -> None:
        """Let the row in `target` begin with the first `length` tokens of the one in `source`."""
        if length and source != target:
            for layer in self._layers:
                layer.keys[target, :, :length] = layer.keys[source, :, :length]
                layer.values[target, :, :length] = layer.values[source, :, :length]
        self.lengths[target] = length

    def clear(self) -> None:
        """Forget all rows and give their memory back."""
        self.capacity = 0
        self.lengths = [0] * len(self.lengths)
        for layer in self._layers:
            layer.keys = layer.values = None

    def _grow(self, positions: int) -> None:
        if positions > self.capacity:
            more = -(-positions // STEP) * STEP - self.capacity
            self.capacity += more
            for layer in self._layers:
                layer.grow(more)

    def _begin(self, slots: Sequence[int], starts: Sequence[int], width: int) -> None:
        """Say which rows the coming pass is about, and where in them it stands."""
        self.is_fresh = not any(starts)
        self.are_first = list(slots) == list(range(len(slots)))
        self.rows = mx.array(list(slots))[:, None]
        self.starts = mx.array(list(starts))
        self.positions = self.starts[:, None] + mx.arange(width)
        self.seen = min(-(-(max(starts) + width) // ROUND) * ROUND, self.capacity)
        self._masks: dict[int | None, Any] = {}

    def mask(self, width: int, window: int | None, return_array: bool) -> Any:
        """Which keys a query of this pass sees: (B, 1, width, keys) or (width, keys), bool."""
        if window not in self._masks:
            self._masks[window] = self._make_mask(width, window, return_array)
        return self._masks[window]

    def _make_mask(self, width: int, window: int | None, return_array: bool) -> Any:
        if self.is_fresh and width == 1 and not return_array:
            return None
        if self.is_fresh and not return_array and (window is None or width <= window):
            return "causal"
        keys = mx.arange(width if self.is_fresh else self.seen)
        at = mx.arange(width)[:, None] if self.is_fresh else self.positions[:, None, :, None]
        seen = keys <= at
        return seen if window is None else seen & (keys > at - window)


class _Layer:
    """One layer's keys and values, as mlx_lm's models ask for them: a `KVCache` of its own kind."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.keys: Array = None
        self.values: Array = None

    @property
    def offset(self) -> Array:
        """Where each row of the pass begins, (B,): for rotary embeddings."""
        return self._slots.starts

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """As mlx_lm's caches: `Slots.mask`."""
        return self._slots.mask(N, window_size, return_array)

    def update_and_fetch(self, keys: Array, values: Array) -> tuple[Array, Array]:
        """Write new keys and values (B, H, N, D); all that the rows have so far, (B, H, L, D)."""
        slots = self._slots
        if self.keys is None:
            self.keys, self.values = self._room(keys), self._room(values)
        # Two arrays of indexes around a slice: what is assigned is (B, N, H, D).
        self.keys[slots.rows, :, slots.positions] = keys.swapaxes(1, 2)
        self.values[slots.rows, :, slots.positions] = values.swapaxes(1, 2)
        if slots.is_fresh:
            return keys, values
        if slots.are_first:
            B = len(keys)
            return self.keys[:B, :, : slots.seen], self.values[:B, :, : slots.seen]
        rows = slots.rows[:, 0]
        return self.keys[rows, :, : slots.seen], self.values[rows, :, : slots.seen]

    def grow(self, more: int) -> None:
        """Make room for so many more positions."""
        if self.keys is not None:
            padding = [(0, 0), (0, 0), (0, more), (0, 0)]
            self.keys, self.values = mx.pad(self.keys, padding), mx.pad(self.values, padding)

    def _room(self, like: Array) -> Array:
        _, heads, _, width = like.shape
        return mx.zeros((len(self._slots.lengths), heads, self._slots.capacity, width), like.dtype)


class Found(NamedTuple):
    """The slot that begins most like a prompt."""

    slot: int
    shared: int
    """So many first tokens of the prompt need not be fed if it follows what is in the slot."""
    coming: int
    """So many will not need to be, once some other row has been fed."""


class Shelf:
    """Slots for `size` rows that come and go, and behind them slots for rows to be kept."""

    def __init__(self, slots: Slots, size: int) -> None:
        self._slots = slots
        self._tokens: list[list[int]] = [[] for _ in slots.lengths]
        """What each slot's row begins with, be it finished or not."""
        self._kept = list(range(size, len(slots.lengths)))
        """The slots of rows to be kept, the one used least lately first."""
        self._taken_from: dict[int, int] = {}
        """By the slot of a row, the kept one that it begins like."""

    def find(self, prompt: Prompt) -> Found:
        """Where a prompt's first tokens have been fed, or are about to be."""
        best, coming = Found(0, 0, 0), 0
        for slot, there in enumerate(self._tokens):
            shared = self._alike(slot, there, prompt)
            coming = max(coming, shared)
            shared = min(shared, self._slots.lengths[slot])
            if shared >= MIN_SHARED and shared > best.shared:
                best = Found(slot, shared, 0)
        return best._replace(coming=coming)

    def enter(self, prompt: Prompt, slot: int, found: Found) -> None:
        """Let a prompt's row begin in a slot, with what was found."""
        self._slots.share(found.slot, slot, found.shared)
        self._slots.adapters[slot] = prompt.adapter
        self._tokens[slot] = prompt.tokens
        self._taken_from.pop(slot, None)
        if found.slot in self._kept and found.shared:
            self._taken_from[slot] = found.slot
            self._touch(found.slot)

    def move(self, source: int, target: int) -> None:
        """Bring a row to another slot."""
        self._copy(source, target)
        if source in self._taken_from:
            self._taken_from[target] = self._taken_from.pop(source)

    def leave(self, slot: int, row: Row) -> None:
        """The row is over. It is kept in place of the one that it began like, or the oldest."""
        self._tokens[slot] = (row.prompt.tokens + row.written)[: self._slots.lengths[slot]]
        if self._kept and len(self._tokens[slot]) >= MIN_SHARED:
            place = self._taken_from.pop(slot, self._kept[0])
            self._copy(slot, place)
            self._touch(place)

    def clear(self) -> None:
        """Forget all that the slots hold."""
        self._slots.clear()
        self._tokens = [[] for _ in self._tokens]
        self._taken_from.clear()

    def _alike(self, slot: int, there: list[int], prompt: Prompt) -> int:
        is_other = self._slots.adapters[slot] != prompt.adapter
        if is_other or there[:MIN_SHARED] != prompt.tokens[:MIN_SHARED]:
            return 0
        # The last token is fed in any case: what comes after it is asked for.
        return min(shared_length(there, prompt.tokens), len(prompt.tokens) - 1)

    def _copy(self, source: int, target: int) -> None:
        self._slots.share(source, target, self._slots.lengths[source])
        self._slots.adapters[target] = self._slots.adapters[source]
        self._tokens[target] = self._tokens[source]

    def _touch(self, place: int) -> None:
        self._kept.remove(place)
        self._kept.append(place)
