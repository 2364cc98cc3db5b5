"""GGUF files of small random models, laid out as the converters for llama and Gemma do it."""

from pathlib import Path
from typing import Any

import numpy as np

from gguf import GGMLQuantizationType, GGUFWriter, quantize

GEMMA_PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
GEMMA_RUNS = ["\n", "\n\n", "\n\n\n", "  ", "   "]
WORDS = ["a", "b", "c", "▁", "▁a", "ab", "▁ab", "abc"]
BYTE_LETTERS = [*"abcdefghij0123456789.", "Ġ", "Ċ"]
CHATML_PIECES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HIDDEN, HEAD, N_LAYERS = 64, 32, 6
CONTROL, USER_DEFINED, BYTE = 3, 4, 6


def write(
    path: Path, arch: str, kinds: dict[str, GGMLQuantizationType] | None = None
) -> dict[str, Any]:
    """Write a file whose matrices are float32, or of the given kinds; the weights as mlx_lm's."""
    rng = np.random.default_rng(5)
    writer = GGUFWriter(path, arch)
    n_vocabulary = _add_gemma_tokens(writer) if arch == "gemma3" else _add_llama_tokens(writer)
    _add_sizes(writer, is_gemma=arch == "gemma3")
    weights: dict[str, Any] = {}
    for name, (module, shape) in _tensors(arch, n_vocabulary).items():
        weight = rng.normal(size=shape).astype(np.float32) / 8
        weights[f"{module}.weight"] = weight
        if len(shape) == 1:
            # Halves keep 1 + weight exact in float32.
            weight = weights[f"{module}.weight"] = np.round(weight * 64) / 64
        data = weight + np.float32(1) if arch == "gemma3" and len(shape) == 1 else weight
        if arch == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
            data = _interleave(data)
        kind = (kinds or {}).get(name.split(".")[-2])
        if kind is None:
            writer.add_tensor(name, data)
        else:
            writer.add_tensor(name, quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _interleave(rows: np.ndarray) -> np.ndarray:
    """Row 2i is row i of a head's first half, and row 2i + 1 row i of its second half."""
    heads = rows.reshape(-1, HEAD, rows.shape[1])
    mixed = np.empty_like(heads)
    mixed[:, 0::2], mixed[:, 1::2] = heads[:, : HEAD // 2], heads[:, HEAD // 2 :]
    return mixed.reshape(rows.shape)


def _tensors(arch: str, n_vocabulary: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "token_embd.weight": ("model.embed_tokens", (n_vocabulary, HIDDEN)),
        "output_norm.weight": ("model.norm", (HIDDEN,)),
    }
    for layer in range(N_LAYERS):
        inner: dict[str, tuple[str, tuple[int, ...]]] = {
            "attn_norm": ("input_layernorm", (HIDDEN,)),
            "attn_q": ("self_attn.q_proj", (2 * HEAD, HIDDEN)),
            "attn_k": ("self_attn.k_proj", (HEAD, HIDDEN)),
            "attn_v": ("self_attn.v_proj", (HEAD, HIDDEN)),
            "attn_output": ("self_attn.o_proj", (HIDDEN, 2 * HEAD)),
            "ffn_gate": ("mlp.gate_proj", (256, HIDDEN)),
            "ffn_up": ("mlp.up_proj", (256, HIDDEN)),
            "ffn_down": ("mlp.down_proj", (HIDDEN, 256)),
        }
        if arch == "llama":
            inner["ffn_norm"] = ("post_attention_layernorm", (HIDDEN,))
        else:
            inner["attn_q_norm"] = ("self_attn.q_norm", (HEAD,))
            inner["attn_k_norm"] = ("self_attn.k_norm", (HEAD,))
            inner["post_attention_norm"] = ("post_attention_layernorm", (HIDDEN,))
            inner["ffn_norm"] = ("pre_feedforward_layernorm", (HIDDEN,))
            inner["post_ffw_norm"] = ("post_feedforward_layernorm", (HIDDEN,))
        for name, (module, shape) in inner.items():
            found[f"blk.{layer}.{name}.weight"] = (f"model.layers.{layer}.{module}", shape)
    return found


def _add_sizes(writer: GGUFWriter, is_gemma: bool) -> None:
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(256)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50_000.0)
    if is_gemma:
        writer.add_key_length(HEAD)
        writer.add_sliding_window(16)
    else:
        writer.add_rope_dimension_count(HEAD)


def _add_gemma_tokens(writer: GGUFWriter) -> int:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [*GEMMA_PIECES, *GEMMA_RUNS, *bytes_, *WORDS]
    kinds = [CONTROL] * len(GEMMA_PIECES) + [USER_DEFINED] * len(GEMMA_RUNS)
    kinds += [BYTE] * len(bytes_) + [1] * len(WORDS)
    unscored = len(pieces) - len(WORDS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_scores([-1000.0] * unscored + [-float(i) for i in range(len(WORDS))])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    return len(pieces)


def _add_llama_tokens(writer: GGUFWriter) -> int:
    pieces = [*CHATML_PIECES, *BYTE_LETTERS, "12", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(pieces)
    writer.add_token_types([CONTROL] * len(CHATML_PIECES) + [1] * (len(pieces) - 3))
    writer.add_token_merges(["1 2", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    return len(pieces)
