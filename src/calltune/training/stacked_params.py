"""Trained weights of the same shape stacked into one array, so that a step touches few arrays.

The LoRA matrices of one projection have the same shape in every layer. Stacked, their type is
changed, their gradients are scaled and Adam updates them in one kernel instead of one per layer.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from calltune.training.packed_lora import PackedLoRA

Weights = dict[str, mx.array]


class StackedParams:
    """Which trained weights of a model are stacked, and the way there and back.

    A stack is keyed by what its weights share, such as `a self_attn.q_proj 24x1152 float32`.
    """

    def __init__(self, model: Any, weights: Mapping[str, mx.array]) -> None:
        """Stack `weights`, the trained weights of `model` by their names in it."""
        self._names: dict[str, list[str]] = {}
        for name, value in weights.items():
            self._names.setdefault(_key(name, value), []).append(name)
        packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLoRA)}
        self._packed = {
            key: packed[names[0].rsplit(".", 1)[0]]
            for key, names in self._names.items()
            if names[0].rsplit(".", 1)[0] in packed
        }

    def stack(self, weights: Mapping[str, mx.array]) -> Weights:
        """The stacks (n * rows, …) of weights (rows, …) given by name."""
        return {
            key: mx.concatenate([weights[name] for name in names])
            for key, names in self._names.items()
        }

    def unstack(self, stacks: Mapping[str, mx.array]) -> Weights:
        """The weights (rows, …) in the stacks by name: the reverse of `stack`."""
        weights: Weights = {}
        for key, names in self._names.items():
            parts = mx.split(stacks[key], len(names))
            weights |= dict(zip(names, parts, strict=True))
        return weights

    def for_forward(self, stacks: Weights, dtype: mx.Dtype) -> Weights:
        """The weights by name as the layers use them.

        Packed LoRA matrices are in `dtype`, and a is multiplied by LoRA's scale.
        """
        used = dict(stacks)
        for key in self._packed:
            used[key] = (stacks[key] * self.scale(key)).astype(dtype)
        return self.unstack(used)

    def mask_gradients(self, gradients: Weights) -> Weights:
        """Stacked gradients, zero between the blocks of packed matrices, which are not trained."""
        kept = dict(gradients)
        for key in gradients:
            if (mask := self.mask(key)) is not None:
                each = gradients[key].reshape(-1, *mask.shape)
                kept[key] = (each * mask).reshape(gradients[key].shape)
        return kept

    def mask(self, key: str) -> mx.array | None:
        """The mask (rows, …) of each weight's gradient in a stack; None where there is none."""
        return self._packed[key].mask() if key in self._packed and key.startswith("b ") else None

    def members(self, key: str, of: Mapping[str, mx.array]) -> list[mx.array]:
        """The values of `of`, a mapping by name, for the weights in a stack, in their order."""
        return [of[name] for name in self._names[key]]

    def scale(self, key: str) -> float:
        """The factor by which `for_forward` multiplies the weights in a stack."""
        return self._packed[key].scale if key in self._packed and key.startswith("a ") else 1.0


def _key(name: str, value: mx.array) -> str:
    """What weights in one stack share: `a self_attn.q_proj 1152x24 float32`, say."""
    *path, leaf = name.split(".")
    layer = [part for part in path if not part.isdigit()]
    shape = "x".join(str(size) for size in value.shape)
    return f"{leaf} {'.'.join(layer[-2:])} {shape} {str(value.dtype).rsplit('.', 1)[-1]}"
