"""The sizes in a model folder's config.json as the fields of a GGUF file."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, RopeScalingType
from numpy.typing import NDArray

from calltune.calls import Json
from calltune.errors import ModelNotFound
from calltune.jsonl import read_json
from calltune.models.gguf_config import Family, Shape

_FAMILIES: dict[str, Family] = {"llama": "llama", "gemma3_text": "gemma3", "gemma3": "gemma3"}


def read_config(folder: Path) -> dict[str, Json]:
    """What config.json says of the language model.

    Raises:
        DataError: there is none, or it is not JSON.
        ModelNotFound: the architecture is another one, or the weights are quantised.
    """
    config: dict[str, Json] = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        raise ModelNotFound(
            f"its architecture is {kind}, and only {', '.join(_FAMILIES)} can be written as GGUF"
        )
    if "quantization" in config or "quantization_config" in config:
        raise ModelNotFound("its weights are quantised; make a dense folder of it first")
    own: dict[str, Json] = config | config.get("text_config", {}) | {"model_type": kind}
    return own


def shape_of(config: dict[str, Json]) -> Shape:
    """The sizes, with mlx_lm's defaults for what the config leaves out.

    Raises:
        ModelNotFound: it asks for something that llama.cpp would compute differently.
    """
    family = _FAMILIES[config["model_type"]]
    args = _arguments(family, config)
    _check_gemma(args) if family == "gemma3" else _check_llama(args)
    kind, factor = _scaling(args)
    if kind not in ("default", "linear", "llama3") or (kind, family) == ("llama3", "gemma3"):
        raise ModelNotFound(f"its positions are scaled by {kind}, which cannot be written as GGUF")
    return Shape(
        family,
        args.num_hidden_layers,
        args.hidden_size,
        args.intermediate_size,
        args.num_attention_heads,
        args.num_key_value_heads,
        args.head_dim or args.hidden_size // args.num_attention_heads,
        args.max_position_embeddings or 2048,
        args.rms_norm_eps,
        args.rope_theta,
        factor if kind == "linear" else None,
        args.sliding_window if family == "gemma3" else None,
    )


def add_shape(writer: GGUFWriter, shape: Shape, n_vocabulary: int) -> None:
    """Write the sizes as fields."""
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(n_vocabulary)
    if shape.rope_factor is not None:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_factor)
    if shape.sliding_window is not None:
        writer.add_sliding_window(shape.sliding_window)


def rope_factors(config: dict[str, Json], shape: Shape) -> NDArray[np.float32] | None:
    """By how much each pair's wavelength is stretched in Llama 3.1 and later; None elsewhere.

    (head_size / 2,) float32, as mlx_lm stretches them.
    """
    if _scaling(_arguments(shape.family, config))[0] != "llama3":
        return None
    import mlx.core as mx
    from mlx_lm.models.rope_utils import initialize_rope

    half = mx.arange(0, shape.head_size, 2) / shape.head_size
    rope: Any = initialize_rope(
        shape.head_size, shape.rope_base, False, config["rope_scaling"], shape.context_length
    )
    return np.array(rope._freqs / shape.rope_base**half, dtype=np.float32)


def _arguments(family: Family, config: dict[str, Json]) -> Any:
    """The config as mlx_lm reads it.

    Raises:
        ModelNotFound: a size is missing.
    """
    from mlx_lm.models import gemma3_text, llama

    reader = gemma3_text.ModelArgs if family == "gemma3" else llama.ModelArgs
    try:
        return reader.from_dict(config)
    except TypeError as error:
        raise ModelNotFound(f"its config.json is not whole ({error}); fetch it again") from None


def _scaling(args: Any) -> tuple[str, float]:
    scaling = args.rope_scaling or {}
    kind = scaling.get("type") or scaling.get("rope_type") or "default"
    return kind, scaling.get("factor", 1.0)


def _check_llama(args: Any) -> None:
    if args.rope_traditional or set(args.layer_types) != {"full_attention"}:
        raise ModelNotFound(
            "it has traditional positions or sliding windows, which a llama GGUF cannot say"
        )


def _check_gemma(args: Any) -> None:
    """llama.cpp has these numbers in its code, not in the file."""
    # Its 27B model alone scales by another size than a head's.
    per_head = args.hidden_size // args.num_attention_heads
    scale = per_head if args.num_hidden_layers == 62 else args.head_dim
    fixed = {
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10_000,
        "query_pre_attn_scalar": scale,
    }
    for name, value in fixed.items():
        if (own := getattr(args, name)) != value:
            raise ModelNotFound(f"its {name} is {own}, and llama.cpp takes {value} for granted")
