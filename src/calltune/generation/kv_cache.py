"""KV cache: keys and values of a fixed number of slots, and reuse of common prompt prefixes.

mlx_lm's batch caches copy all rows whenever one joins or leaves. Here every sequence has a slot.
The slot of a finished sequence is not moved, and what it holds can still be copied for another
sequence with the same first tokens. Sequences start at position 0, so tokens that pad a batch on
the right need no shifting: what they wrote is masked, and later overwritten.
"""

from collections import abc
from typing import Any, NamedTuple

import mlx.core as mx

from calltune.generation.sequence import MIN_SHARED, Prompt, Sequence, shared_length
from calltune.models.adapters import AdapterSelection

Array = Any
GROWTH_STEP = 256
"""Capacity grows by a multiple of this many positions."""
LENGTH_MULTIPLE = 64
"""Keys are read up to a multiple of this many positions, so that array shapes repeat."""


def has_plain_kv_cache(model: Any) -> bool:
    """Whether all layers of an mlx_lm model keep keys and values and no other state."""
    from mlx_lm.models import cache as mlx_cache

    return all(
        type(cache) is mlx_cache.KVCache
        or (type(cache) is mlx_cache.RotatingKVCache and not cache.keep)
        for cache in mlx_cache.make_prompt_cache(model)
    )


class KVCache:
    """Keys and values of up to `n_slots` sequences, in every layer of a model."""

    def __init__(self, model: Any, n_slots: int, adapters: AdapterSelection | None = None) -> None:
        """No memory is taken before the first forward pass."""
        self.lengths = [0] * n_slots
        """How many positions of each slot are filled."""
        self.adapters = [0] * n_slots
        """The number of the adapter that each slot's sequence uses."""
        self.capacity = 0
        """How many positions each slot has room for."""
        self._model = model
        self._selection = adapters
        self._layers = [_LayerCache(self) for _ in model.layers]

    @property
    def n_bytes(self) -> int:
        """How much memory the keys and values take, in bytes."""
        arrays = [(layer.keys, layer.values) for layer in self._layers if layer.keys is not None]
        return sum(array.nbytes for pair in arrays for array in pair)

    def forward(self, slots: abc.Sequence[int], tokens: Array, counts: abc.Sequence[int]) -> Array:
        """Run the model on the next tokens of some slots; the logits, not evaluated yet.

        slots: B different ones; tokens (B, N) int32, of which the first `counts[i]` of row i are
        real and the rest padding; logits (B, N, V).
        """
        starts = [self.lengths[slot] for slot in slots]
        width = tokens.shape[1]
        self._reserve(max(starts) + width)
        self._begin_pass(slots, starts, width)
        if self._selection is not None:
            self._selection.select([self.adapters[slot] for slot in slots])
        logits = self._model(tokens, cache=self._layers)
        for slot, count in zip(slots, counts, strict=True):
            self.lengths[slot] += count
        return logits

    def evaluate(self) -> None:
        """Compute the keys and values of all passes so far, but no logits."""
        mx.eval([(layer.keys, layer.values) for layer in self._layers])

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Replace what slot `target` holds by the first `length` positions of slot `source`."""
        if length and source != target:
            for layer in self._layers:
                layer.keys[target, :, :length] = layer.keys[source, :, :length]
                layer.values[target, :, :length] = layer.values[source, :, :length]
        self.lengths[target] = length

    def clear(self) -> None:
        """Empty all slots and free their memory."""
        self.capacity = 0
        self.lengths = [0] * len(self.lengths)
        for layer in self._layers:
            layer.keys = layer.values = None

    def _reserve(self, positions: int) -> None:
        if positions > self.capacity:
            more = -(-positions // GROWTH_STEP) * GROWTH_STEP - self.capacity
            self.capacity += more
            for layer in self._layers:
                layer.grow(more)

    def _begin_pass(self, slots: abc.Sequence[int], starts: abc.Sequence[int], width: int) -> None:
        """Set what the layers need to know about the coming forward pass."""
        self.is_fresh = not any(starts)
        self.are_first = list(slots) == list(range(len(slots)))
        self.rows = mx.array(list(slots))[:, None]
        self.starts = mx.array(list(starts))
        self.positions = self.starts[:, None] + mx.arange(width)
        end = -(-(max(starts) + width) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
        self.n_keys = min(end, self.capacity)
        self._masks: dict[int | None, Any] = {}

    def mask(self, width: int, window: int | None, return_array: bool) -> Any:
        """The attention mask of this pass: (B, 1, width, keys) or (width, keys), bool.

        As in mlx_lm it may also be "causal", or None where everything is visible.
        """
        if window not in self._masks:
            self._masks[window] = self._make_mask(width, window, return_array)
        return self._masks[window]

    def _make_mask(self, width: int, window: int | None, return_array: bool) -> Any:
        if self.is_fresh and width == 1 and not return_array:
            return None
        if self.is_fresh and not return_array and (window is None or width <= window):
            return "causal"
        keys = mx.arange(width if self.is_fresh else self.n_keys)
        queries = mx.arange(width)[:, None] if self.is_fresh else self.positions[:, None, :, None]
        visible = keys <= queries
        return visible if window is None else visible & (keys > queries - window)


class _LayerCache:
    """One layer's keys and values, with the methods that mlx_lm's models call on their caches."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self.keys: Array = None
        self.values: Array = None

    @property
    def offset(self) -> Array:
        """The position at which each row of the pass begins, (B,): for rotary embeddings."""
        return self._cache.starts

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """The attention mask; see `KVCache.mask`."""
        return self._cache.mask(N, window_size, return_array)

    def update_and_fetch(self, keys: Array, values: Array) -> tuple[Array, Array]:
        """Store new keys and values (B, H, N, D); all of these slots so far, (B, H, L, D)."""
        cache = self._cache
        if self.keys is None:
            self.keys, self.values = self._zeros(keys), self._zeros(values)
        # Two index arrays around a slice: the assigned array is (B, N, H, D).
        self.keys[cache.rows, :, cache.positions] = keys.swapaxes(1, 2)
        self.values[cache.rows, :, cache.positions] = values.swapaxes(1, 2)
        if cache.is_fresh:
            return keys, values
        if cache.are_first:
            B = len(keys)
            return self.keys[:B, :, : cache.n_keys], self.values[:B, :, : cache.n_keys]
        rows = cache.rows[:, 0]
        return self.keys[rows, :, : cache.n_keys], self.values[rows, :, : cache.n_keys]

    def grow(self, more: int) -> None:
        """Make room for `more` further positions."""
        if self.keys is not None:
            padding = [(0, 0), (0, 0), (0, more), (0, 0)]
            self.keys, self.values = mx.pad(self.keys, padding), mx.pad(self.values, padding)

    def _zeros(self, like: Array) -> Array:
        _, heads, _, width = like.shape
        return mx.zeros((len(self._cache.lengths), heads, self._cache.capacity, width), like.dtype)


class PrefixMatch(NamedTuple):
    """The slot with the longest common prefix with a prompt."""

    slot: int
    length: int
    """How many first tokens of the prompt need no prefill if the slot is copied."""
    upcoming: int
    """How many will need none once a sequence that is still in prefill has got there."""


class PrefixReuse:
    """Tracks which tokens each cache slot holds, so that new prompts reuse common prefixes.

    The first `batch_size` slots are for running sequences, those behind them keep finished ones.
    """

    def __init__(self, cache: KVCache, batch_size: int) -> None:
        """For an empty cache."""
        self._cache = cache
        self._tokens: list[list[int]] = [[] for _ in cache.lengths]
        """The tokens of each slot's sequence, running or finished."""
        self._kept = list(range(batch_size, len(cache.lengths)))
        """The slots that keep finished sequences, least recently used first."""
        self._copied_from: dict[int, int] = {}
        """For the slot of a running sequence, the kept slot that its prefix was copied from."""

    def find(self, prompt: Prompt) -> PrefixMatch:
        """The slot to reuse for a prompt; length 0 if none has enough in common with it."""
        best, upcoming = PrefixMatch(0, 0, 0), 0
        for slot, tokens in enumerate(self._tokens):
            shared = self._shared_length(slot, tokens, prompt)
            upcoming = max(upcoming, shared)
            shared = min(shared, self._cache.lengths[slot])
            if shared >= MIN_SHARED and shared > best.length:
                best = PrefixMatch(slot, shared, 0)
        return best._replace(upcoming=upcoming)

    def assign(self, prompt: Prompt, slot: int, match: PrefixMatch) -> None:
        """Give a slot to a prompt, and copy the prefix that was found for it."""
        self._cache.copy_prefix(match.slot, slot, match.length)
        self._cache.adapters[slot] = prompt.adapter
        self._tokens[slot] = prompt.tokens
        self._copied_from.pop(slot, None)
        if match.slot in self._kept and match.length:
            self._copied_from[slot] = match.slot
            self._mark_used(match.slot)

    def move(self, source: int, target: int) -> None:
        """Move a running sequence to another slot."""
        self._copy(source, target)
        if source in self._copied_from:
            self._copied_from[target] = self._copied_from.pop(source)

    def release(self, slot: int, sequence: Sequence) -> None:
        """Keep a sequence that has ended, in place of the one it was copied from or the oldest."""
        self._tokens[slot] = (sequence.prompt.tokens + sequence.generated)[
            : self._cache.lengths[slot]
        ]
        if self._kept and len(self._tokens[slot]) >= MIN_SHARED:
            place = self._copied_from.pop(slot, self._kept[0])
            self._copy(slot, place)
            self._mark_used(place)

    def clear(self) -> None:
        """Empty all slots and free their memory."""
        self._cache.clear()
        self._tokens = [[] for _ in self._tokens]
        self._copied_from.clear()

    def _shared_length(self, slot: int, tokens: list[int], prompt: Prompt) -> int:
        is_other = self._cache.adapters[slot] != prompt.adapter
        if is_other or tokens[:MIN_SHARED] != prompt.tokens[:MIN_SHARED]:
            return 0
        # The last token is fed in any case, for its logits.
        return min(shared_length(tokens, prompt.tokens), len(prompt.tokens) - 1)

    def _copy(self, source: int, target: int) -> None:
        self._cache.copy_prefix(source, target, self._cache.lengths[source])
        self._cache.adapters[target] = self._cache.adapters[source]
        self._tokens[target] = self._tokens[source]

    def _mark_used(self, slot: int) -> None:
        self._kept.remove(slot)
        self._kept.append(slot)
