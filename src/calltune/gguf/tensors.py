"""Names and row order of weights in GGUF files and in mlx_lm's models (llama, gemma3)."""

import re
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", bound=np.generic)

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BY_ARCHITECTURE = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}


def module_for_tensor(name: str, architecture: str) -> str | None:
    """mlx_lm's name for the module with the weight of GGUF tensor `name`; None if there is none."""
    inner = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if inner and (module := (_INNER | _BY_ARCHITECTURE[architecture]).get(inner[2])):
        return f"model.layers.{inner[1]}.{module}"
    return _OUTER.get(name.removesuffix(".weight")) if name.endswith(".weight") else None


def tensor_for_module(module: str, architecture: str) -> str:
    """The GGUF tensor that holds the weight of one of `modules`, without ".weight"."""
    inner = re.fullmatch(r"model\.layers\.(\d+)\.([\w.]+)", module)
    names = (_INNER | _BY_ARCHITECTURE[architecture]) if inner else _OUTER
    tensor = next(name for name, own in names.items() if own == (inner[2] if inner else module))
    return f"blk.{inner[1]}.{tensor}" if inner else tensor


def modules(architecture: str, n_layers: int) -> Iterator[str]:
    """The modules that every model of an architecture has; `lm_head` is only in some."""
    yield from ("model.embed_tokens", "model.norm")
    for layer in range(n_layers):
        for module in (_INNER | _BY_ARCHITECTURE[architecture]).values():
            yield f"model.layers.{layer}.{module}"


def permuted_heads(module: str, architecture: str, n_heads: int, n_kv_heads: int) -> int | None:
    """How many heads have rows that a GGUF file permutes in this module; None where it does not."""
    if architecture != "llama":
        return None
    return {"q_proj": n_heads, "k_proj": n_kv_heads}.get(module.split(".")[-1])


def deinterleave_heads(rows: NDArray[Kind], n_heads: int) -> NDArray[Kind]:
    """Rows of a GGUF tensor in mlx_lm's order: a head's halves, which the file interleaves."""
    halves = rows.reshape(n_heads, rows.shape[0] // n_heads // 2, 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def interleave_heads(rows: NDArray[Kind], n_heads: int) -> NDArray[Kind]:
    """Rows of mlx_lm's in the order of a GGUF tensor: the reverse of `deinterleave_heads`."""
    halves = rows.reshape(n_heads, 2, rows.shape[0] // n_heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
