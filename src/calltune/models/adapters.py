"""Several LoRA adapters on one model in memory, one of which is selected for each row of a batch.

As in S-LoRA (arXiv 2311.03285) and Punica (arXiv 2310.18547): the model's own products are computed
once for all rows, and each row's low-rank products are added.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from calltune.errors import AdapterMismatch
from calltune.files import read_json
from calltune.models.loading import CONFIG, WEIGHTS, check_adapter

Array = Any


class _Factors(NamedTuple):
    """One adapter's matrices for one layer: A (in, R), and B (R, out) multiplied by the scale."""

    a: Array
    b: Array


class AdapterSelection:
    """Which adapter each row of the next forward pass uses; 0 is the base model."""

    def __init__(self) -> None:
        self.one: int | None = 0
        """The adapter of all rows, or None where they differ."""
        self.rows: Array = mx.zeros((1,), mx.int32)
        """The adapter of each row, (B,)."""

    def select(self, rows: Sequence[int]) -> None:
        """Select the adapter of each row of the next forward pass."""
        self.one = rows[0] if len(set(rows)) == 1 else None
        self.rows = mx.array(list(rows), mx.int32)


class AdaptedLinear(nn.Module):  # type: ignore[misc]
    """A linear layer to which several adapters add their low-rank products."""

    def __init__(
        self, linear: Any, factors: Sequence[_Factors | None], selection: AdapterSelection
    ) -> None:
        """`factors` has an entry for each adapter; None for one that leaves it unchanged."""
        super().__init__()
        self.linear = linear
        self.selection = selection
        # Those that add nothing share a place with rows that go through no adapter.
        there = [each for each in factors if each is not None]
        self._places = [0]
        for each in factors:
            self._places.append(0 if each is None else max(self._places) + 1)
        rank = max(each.a.shape[1] for each in there)
        zero = _Factors(mx.zeros_like(there[0].a), mx.zeros_like(there[0].b))
        padded = [_padded(each, rank) for each in (zero, *there)]
        self.lora_a = mx.stack([each.a for each in padded])
        self.lora_b = mx.stack([each.b for each in padded])

    def __call__(self, x: Array) -> Array:
        """The outputs (B, N, out) for inputs x (B, N, in)."""
        y = self.linear(x)
        if self.selection.one is not None:
            place: Any = self._places[self.selection.one]
            if place == 0:
                return y
        else:
            place = mx.array(self._places)[self.selection.rows]
        return y + ((x @ self.lora_a[place]) @ self.lora_b[place]).astype(x.dtype)


def attach_adapters(model: Any, adapters: Sequence[Path], reference: str) -> AdapterSelection:
    """Put adapters on a model, in place; returns what selects between them, numbered from 1.

    Raises:
        AdapterMismatch: an adapter is not plain LoRA (DoRA, full), or does not fit the model.
        ModelNotFound: an adapter's files are missing.
    """
    layers = dict(model.named_modules())
    read = [_factors(adapter, layers, reference) for adapter in adapters]
    selection = AdapterSelection()
    for name in dict.fromkeys(name for factors in read for name in factors):
        layer = AdaptedLinear(layers[name], [factors.get(name) for factors in read], selection)
        above, _, last = name.rpartition(".")
        setattr(layers[above], last, layer)
    mx.eval(model.parameters())
    return selection


def is_plain_lora(adapter: Path) -> bool:
    """Whether an adapter is plain LoRA: low-rank products and nothing else.

    Raises:
        ModelNotFound: its files are missing.
    """
    check_adapter(adapter)
    config = read_json(adapter / CONFIG)
    is_lora = isinstance(config, dict) and config.get("fine_tune_type", "lora") == "lora"
    tensors: Any = mx.load(str(adapter / WEIGHTS))
    return is_lora and all(name.endswith((".lora_a", ".lora_b")) for name in tensors)


def _factors(adapter: Path, layers: dict[str, Any], reference: str) -> dict[str, _Factors]:
    """An adapter's products by the name of their layer."""
    if not is_plain_lora(adapter):
        raise AdapterMismatch(
            f"The adapter in {adapter} is not plain LoRA, so it cannot be combined with others; "
            "serve it alone, or fuse it with calltune export"
        )
    scale = read_json(adapter / CONFIG)["lora_parameters"]["scale"]
    tensors: Any = mx.load(str(adapter / WEIGHTS))
    found = {}
    for key in tensors:
        if key.endswith(".lora_a"):
            name = key.removesuffix(".lora_a")
            factors = _Factors(tensors[key], scale * tensors[f"{name}.lora_b"])
            _check(name, factors, layers.get(name), f"{adapter} does not fit {reference}")
            found[name] = factors
    return found


def _check(name: str, factors: _Factors, layer: Any, misfit: str) -> None:
    if not isinstance(layer, nn.Linear | nn.QuantizedLinear):
        raise AdapterMismatch(f"The adapter in {misfit}: no linear layer {name}; give its model")
    n_out, n_in = layer.weight.shape
    if isinstance(layer, nn.QuantizedLinear):
        n_in = n_in * 32 // layer.bits
    if (factors.a.shape[0], factors.b.shape[1]) != (n_in, n_out):
        raise AdapterMismatch(f"The adapter in {misfit}: {name} has other sizes; give its model")


def _padded(factors: _Factors, rank: int) -> _Factors:
    more = rank - factors.a.shape[1]
    return _Factors(mx.pad(factors.a, [(0, 0), (0, more)]), mx.pad(factors.b, [(0, more), (0, 0)]))
