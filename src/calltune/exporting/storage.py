"""How the weights of one layer are stored, and storing the layer another way."""

from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from calltune.types import Json

_GROUPS = (64, 32)
"""Group sizes to try; mlx_lm's convert uses 64."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How one layer's weights are stored: quantised in groups, or as floats."""

    floats: mx.Dtype
    """The type of the weights, or of the scales of quantised weights."""
    bits: int | None
    """Bits of a quantised weight; None where weights are floats."""
    group_size: int = 0
    mode: str = "affine"

    @classmethod
    def of(cls, module: Any) -> "Stored":
        """How a quantised layer of MLX is stored."""
        return cls(module.scales.dtype, module.bits, module.group_size, module.mode)

    def at(self, bits: str, module: Any) -> "Stored":
        """How `module` is stored in another precision, one of `fuse.Bits`.

        A layer whose width no group size divides is stored as floats.
        """
        if bits == "base":
            return self
        floats = mx.float32 if bits == "float32" else self.floats
        if bits in ("dense", "float32"):
            return Stored(floats, None)
        width = _width(module)
        sizes = [size for size in (self.group_size, *_GROUPS) if size and width % size == 0]
        if not sizes:
            return Stored(floats, None)
        return Stored(floats, int(bits), sizes[0])

    def at_least(self, bits: str, module: Any) -> "Stored":
        """As it is stored, or as `at` says where that is finer."""
        other = self.at(bits, module)
        is_coarser = other.bits is not None and (self.bits is None or other.bits <= self.bits)
        return self if is_coarser or self.bits is None else other

    def applied(self, module: Any) -> Any:
        """The float32 layer `module`, stored this way."""
        if self.bits is None:
            module.weight = module.weight.astype(self.floats)
            mx.eval(module.parameters())
            return module
        made = module.to_quantized(self.group_size, self.bits, self.mode)
        if self.mode == "affine":
            made.scales = made.scales.astype(self.floats)
            made.biases = made.biases.astype(self.floats)
        mx.eval(made.parameters())
        return made

    def to_json(self) -> dict[str, Json]:
        """As config.json describes a quantised layer."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


def is_quantised(module: Any) -> bool:
    """Whether a layer's own weights are quantised."""
    return "scales" in module and hasattr(module, "bits")


def floats_of(parameters: dict[str, mx.array]) -> mx.Dtype:
    """The float type that most of a model's numbers are stored in."""
    sizes: dict[mx.Dtype, int] = {}
    for array in parameters.values():
        if mx.issubdtype(array.dtype, mx.floating):
            sizes[array.dtype] = sizes.get(array.dtype, 0) + array.size
    return max(sizes, key=lambda kind: sizes[kind])


def stored_as(module: Any, floats: mx.Dtype) -> Stored:
    """How a layer is stored; `floats` replaces the type of scales that are not floats."""
    if not is_quantised(module):
        return Stored(module.weight.dtype, None)
    stored = Stored.of(module)
    return stored if mx.issubdtype(stored.floats, mx.floating) else replace(stored, floats=floats)


def weight_of(module: Any) -> mx.array:
    """A layer's weights in float32, dequantised without rounding."""
    if not is_quantised(module):
        return mx.array(module.weight).astype(mx.float32)
    scales, biases = module.scales, module.get("biases")
    if module.mode == "affine":
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    weight = mx.dequantize(
        module.weight, scales, biases, module.group_size, module.bits, module.mode
    )
    return weight.astype(mx.float32)


def _width(module: Any) -> int:
    """The length of a row of weights, which groups must divide."""
    width = int(module.weight.shape[-1])
    return width * 32 // int(module.bits) if is_quantised(module) else width
