"""LoRA on projections that share their input, computed as one product in each direction.

q, k and v read the same hidden states, and so do gate and up. Their frozen matrices and LoRA
matrices are put side by side, so that a step launches a third of the kernels. The function is
that of mlx_lm's `LoRALinear`; the trained matrices are kept in float32 and rounded to the
activations' type where they are used, so that nothing is promoted.

LoRA: Hu et al., https://arxiv.org/abs/2106.09685.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tuner.lora import LoRALinear

SHARED_INPUT_GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections that are called with the same array, by their names in mlx_lm's models."""


class FrozenProduct(NamedTuple):
    """A frozen product and its transpose: (N, D) -> (N, O) and (N, O) -> (N, D)."""

    forward: Callable[[mx.array], mx.array]
    backward: Callable[[mx.array], mx.array]


class Projection(NamedTuple):
    """One projection of a packed group: its full name in the model, and its output size."""

    name: str
    n_outputs: int


class PackedLoRA(nn.Module):  # type: ignore[misc]
    """Takes the place of a group's first projection, and computes all of them.

    a (P * R, D) and b (P * R, O) hold the projections' LoRA matrices one below the other, a
    transposed and b in blocks on its diagonal; P projections, R rank, D inputs, O the outputs of
    all projections together. They are trained in float32; `StackedParams.for_forward` puts them
    here in the type of the activations, `scale` times a.
    """

    def __init__(self, parts: Sequence[Projection], layers: Sequence[LoRALinear]) -> None:
        """Pack `layers`, one for each of `parts`, in their order."""
        super().__init__()
        self.a = mx.concatenate([layer.lora_a.T for layer in layers]).astype(mx.float32)
        self.b = _blocks([layer.lora_b.astype(mx.float32) for layer in layers])
        # Held in functions: none of this is a parameter.
        frozen = _frozen([layer.linear for layer in layers])
        mask = _blocks([mx.ones_like(layer.lora_b) for layer in layers]) if parts[1:] else None
        mx.eval(self.a, self.b, mask)
        self._parts: Callable[[], Sequence[Projection]] = lambda: parts
        self.mask: Callable[[], mx.array | None] = lambda: mask
        self.scale = layers[0].scale
        self._rank = layers[0].lora_a.shape[1]
        self.frozen: Callable[[], FrozenProduct] = lambda: frozen
        self._waiting: Callable[[], _Outputs | None] = lambda: None

    def __call__(self, x: mx.array) -> mx.array:
        """The first projection's output (…, its outputs) for x (…, D).

        The outputs of the others are kept until their `PackedMember` is called with the same x.
        """
        if len(self._parts()) == 1:
            return self.product(x)
        split: Any = mx.split
        outputs: list[mx.array] = split(self.product(x), self._borders(), axis=-1)
        self._waiting = lambda: _Outputs(x, outputs)
        return outputs[0]

    @property
    def n_parts(self) -> int:
        """The number of projections in the group."""
        return len(self._parts())

    @property
    def n_outputs(self) -> int:
        """The output size of all projections together."""
        return sum(part.n_outputs for part in self._parts())

    def product(self, x: mx.array) -> mx.array:
        """All projections' outputs for x (…, D), side by side: (…, O)."""
        return _product(self.frozen(), x, self.a, self.b)

    def other(self, index: int, x: mx.array) -> mx.array:
        """The output of the projection at `index` (1 or more) for x (…, D).

        It is taken from the last call with the same array, or else computed.
        """
        waiting = self._waiting()
        if waiting is None or waiting.x is not x:
            self(x)
            waiting = self._waiting()
            assert waiting is not None
        if index == len(self._parts()) - 1:
            self._waiting = lambda: None
        return waiting.outputs[index]

    def unpack(self, a: mx.array, b: mx.array) -> dict[str, mx.array]:
        """The matrices a and b of this group as mlx_lm's `lora_a` (D, R) and `lora_b` (R, outputs).

        By their full names in the model.
        """
        matrices, rank = {}, self._rank
        starts = [0, *self._borders()]
        for index, part in enumerate(self._parts()):
            rows = slice(index * rank, (index + 1) * rank)
            columns = slice(starts[index], starts[index] + part.n_outputs)
            matrices[f"{part.name}.lora_a"] = mx.contiguous(a[rows].T)
            matrices[f"{part.name}.lora_b"] = mx.contiguous(b[rows, columns])
        return matrices

    def _borders(self) -> list[int]:
        borders, end = [], 0
        for part in self._parts()[:-1]:
            end += part.n_outputs
            borders.append(end)
        return borders


class PackedMember(nn.Module):  # type: ignore[misc]
    """Takes the place of another projection of a group, and returns what the first computed."""

    def __init__(self, first: PackedLoRA, index: int) -> None:
        """The projection at `index` (1 or more) of the group that `first` computes."""
        super().__init__()
        self._output: Callable[[mx.array], mx.array] = lambda x: first.other(index, x)

    def __call__(self, x: mx.array) -> mx.array:
        """This projection's output (…, its outputs) for x (…, D)."""
        return self._output(x)


class _Outputs(NamedTuple):
    x: mx.array
    outputs: list[mx.array]


def pack_layer(layer: Any, prefix: str) -> None:
    """Pack the LoRA projections of one decoder layer, in place.

    `prefix` is the layer's name in the model. Layers with dropout stay as they are, because each
    projection drops inputs of its own.
    """
    for block_name, block in layer.children().items():
        if not isinstance(block, nn.Module):
            continue
        found = {
            name: module
            for name, module in block.children().items()
            if type(module) is LoRALinear and module.dropout._p_1 == 1
        }
        for names in _groups(found):
            parts = [
                Projection(f"{prefix}.{block_name}.{name}", found[name].lora_b.shape[1])
                for name in names
            ]
            first = PackedLoRA(parts, [found[name] for name in names])
            setattr(block, names[0], first)
            for index, name in enumerate(names[1:], start=1):
                setattr(block, name, PackedMember(first, index))


def _groups(found: dict[str, LoRALinear]) -> list[tuple[str, ...]]:
    """The names in `found`, those that share an input together."""
    together = [
        names
        for names in SHARED_INPUT_GROUPS
        if all(name in found for name in names)
        and len({_layout(found[name].linear) for name in names}) == 1
    ]
    taken = {name for names in together for name in names}
    return together + [(name,) for name in found if name not in taken]


def _layout(linear: Any) -> tuple[Any, ...]:
    """What linear layers must share to be put side by side; models may quantise some finer."""
    quantisation = [getattr(linear, name, None) for name in ("group_size", "bits", "mode")]
    return type(linear), "bias" in linear, linear.weight.dtype, *quantisation


def _product(frozen: FrozenProduct, x: mx.array, a: mx.array, b: mx.array) -> mx.array:
    """X (…, D) -> frozen(x) + (x @ a') @ b, in x's type; a has LoRA's scale in it."""
    a, b = a.astype(x.dtype), b.astype(x.dtype)

    @mx.custom_function
    def forward(x: mx.array, a: mx.array, b: mx.array) -> tuple[mx.array, mx.array]:
        z = x @ a.T
        return mx.addmm(frozen.forward(x), z, b), z

    @forward.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        (x, a, b), (gradient, _), (_, z) = primals, cotangents, outputs
        dz = gradient @ b.T
        of_a, of_b = dz.T @ x, z.T @ gradient
        dz, gradient = mx.depends([dz, gradient], [of_a, of_b])
        return mx.addmm(frozen.backward(gradient), dz, a), of_a, of_b

    outputs: Any = forward(x if x.ndim == 2 else x.reshape(-1, x.shape[-1]), a, b)
    y: mx.array = outputs[0]
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], -1)


def _frozen(linears: Sequence[Any]) -> FrozenProduct:
    """The linear layers side by side as one frozen product."""
    first = linears[0]
    bias = mx.concatenate([layer.bias for layer in linears]) if "bias" in first else None
    weight = mx.concatenate([layer.weight for layer in linears])
    mx.eval(weight)
    if isinstance(first, nn.QuantizedLinear):
        scales = mx.concatenate([layer.scales for layer in linears])
        biases = (
            None
            if first.get("biases") is None
            else mx.concatenate([layer.biases for layer in linears])
        )
        how = {"group_size": first.group_size, "bits": first.bits, "mode": first.mode}

        def product(x: mx.array, transpose: bool) -> mx.array:
            return mx.quantized_matmul(x, weight, scales, biases, transpose=transpose, **how)

    else:
        transposed = weight.T

        def product(x: mx.array, transpose: bool) -> mx.array:
            return x @ (transposed if transpose else weight)

    def forward(x: mx.array) -> mx.array:
        y = product(x, True)
        return y if bias is None else y + bias

    return FrozenProduct(forward, lambda gradient: product(gradient, False))


def _blocks(matrices: Sequence[mx.array]) -> mx.array:
    """Matrices in blocks on the diagonal of one that is zero elsewhere."""
    width = sum(matrix.shape[1] for matrix in matrices)
    rows, start = [], 0
    for matrix in matrices:
        rows.append(mx.pad(matrix, [(0, 0), (start, width - start - matrix.shape[1])]))
        start += matrix.shape[1]
    return mx.concatenate(rows)
