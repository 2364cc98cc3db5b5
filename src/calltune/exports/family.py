"""Which prompt family a tuned model speaks."""

from pathlib import Path

from calltune import questions
from calltune.formats import FORMATS, Format
from calltune.jsonl import read_json
from calltune.models.load import CONFIG


def family_of(adapter: Path, folder: Path, named: str | None, model: str) -> Format:
    """The family that `named` says, else the adapter's own, else the one whose tokens fit.

    Raises:
        OptionError: not known, or the model lacks its tokens.
    """
    from mlx_lm.utils import load_tokenizer

    trained_with = read_json(adapter / CONFIG).get("format")
    name = named or (trained_with if trained_with in FORMATS else None)
    return questions.family_of(name, load_tokenizer(folder), model)
