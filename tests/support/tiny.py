"""Two-layer random models with a byte tokenizer, as folders that mlx_lm loads; and rows."""

import json
from pathlib import Path
from typing import Any

GEMMA_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

GEMMA_CONFIG = {
    "model_type": "gemma3_text",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 64,
    "sliding_window_pattern": 2,
    "vocab_size": 320,
    "eos_token_id": [1, 5],
}
LLAMA_CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": 320,
    "tie_word_embeddings": True,
    "eos_token_id": [2],
}


def write_gemma(folder: Path) -> Path:
    """A Gemma 3 of two layers, one of them with a sliding window."""
    return _write(folder, GEMMA_CONFIG, GEMMA_TOKENS, bos="<bos>", eos="<eos>")


def write_llama(folder: Path) -> Path:
    """A Llama of two layers with ChatML's tokens."""
    return _write(folder, LLAMA_CONFIG, CHATML_TOKENS, bos="<|im_start|>", eos="<|im_end|>")


def write_rows(path: Path, count: int) -> Path:
    """Rows as xlam has them, with one tool of one argument."""
    tool = {"name": "add", "description": "Add.", "parameters": {"x": {"type": "int"}}}
    rows = [
        {
            "query": f"Add {i}.",
            "tools": json.dumps([tool]),
            "answers": json.dumps([{"name": "add", "arguments": {"x": i}}]),
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_adapter(
    model: Path,
    folder: Path,
    kind: Any = "lora",
    size: float = 0.02,
    layers: int = 1,
    rank: int = 4,
    seed: int = 1,
) -> Path:
    """An adapter for a model's upper layers with random weights of this size, as train saves it."""
    import mlx.core as mx
    from mlx_lm.utils import load_model

    from calltune.training.adapter import AdapterShape, attach, save, trainable

    loaded, _ = load_model(model)
    config = attach(loaded, AdapterShape(kind, layers, rank, 2.0, 0.0), seed=seed)
    weights = {
        name: value + size * mx.random.normal(value.shape)
        for name, value in trainable(loaded).items()
    }
    folder.mkdir(parents=True)
    save(folder, weights, config | {"model": str(model)})
    return folder


def make_model(config: dict[str, Any]) -> Any:
    """The model of a config, with weights from a fixed seed."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes

    model_class, args_class = _get_classes(config)
    mx.random.seed(7)
    model = model_class(args_class.from_dict(config))
    if "lm_head" in model:
        model.sanitize({})
    mx.eval(model.parameters())
    return model


def _write(folder: Path, config: dict[str, Any], special: list[str], bos: str, eos: str) -> Path:
    import mlx.core as mx
    from mlx.utils import tree_flatten

    folder.mkdir(parents=True)
    weights = dict(tree_flatten(make_model(config).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder, special, bos, eos)
    return folder


def _write_tokenizer(folder: Path, special: list[str], bos: str, eos: str) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    if bos == "<bos>":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
