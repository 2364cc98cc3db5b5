"""Writes a model folder's tokenizer.json as the tokenizer fields of a GGUF file."""

import re
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from calltune.errors import ModelNotFound
from calltune.files import read_json
from calltune.formats import Format
from calltune.gguf.tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    GgufTokenizer,
    derive_merges,
    pre_tokenizer_name,
)
from calltune.types import Json
from gguf import GGUFWriter

_CUT_AT_SPACES = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
"""What some files have though no space is left when it comes to that."""
_META = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": False}
"""With its other schemes a text that begins with a space gets none; llama.cpp adds one always."""


def read_folder(folder: Path, prompt_format: Format, n_rows: int) -> GgufTokenizer:
    """The tokenizer in `folder`, with one token for each of the `n_rows` rows of the embedding.

    Rows without a token get a token that no text is split into; tokens without a row are left out.
    A prompt begins with BOS where it does in `prompt_format`, in which the model was tuned.

    Raises:
        DataError: a file is missing or not JSON.
        ModelNotFound: llama.cpp has no such tokenizer, or it lacks the prompt format's tokens.
    """
    document: dict[str, Json] = read_json(folder / "tokenizer.json")
    config: dict[str, Json] = read_json(folder / "tokenizer_config.json")
    model = document["model"]
    if model.get("type", "BPE") != "BPE":
        raise ModelNotFound(f"its tokenizer is {model['type']}, which cannot be written as GGUF")
    is_sentencepiece = bool(model.get("byte_fallback"))
    tokens, kinds = _tokens(document, n_rows)
    ids = {token: i for i, token in enumerate(tokens)}
    merges = [_pair(merge) for merge in model["merges"]]
    tokenizer = GgufTokenizer(
        model="llama" if is_sentencepiece else "gpt2",
        pre="default" if is_sentencepiece else _pre(document),
        tokens=tokens,
        kinds=kinds,
        scores=[],
        merges=[] if is_sentencepiece else [" ".join(pair) for pair in merges],
        bos=_needed(prompt_format.bos, ids, prompt_format)
        if prompt_format.bos
        else ids.get(_text(config.get("bos_token"))),
        eos=_needed(
            _text(config.get("eos_token")) or prompt_format.stop_tokens[-1], ids, prompt_format
        ),
        unknown=ids.get(_text(config.get("unk_token"))),
        padding=ids.get(_text(config.get("pad_token"))),
        end_of_turn=_needed(prompt_format.stop_tokens[0], ids, prompt_format),
        adds_bos=bool(prompt_format.bos),
        adds_space=is_sentencepiece and _adds_space(document),
        template=_template(folder, config),
    )
    return _scored(tokenizer, merges) if is_sentencepiece else tokenizer


def add_tokenizer(writer: GGUFWriter, tokenizer: GgufTokenizer) -> None:
    """Add the tokenizer to the writer's fields."""
    writer.add_tokenizer_model(tokenizer.model)
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(_written(tokenizer))
    writer.add_token_types(tokenizer.kinds)
    writer.add_token_scores(tokenizer.scores)
    writer.add_token_merges(tokenizer.merges)
    numbers = {
        writer.add_bos_token_id: tokenizer.bos,
        writer.add_eos_token_id: tokenizer.eos,
        writer.add_eot_token_id: tokenizer.end_of_turn,
        writer.add_unk_token_id: tokenizer.unknown,
        writer.add_pad_token_id: tokenizer.padding,
    }
    for add, number in numbers.items():
        if number is not None:
            add(number)
    writer.add_add_bos_token(tokenizer.adds_bos)
    writer.add_add_space_prefix(tokenizer.adds_space)
    if tokenizer.template:
        writer.add_chat_template(tokenizer.template)


def _tokens(document: dict[str, Json], n_rows: int) -> tuple[list[str], list[int]]:
    model = document["model"]
    tokens = [f"[PAD{i}]" for i in range(n_rows)]
    kinds = [UNUSED] * n_rows
    for token, i in model["vocab"].items():
        if i < n_rows:
            tokens[i], kinds[i] = token, NORMAL
            if model.get("byte_fallback") and re.fullmatch("<0x[0-9A-F]{2}>", token):
                kinds[i] = BYTE
            elif token == model.get("unk_token"):
                kinds[i] = UNKNOWN
    for added in document.get("added_tokens") or []:
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise ModelNotFound(
                f"its token {added['content']} takes in what stands beside it, which llama.cpp "
                "does not know"
            )
        if added["id"] < n_rows:
            tokens[added["id"]] = added["content"]
            kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    return tokens, kinds


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """A merge, which older files write as one text."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _pre(document: dict[str, Json]) -> str:
    name = pre_tokenizer_name(document.get("pre_tokenizer"))
    if name is None or document.get("normalizer") is not None:
        raise ModelNotFound("its tokenizer cuts texts in a way that has no name here in GGUF files")
    return name


def _adds_space(document: dict[str, Json]) -> bool:
    """Whether a text is cut as if a space stood before it.

    Raises:
        ModelNotFound: something is done to texts that SentencePiece does not do.
    """
    normalizer, cut = document.get("normalizer") or {}, document.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    known: dict[str, dict[str, Json]] = {
        "Replace": {"pattern": {"String": " "}, "content": SPACE},
        "Prepend": {"prepend": SPACE},
    }
    is_plain = all(step.items() >= known.get(step["type"], {"": ""}).items() for step in steps)
    is_plain &= cut in ({}, _CUT_AT_SPACES)
    is_meta = not normalizer and cut.items() >= _META.items()
    adds = any(step["type"] == "Prepend" for step in steps)
    # Where llama.cpp adds spaces, it does so after runs of spaces that are tokens as well.
    has_runs = any(SPACE in added["content"] for added in document.get("added_tokens") or [])
    if not (is_plain or is_meta) or (adds and has_runs):
        raise ModelNotFound("its tokenizer prepares texts in a way that GGUF files cannot say")
    return adds


def _scored(tokenizer: GgufTokenizer, merges: list[tuple[str, str]]) -> GgufTokenizer:
    """The tokenizer with scores in the place of merges: the earlier a piece is made, the higher.

    Raises:
        ModelNotFound: the scores would make other merges than those given.
    """
    normal = {
        token
        for token, kind in zip(tokenizer.tokens, tokenizer.kinds, strict=True)
        if kind == NORMAL
    }
    own = [pair for pair in merges if "".join(pair) in normal]
    made = [piece for piece, _ in groupby("".join(pair) for pair in own)]
    rank = {piece: -float(i) for i, piece in enumerate(made)}
    scored = replace(tokenizer, scores=[rank.get(t, -float(len(made))) for t in tokenizer.tokens])
    derived = {(left, right) for left, right in derive_merges(scored, scored.tokens)}
    if len(rank) < len(made) or {p for p in derived if "".join(p) in normal} != set(own):
        raise ModelNotFound("its merges are not those of a SentencePiece model")
    return scored


def _written(tokenizer: GgufTokenizer) -> list[str]:
    """SentencePiece's own tokens stand in a file with the spaces that they are found by."""
    if tokenizer.model != "llama":
        return tokenizer.tokens
    return [
        token.replace(SPACE, " ") if kind == USER_DEFINED else token
        for token, kind in zip(tokenizer.tokens, tokenizer.kinds, strict=True)
    ]


def _text(token: Json) -> str:
    """A special token's text, which some files wrap in an object; "" for none."""
    return (token.get("content") if isinstance(token, dict) else token) or ""


def _needed(token: str, ids: dict[str, int], prompt_format: Format) -> int:
    if token not in ids:
        raise ModelNotFound(
            f"its tokenizer has no token {token}, which the format {prompt_format.name} needs; "
            "name the format that the model was tuned in"
        )
    return ids[token]


def _template(folder: Path, config: dict[str, Json]) -> str | None:
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text("utf-8")
    template = config.get("chat_template")
    return template if isinstance(template, str) else None
