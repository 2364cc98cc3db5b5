"""The trained layers of a decoder as one function: recognised in mlx_lm's models, then verified.

A layer is recognised where it is made of the parts that most decoders share: norm, q k v with
rotary positions, causal attention, o, norm, gated feed-forward, and LoRA on every projection.
What its modules hold is read or found by calling them; then output and gradients of the fused
layers are compared with those of the layers' own code. Any difference leaves the layers' own code
in use.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from calltune.training.cuda.autograd import (
    add_and_norm,
    attention,
    branch,
    feed_forward,
    product,
)
from calltune.training.cuda.interface import Following, Heads, Kernels, Norm
from calltune.training.packed_lora import PackedLoRA
from calltune.training.split_model import SplitModel, WholeModel

Weights = list[mx.array]
TOLERANCE = {mx.float32: 5e-3}
"""Largest relative difference from the layers' own code; products round to TF32 on a GPU."""
HALF_TOLERANCE = 3e-2
TRIED_LENGTH = 64
"""Positions of a trial, beyond an attention window."""


class UnsupportedLayer(Exception):
    """A layer is not made of the parts that can be fused; the message says which is missing."""


class Layer(NamedTuple):
    """One decoder layer's parts."""

    qkv: PackedLoRA
    o: PackedLoRA
    gate_up: PackedLoRA
    down: PackedLoRA
    heads: Heads
    before: Norm
    """Of the layer's input."""
    post_attention: Norm | None
    """Of attention's output, before it is added."""
    pre_feed_forward: Norm
    post_feed_forward: Norm | None
    is_gelu: bool


class FusedLayers:
    """Consecutive decoder layers as one function: see `split_model.FusedDecoder`.

    Shapes: B rows, L positions, D hidden size, N = B * L, R LoRA rank.
    """

    def __init__(self, kernels: Kernels, layers: Sequence[Layer]) -> None:
        """Compute `layers`, from the bottom up, with `kernels` between their products."""
        self.kernels = kernels
        self.layers = layers
        self.max_length: int = layers[0].heads.cosine.shape[0]

    def __call__(self, x: mx.array, recompute: int = 0) -> mx.array:
        """The layers' output (B, L, D) for x (B, L, D).

        The lowest `recompute` layers keep no activations for the backward pass.
        """
        shape, first = x.shape, self.layers[0]
        # Tokens one after the other: a product of matrices needs no reshaping.
        x = x.reshape(-1, shape[-1])
        y = mx.fast.rms_norm(x, first.before.weight, first.before.eps)
        z = y @ first.qkv.a.astype(x.dtype).T
        for number, layer in enumerate(self.layers):
            following = self.layers[number + 1] if layer is not self.layers[-1] else None
            run = self._one(layer, following, shape[0])
            weights = _weights(layer) + ([] if following is None else [following.qkv.a])
            x, *rest = (mx.checkpoint(run) if number < recompute else run)(weights, x, y, z)
            y, z = rest or (y, z)
        return x.reshape(shape)

    def _one(self, layer: Layer, following: Layer | None, n_rows: int) -> Callable[..., Any]:
        """A function of LoRA matrices, x (N, D), its norm y and the norm's product z (N, R)."""
        kernels = self.kernels

        def run(weights: Weights, x: mx.array, y: mx.array, z: mx.array) -> tuple[mx.array, ...]:
            _put(layer, weights)
            heads = attention(kernels, product(layer.qkv, y, z), layer.heads, n_rows)
            inside = Following(layer.pre_feed_forward, layer.gate_up.a.astype(x.dtype))
            middle = add_and_norm(kernels, branch(layer.o, heads), x, layer.post_attention, inside)
            assert middle.y is not None and middle.z is not None
            packed = product(layer.gate_up, middle.y, middle.z)
            last = feed_forward(kernels, packed, layer.down, layer.is_gelu)
            after = None
            if following is not None:
                after = Following(following.before, weights[-1].astype(x.dtype))
            found = add_and_norm(kernels, last, middle.h, layer.post_feed_forward, after)
            return tuple(part for part in found if part is not None)

        return run


def fuse(split_model: SplitModel, kernels: Kernels, max_length: int) -> FusedLayers | None:
    """The trained layers as one function for rows of up to `max_length` positions.

    None where a layer is not made of the parts that can be fused, or computes something else.
    """
    try:
        for is_gelu in (True, False):
            layers = _read_layers(split_model, max_length, is_gelu)
            numbered = enumerate(layers)
            if all(_agrees(split_model, kernels, number, layer) for number, layer in numbered):
                return FusedLayers(kernels, layers)
    except UnsupportedLayer:
        pass
    return None


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise UnsupportedLayer(f"a layer needs {what}")


def _read_layers(split_model: SplitModel, max_length: int, is_gelu: bool) -> list[Layer]:
    _need(not isinstance(split_model, WholeModel), "a model that is split")
    masks = _masks(split_model, max_length)
    return [
        _read(layer, split_model.dtype, max_length, _window(mask, max_length), is_gelu)
        for layer, mask in zip(_upper(split_model), masks, strict=True)
    ]


def _upper(split_model: SplitModel) -> Sequence[Any]:
    upper: Sequence[Any] = split_model.model.layers[split_model.n_frozen :]
    return upper


def _weights(layer: Layer) -> Weights:
    parts = (layer.qkv, layer.o, layer.gate_up, layer.down)
    return [matrix for part in parts for matrix in (part.a, part.b)]


def _put(layer: Layer, weights: Weights) -> None:
    for number, part in enumerate((layer.qkv, layer.o, layer.gate_up, layer.down)):
        part.a, part.b = weights[2 * number], weights[2 * number + 1]


def _read(layer: Any, dtype: mx.Dtype, max_length: int, window: int, is_gelu: bool) -> Layer:
    for block in ("self_attn", "mlp"):
        _need(block in layer, block)
    own = layer.self_attn
    qkv, o = _packed(own, "q_proj", 3), _packed(own, "o_proj", 1)
    gate_up, down = _packed(layer.mlp, "gate_proj", 2), _packed(layer.mlp, "down_proj", 1)
    norms = {
        name: _norm(module, dtype) for name, module in layer.items() if name.endswith("layernorm")
    }
    # Models with four norms have one on either side of each part, those with two before it.
    wanted = {"input_layernorm", "post_attention_layernorm"}
    has_four = "pre_feedforward_layernorm" in norms
    if has_four:
        wanted |= {"pre_feedforward_layernorm", "post_feedforward_layernorm"}
    _need(norms.keys() == wanted, " and ".join(sorted(wanted)))
    after_attention = norms["post_attention_layernorm"]
    return Layer(
        qkv,
        o,
        gate_up,
        down,
        _heads(own, dtype, max_length, window),
        norms["input_layernorm"],
        after_attention if has_four else None,
        norms["pre_feedforward_layernorm"] if has_four else after_attention,
        norms["post_feedforward_layernorm"] if has_four else None,
        is_gelu,
    )


def _packed(block: Any, name: str, n_parts: int) -> PackedLoRA:
    module = block.get(name)
    _need(isinstance(module, PackedLoRA) and module.n_parts == n_parts, f"LoRA on {name}")
    assert isinstance(module, PackedLoRA)
    return module


def _heads(own: Any, dtype: mx.Dtype, max_length: int, window: int) -> Heads:
    for name in ("n_heads", "n_kv_heads", "scale", "rope"):
        _need(hasattr(own, name), f"attention with {name}")
    n_outputs = own.q_proj.n_outputs
    size = n_outputs // (own.n_heads + 2 * own.n_kv_heads)
    is_even = size % 2 == 0 and n_outputs == size * (own.n_heads + 2 * own.n_kv_heads)
    _need(is_even, "heads of one even size")
    # Rotated, ones followed by zeros are cosines followed by sines. MLX's CUDA kernel reads
    # a broadcast array wrongly, so it gets a whole one.
    ones = mx.concatenate(
        [mx.ones((max_length, size // 2)), mx.zeros((max_length, size // 2))], axis=1
    )
    turned = own.rope(ones[None, None])[0, 0]
    cosine, sine = (mx.contiguous(part) for part in mx.split(turned, 2, axis=-1))
    q_norm, k_norm = (
        _norm(own[name], dtype) if name in own else None for name in ("q_norm", "k_norm")
    )
    _need((q_norm is None) == (k_norm is None), "a norm of both queries and keys, or of neither")
    if q_norm is not None and k_norm is not None:
        _need(q_norm.eps == k_norm.eps, "norms of queries and keys with one epsilon")
    mx.eval(cosine, sine)
    return Heads(own.n_heads, own.n_kv_heads, size, own.scale, cosine, sine, q_norm, k_norm, window)


def _norm(module: Any, dtype: mx.Dtype) -> Norm:
    """What an RMSNorm multiplies by, found by calling it: some models store the weight less 1."""
    _need("weight" in module and hasattr(module, "eps"), "norms with a weight and an epsilon")
    own = module.weight.astype(dtype)
    _need(own.size % 4 == 0, "norms of a multiple of four numbers")
    given = module(mx.ones(own.shape, dtype))
    found = min((own, 1 + own), key=lambda weight: float(mx.abs(weight - given).max()))
    mx.eval(found)
    return Norm(found, float(module.eps))


def _masks(split_model: SplitModel, length: int) -> list[Any]:
    """The attention masks that the model passes to its trained layers for rows of this length."""
    caught: list[Any] = []

    def catch(_: Any, x: mx.array, mask: Any = None, *rest: Any, **named: Any) -> mx.array:
        is_plain = all(value is None for value in (*rest, *named.values()))
        _need(is_plain, "no other arguments than hidden states and mask")
        caught.append(mask)
        return x

    split_model.call_with_layers(catch, mx.zeros((1, length), mx.int32))
    return caught[split_model.n_frozen :]


def _window(mask: Any, length: int) -> int:
    """How many positions a query sees under a mask; 0 is all before it."""
    if mask is None or isinstance(mask, str):
        _need(mask == "causal" or length == 1, "a causal mask")
        return 0
    _need(isinstance(mask, mx.array) and mask.shape == (length, length), "one mask for all rows")
    _need(mask.dtype == mx.bool_, "a mask of bools")
    window = int(mask[-1].sum())
    query, position = mx.arange(length)[:, None], mx.arange(length)[None]
    expected = (position <= query) & (position > query - window)
    _need(bool(mx.array_equal(mask, expected)), "a causal mask, or one of a sliding window")
    return 0 if window == length else window


def _agrees(split_model: SplitModel, kernels: Kernels, number: int, layer: Layer) -> bool:
    """Whether a layer's own code gives the same output and the same gradients.

    Raises:
        UnsupportedLayer: a kernel cannot be built for the layer's sizes.
    """
    max_length = layer.heads.cosine.shape[0]
    length = min(max_length, layer.heads.window + TRIED_LENGTH)
    mask, module = _masks(split_model, length)[number], _upper(split_model)[number]
    shape = (2, length, layer.before.weight.size)
    x, gradient = (mx.random.normal(shape).astype(split_model.dtype) for _ in range(2))
    fused = FusedLayers(kernels, [layer])
    kept = _weights(layer)

    def results(run: Callable[[mx.array], mx.array]) -> list[mx.array]:
        def of(x: mx.array, *weights: mx.array) -> mx.array:
            _put(layer, list(weights))
            return run(x)

        outputs, gradients = mx.vjp(of, [x, *kept], [gradient])
        # Untrained LoRA gives half of its matrices no gradient.
        return [*outputs, gradients[0], *gradients[2::2]]

    try:
        pairs = zip(results(fused), results(lambda x: module(x, mask)), strict=True)
        tolerance = TOLERANCE.get(split_model.dtype, HALF_TOLERANCE)
        return all(_difference(one, other) <= tolerance for one, other in pairs)
    except RuntimeError as error:
        # MLX reports so what NVRTC refuses to compile, or the GPU to launch.
        raise UnsupportedLayer(f"a layer needs kernels that cannot be built: {error}") from error
    finally:
        _put(layer, kept)


def _difference(one: mx.array, other: mx.array) -> float:
    one, other = one.astype(mx.float32), other.astype(mx.float32)
    return float(mx.linalg.norm(one - other) / mx.linalg.norm(other))
