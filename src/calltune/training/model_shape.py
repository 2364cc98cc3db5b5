"""A decoder's sizes, as the memory planner needs them, read from a model and its config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from calltune.errors import OptionError


class Linear(NamedTuple):
    """A linear layer: (…, n_inputs) → (…, n_outputs)."""

    name: str
    n_inputs: int
    n_outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder's sizes, in numbers where the name does not say bytes."""

    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    n_layers: int
    norms: int
    """Outputs of one layer's norms at one position, in all."""
    groups: tuple[tuple[Linear, ...], ...]
    """The linear layers of one decoder layer; a group is computed by LoRA as one product."""
    layer_weights: int
    outside_weights: int
    """Weights outside the layers: embedding, head (once where the two are tied), last norm."""
    largest_matrix: int
    layer_bytes: int
    """One layer's weights as stored, quantized or not."""
    outside_bytes: int
    largest_matrix_bytes: int
    is_quantized: bool

    @property
    def queries(self) -> int:
        """The width of all heads' queries."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """The width of all heads' keys, and of their values."""
        return self.kv_heads * self.head_dim


def shape_of(
    model: Any,
    config: Mapping[str, Any],
    together: Sequence[tuple[str, ...]],
    number_bytes: int,
) -> ModelShape:
    """The sizes of an mlx_lm model, whose weights may be unread, with its config.json.

    `together` names the linear layers that LoRA computes as one product. `number_bytes` is the size
    of a float once the model is loaded.

    Raises:
        OptionError: the model is no decoder with one feed-forward part a layer.
    """
    text = config.get("text_config", config)
    heads = text.get("num_attention_heads")
    linears, norms = _linears(model.layers[-1]), _norms(model.layers[-1])
    if not heads or not {"q_proj", "k_proj", "up_proj"} <= linears.keys():
        raise OptionError(
            f"calltune plan knows decoders with q, k, v and up projections, and a model of type "
            f"{config.get('model_type')} is another; try calltune train with few --iters"
        )
    head_dim = linears["q_proj"].n_outputs // heads
    kv_heads = linears["k_proj"].n_outputs // head_dim
    uses = {"q_norm": heads, "k_norm": kv_heads}
    matrices = [module for _, module in model.named_modules() if _is_matrix(module)]
    largest = max(matrices, key=_n_weights)
    layers = [_counts(layer, number_bytes) for layer in model.layers]
    whole = _counts(model, number_bytes)
    n_layers = len(layers)
    in_layers = _Counts(sum(c.weights for c in layers), sum(c.n_bytes for c in layers))
    largest_counts = _counts(largest, number_bytes)
    return ModelShape(
        hidden=linears["q_proj"].n_inputs,
        ffn=linears["up_proj"].n_outputs,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=text.get("vocab_size") or _n_rows(model),
        n_layers=n_layers,
        # A norm of one head's width is used once for every head.
        norms=sum(width * (uses.get(name, 1) if width == head_dim else 1) for name, width in norms),
        groups=_grouped(linears, together),
        layer_weights=in_layers.weights // n_layers,
        outside_weights=whole.weights - in_layers.weights,
        largest_matrix=largest_counts.weights,
        layer_bytes=in_layers.n_bytes // n_layers,
        outside_bytes=whole.n_bytes - in_layers.n_bytes,
        largest_matrix_bytes=largest_counts.n_bytes,
        is_quantized=any("scales" in module for module in matrices),
    )


def float_bytes(model: Any) -> int:
    """The size in bytes of a float in the model as it is stored."""
    from mlx.utils import tree_flatten

    arrays: Any = tree_flatten(model.layers[-1].parameters())
    return int(max(array.dtype.size for _, array in arrays if "float" in str(array.dtype)))


class _Counts(NamedTuple):
    weights: int
    n_bytes: int


def _counts(module: Any, number_bytes: int) -> _Counts:
    """The weights in a module, scales of quantized ones left out, and its bytes with them."""
    from mlx.utils import tree_flatten

    weights, n_bytes = 0, 0
    arrays: Any = tree_flatten(module.parameters())
    for _, array in arrays:
        is_packed = array.dtype.size == 4 and "uint" in str(array.dtype)
        n_bytes += array.nbytes if "int" in str(array.dtype) else array.size * number_bytes
        weights += 0 if is_packed else array.size
    for _, part in module.named_modules():
        if "scales" in part:
            weights += _n_weights(part) - part.scales.size
            weights -= part["biases"].size if "biases" in part else 0
    return _Counts(weights, n_bytes)


def _is_matrix(module: Any) -> bool:
    return "weight" in module and module.weight.ndim == 2


def _n_weights(module: Any) -> int:
    size: int = module.weight.size
    return size * 32 // module.bits if "scales" in module else size


def _n_rows(model: Any) -> int:
    return int(max(m.weight.shape[0] for _, m in model.named_modules() if _is_matrix(m)))


def _linears(layer: Any) -> dict[str, Linear]:
    """A layer's linear layers by the last part of their names."""
    found = {}
    for path, module in layer.named_modules():
        if _is_matrix(module):
            name, n_outputs = path.rsplit(".", 1)[-1], module.weight.shape[0]
            found[name] = Linear(name, _n_weights(module) // n_outputs, n_outputs)
    return found


def _norms(layer: Any) -> list[tuple[str, int]]:
    """A layer's norms: names and widths."""
    return [
        (path.rsplit(".", 1)[-1], module.weight.size)
        for path, module in layer.named_modules()
        if "weight" in module and module.weight.ndim == 1
    ]


def _grouped(
    linears: Mapping[str, Linear], together: Sequence[tuple[str, ...]]
) -> tuple[tuple[Linear, ...], ...]:
    groups = [names for names in together if all(name in linears for name in names)]
    taken = {name for names in groups for name in names}
    alone = [(name,) for name in linears if name not in taken]
    return tuple(tuple(linears[name] for name in names) for names in [*groups, *alone])
