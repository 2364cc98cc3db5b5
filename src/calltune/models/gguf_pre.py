"""How a byte-level tokenizer cuts a text before its merges, by the names that GGUF files use."""

from calltune.calls import Json

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
"""tokenizer.json's pre-tokenizers, in their order."""

IGNORES_MERGES = {"llama-bpe"}
"""Those with which a word that is a token is never put together from smaller ones."""


def name_of(pre_tokenizer: Json) -> str | None:
    """The name of a tokenizer.json's `pre_tokenizer`; None for one that is not known here."""
    document = pre_tokenizer or {}
    steps = document.get("pretokenizers", [document])
    seen = [_without_offsets(step) for step in steps]
    for name, splitters in SPLITTERS.items():
        if seen == [_without_offsets(step) for step in splitters]:
            return name
    return None


def _without_offsets(step: dict[str, Json]) -> dict[str, Json]:
    """What decides on the tokens, and not on where they are said to stand."""
    return {key: value for key, value in step.items() if key != "trim_offsets"}
