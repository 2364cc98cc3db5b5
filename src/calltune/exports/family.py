"""Which prompt family a tuned model speaks."""

from pathlib import Path

from calltune.batches import check_markers
from calltune.errors import OptionError
from calltune.formats import FORMATS, Format
from calltune.jsonl import read_json
from calltune.models.load import CONFIG


def family_of(adapter: Path, folder: Path, named: str | None, model: str) -> Format:
    """The family that `named` says, else the adapter's own, else the one whose tokens fit.

    Raises:
        OptionError: not known, or the model lacks its tokens.
    """
    from mlx_lm.utils import load_tokenizer

    tokenizer = load_tokenizer(folder)
    trained_with = read_json(adapter / CONFIG).get("format")
    name = named or (trained_with if trained_with in FORMATS else None)
    for family in [FORMATS[name]] if name in FORMATS else FORMATS.values():
        try:
            check_markers(tokenizer, family, model)
        except OptionError:
            if name is not None:
                raise
        else:
            return family
    raise OptionError(
        f"{model} has the tokens of no known format; give the one it was trained with as --format "
        f"{' or '.join(FORMATS)}"
    )
