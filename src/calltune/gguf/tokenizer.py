"""Reads the tokenizer in a GGUF file and writes it as `tokenizer.json` and its companions.

Tokenizers are SentencePiece's BPE (Kudo and Richardson, https://arxiv.org/abs/1808.06226) and BPE
over bytes, which splits a text before merging, in ways that GGUF files refer to by name.
"""

from dataclasses import dataclass
from pathlib import Path

from calltune.errors import ModelNotFound
from calltune.files import atomic_write, dumps, write_json
from calltune.types import Json

_BYTES: dict[str, Json] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_WORDS = _BYTES | {"use_regex": True}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

SPLITTERS: dict[str, list[dict[str, Json]]] = {
    "gpt-2": [_WORDS],
    "smollm": [{"type": "Digits", "individual_digits": True}, _WORDS],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": _LLAMA3}, "behavior": "Isolated", "invert": False},
        _BYTES | {"use_regex": False},
    ],
}
"""The pre-tokenizers of tokenizer.json, in order, by the name that GGUF files use."""

IGNORES_MERGES = {"llama-bpe"}
"""Pre-tokenizers with which a word that is a token is never merged from smaller tokens."""


def pre_tokenizer_name(pre_tokenizer: Json) -> str | None:
    """The GGUF name of a tokenizer.json's `pre_tokenizer`; None for one that is not known here."""
    document = pre_tokenizer or {}
    steps = document.get("pretokenizers", [document])
    seen = [_without_offsets(step) for step in steps]
    for name, splitters in SPLITTERS.items():
        if seen == [_without_offsets(step) for step in splitters]:
            return name
    return None


def _without_offsets(step: dict[str, Json]) -> dict[str, Json]:
    """The settings that affect the tokens, without those that only affect their offsets."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""The types of tokens in a GGUF file (`tokenizer.ggml.token_type`)."""
SPACE = "▁"

GEMMA_TEMPLATE = """\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = message.content + '\\n\\n' -%}
{%- else -%}
{{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' -}}
{{- ns.system + (message.content | trim) + '<end_of_turn>\\n' -}}
{%- set ns.system = '' -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
"""The chat template for Gemma files without one; a system message is prepended to the user turn."""


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """The tokenizer fields of a GGUF file."""

    model: str
    """"llama" is SentencePiece's BPE, "gpt2" BPE over bytes."""
    pre: str
    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[str]
    bos: int | None
    eos: int
    unknown: int | None
    padding: int | None
    end_of_turn: int | None
    adds_bos: bool
    adds_space: bool
    template: str | None

    @property
    def stop_tokens(self) -> list[int]:
        """The ids of the tokens that end an answer."""
        ends = [self.eos, self.end_of_turn]
        ends += [i for i, text in self.marked(CONTROL) if text == "<end_of_turn>"]
        return list(dict.fromkeys(i for i in ends if i is not None))

    def marked(self, *kinds: int) -> list[tuple[int, str]]:
        """The ids and texts of the tokens of these types."""
        return [
            (i, text)
            for i, (text, kind) in enumerate(zip(self.tokens, self.kinds, strict=True))
            if kind in kinds
        ]


def read_tokenizer(fields: dict[str, Json], template: str | None) -> GgufTokenizer:
    """The tokenizer among a GGUF file's fields; `template` stands in for a missing one.

    Raises:
        ModelNotFound: the file holds no tokenizer, or one of a kind that is not known here.
    """
    own = {key.removeprefix("tokenizer.ggml."): value for key, value in fields.items()}
    if "tokens" not in own or own.get("eos_token_id") is None:
        raise ModelNotFound("the file holds no tokenizer; take a GGUF file that has one")
    model, pre = own.get("model", ""), own.get("pre", "default")
    if model not in ("llama", "gpt2") or (model == "gpt2" and pre not in SPLITTERS):
        raise ModelNotFound(
            f"its tokenizer ({model}, {pre}) is not known here; take the model from the hub instead"
        )
    tokens = own["tokens"]
    return GgufTokenizer(
        model,
        pre,
        tokens,
        own.get("token_type") or [NORMAL] * len(tokens),
        own.get("scores") or [0.0] * len(tokens),
        own.get("merges") or [],
        own.get("bos_token_id"),
        own["eos_token_id"],
        own.get("unknown_token_id"),
        own.get("padding_token_id"),
        own.get("eot_token_id"),
        own.get("add_bos_token", model == "llama"),
        own.get("add_space_prefix", model == "llama"),
        fields.get("tokenizer.chat_template") or template,
    )


def write_tokenizer(tokenizer: GgufTokenizer, folder: Path, max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and the template."""
    document = _sentencepiece(tokenizer) if tokenizer.model == "llama" else _byte_level(tokenizer)
    with atomic_write(folder / "tokenizer.json") as file:
        file.write(dumps(document).encode())
    named = {"bos": tokenizer.bos, "eos": tokenizer.eos}
    named |= {"unk": tokenizer.unknown, "pad": tokenizer.padding}
    special = {f"{name}_token": tokenizer.tokens[i] for name, i in named.items() if i is not None}
    write_json(folder / "special_tokens_map.json", special)
    config: dict[str, Json] = {
        # The class that takes tokenizer.json as it is written.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": tokenizer.adds_bos,
        "model_max_length": max_length,
    }
    if tokenizer.template:
        config["chat_template"] = tokenizer.template
        with atomic_write(folder / "chat_template.jinja") as file:
            file.write(tokenizer.template.encode())
    write_json(folder / "tokenizer_config.json", config | special)


def derive_merges(tokenizer: GgufTokenizer, pieces: list[str]) -> list[list[str]]:
    """The merges of a SentencePiece BPE, best first.

    Every piece that two other pieces make up is a merge, ranked by its score. User-defined runs of
    one character (spaces, newlines, tabs) go before all: they are matched whole.
    """
    ids = {piece: i for i, piece in enumerate(pieces)}
    runs: list[tuple[str, str]] = []
    ranked: list[tuple[float, int, int, str, str]] = []
    for piece, kind, score in zip(pieces, tokenizer.kinds, tokenizer.scores, strict=True):
        if kind == USER_DEFINED and piece == piece[:1] * len(piece):
            runs += [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        elif kind == NORMAL:
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in ids and right in ids:
                    ranked.append((-score, ids[left], ids[right], left, right))
    runs = [(left, right) for left, right in runs if left in ids and right in ids]
    runs.sort(key=lambda pair: (-len(pair[0]), -len(pair[1])))
    ranked.sort()
    return [list(pair) for pair in runs] + [[left, right] for *_, left, right in ranked]


def _sentencepiece(tokenizer: GgufTokenizer) -> dict[str, Json]:
    pieces = [
        text.replace(" ", SPACE) if kind == USER_DEFINED else text
        for text, kind in zip(tokenizer.tokens, tokenizer.kinds, strict=True)
    ]
    spaces: Json = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unspaces: list[Json] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if tokenizer.adds_space:
        prepend = {"type": "Prepend", "prepend": SPACE}
        spaces = {"type": "Sequence", "normalizers": [prepend, spaces]}
        unspaces.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = None if tokenizer.unknown is None else pieces[tokenizer.unknown]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokenizer, pieces),
        "normalizer": spaces,
        "pre_tokenizer": None,
        "post_processor": _bos_template(tokenizer),
        "decoder": {"type": "Sequence", "decoders": unspaces},
        "model": _bpe(pieces, derive_merges(tokenizer, pieces))
        | {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True},
    }


def _byte_level(tokenizer: GgufTokenizer) -> dict[str, Json]:
    splitters = SPLITTERS[tokenizer.pre]
    merges = [merge.split(" ", 1) for merge in tokenizer.merges]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokenizer, tokenizer.tokens),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters},
        "post_processor": _bos_template(tokenizer),
        "decoder": splitters[-1] | {"use_regex": True},
        "model": _bpe(tokenizer.tokens, merges)
        | {"ignore_merges": tokenizer.pre in IGNORES_MERGES},
    }


def _bpe(pieces: list[str], merges: list[list[str]]) -> dict[str, Json]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {piece: i for i, piece in enumerate(pieces)},
        "merges": merges,
    }


def _added(tokenizer: GgufTokenizer, pieces: list[str]) -> list[Json]:
    """Tokens that are found in the text before anything splits it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": pieces[i], **flags, "special": tokenizer.kinds[i] == CONTROL}
        for i, _ in tokenizer.marked(CONTROL, USER_DEFINED)
    ]


def _bos_template(tokenizer: GgufTokenizer) -> Json:
    """One beginning-of-sequence token in front of a text, where the model wants it."""
    if not tokenizer.adds_bos or tokenizer.bos is None:
        return None
    text = tokenizer.tokens[tokenizer.bos]
    bos = {"SpecialToken": {"id": text, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [bos, first],
        "pair": [bos, first, bos, second],
        "special_tokens": {text: {"id": text, "ids": [tokenizer.bos], "tokens": [text]}},
    }
