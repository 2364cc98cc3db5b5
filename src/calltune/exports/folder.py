"""A model folder that mlx_lm and transformers load, with a chat template that knows tools."""

import shutil
from pathlib import Path
from typing import Any

from calltune.calls import Json
from calltune.exports.fused import Fused
from calltune.formats import Format
from calltune.jsonl import read_json, write_json
from calltune.questions import stop_tokens

_COPIED = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "*.tiktoken", "vocab.json", "vocab.txt", "merges.txt"),
    *("generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"),
)
"""What a model folder holds beside its weights and its config; never code."""


def write_model(fused: Fused, source: Path, target: Path, family: Format) -> None:
    """Fill the folder `target` with a model whose base is in `source`. Imports MLX."""
    from mlx_lm.utils import load_tokenizer, save_config, save_model

    _copy(source, target)
    _write_template(target, family)
    tokenizer = load_tokenizer(target, eos_token_ids=fused.config.get("eos_token_id"))
    stops = {"eos_token_id": stop_tokens(tokenizer, [family.name])}
    save_model(target, fused.model)
    save_config(fused.config | stops, target / "config.json", keep_vision_config=_sees(fused.model))
    if (generation := target / "generation_config.json").is_file():
        write_json(generation, read_json(generation) | stops)


def _copy(source: Path, target: Path) -> None:
    for path in sorted({path for pattern in _COPIED for path in source.glob(pattern)}):
        if path.is_file():
            shutil.copyfile(path, target / path.name)


def _write_template(target: Path, family: Format) -> None:
    """Put the format's chat template in the two places where it is looked for."""
    (target / "chat_template.jinja").write_text(family.chat_template, "utf-8")
    path = target / "tokenizer_config.json"
    found: dict[str, Json] = read_json(path) if path.is_file() else {}
    # mlx_lm would render prompts and read answers as they say, whatever the template is.
    found = {k: v for k, v in found.items() if k not in ("chat_template_type", "tool_parser_type")}
    parser = {"tool_parser_type": family.tool_parser} if family.tool_parser else {}
    write_json(path, found | {"chat_template": family.chat_template} | parser)


def _sees(model: Any) -> bool:
    """Whether there is a part for images, which wants its own config."""
    return "vision_tower" in getattr(model, "model", {})
