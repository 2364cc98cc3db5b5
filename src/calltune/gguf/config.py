"""The dimensions in a GGUF file's fields, and the `config.json` that mlx_lm reads them from."""

from dataclasses import dataclass
from typing import Literal

from calltune.errors import ModelNotFound
from calltune.types import Json

Architecture = Literal["llama", "gemma3"]


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A model's architecture and sizes, counted in numbers, layers, heads or tokens."""

    architecture: Architecture
    n_layers: int
    hidden: int
    feed_forward: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    context_length: int
    norm_epsilon: float
    rope_base: float
    rope_factor: float | None
    """The factor by which positions are linearly scaled down; None for no scaling."""
    sliding_window: int | None


def read_dimensions(fields: dict[str, Json]) -> Dimensions:
    """The dimensions among a GGUF file's fields.

    Raises:
        ModelNotFound: the architecture is another one, a size is missing, or the file is a part.
    """
    architecture = fields.get("general.architecture")
    if architecture not in ("llama", "gemma3"):
        raise ModelNotFound(
            f"its architecture is {architecture}, and only llama and gemma3 can be converted; "
            "take the model from the hub instead"
        )
    if fields.get("split.count", 1) > 1:
        raise ModelNotFound("it is one part of a split model; join the parts first")
    own = {key.removeprefix(f"{architecture}."): value for key, value in fields.items()}
    try:
        return _shape(architecture, own)
    except KeyError as error:
        raise ModelNotFound(
            f"its field {architecture}.{error.args[0]} is missing; fetch it again"
        ) from None


def model_config(
    shape: Dimensions, *, n_vocabulary: int, is_tied: bool, dtype: str
) -> dict[str, Json]:
    """The content of config.json, without token ids and quantisation."""
    config: dict[str, Json] = {
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.n_layers,
        "intermediate_size": shape.feed_forward,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "head_dim": shape.head_size,
        "rms_norm_eps": shape.norm_epsilon,
        "vocab_size": n_vocabulary,
        "max_position_embeddings": shape.context_length,
        "rope_theta": shape.rope_base,
        "attention_bias": False,
        "tie_word_embeddings": is_tied,
        "torch_dtype": dtype,
    }
    if shape.rope_factor:
        # Two readers, two names for the same thing.
        kind = {"type": "linear", "rope_type": "linear"}
        config["rope_scaling"] = kind | {"factor": shape.rope_factor}
    if shape.architecture == "llama":
        own = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"}
        return own | config
    return config | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": shape.sliding_window,
        # Not in the file: every Gemma 3 has one global layer in six, and this base in the others.
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": shape.head_size,
    }


def _shape(architecture: Architecture, own: dict[str, Json]) -> Dimensions:
    n_heads = own["attention.head_count"]
    head_size = own["embedding_length"] // n_heads
    for key in ("rope.dimension_count", "attention.key_length"):
        head_size = own.get(key, head_size)
    scaling = own.get("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ModelNotFound(
            f"its positions are scaled by {scaling}, which cannot be converted; take the model "
            "from the hub instead"
        )
    return Dimensions(
        architecture,
        own["block_count"],
        own["embedding_length"],
        own["feed_forward_length"],
        n_heads,
        own.get("attention.head_count_kv") or n_heads,
        head_size,
        own["context_length"],
        # The file has float32; seven digits give back the number that was meant.
        float(f"{own['attention.layer_norm_rms_epsilon']:.7g}"),
        own.get("rope.freq_base", 1_000_000.0 if architecture == "gemma3" else 10_000.0),
        own.get("rope.scaling.factor") if scaling == "linear" else None,
        own["attention.sliding_window"] if architecture == "gemma3" else None,
    )
