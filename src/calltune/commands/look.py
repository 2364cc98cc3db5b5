"""The look command: a few prepared rows as the trainer sees them, and the lengths of all."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from calltune.errors import OptionError
from calltune.files import read_json

if TYPE_CHECKING:
    from calltune.data.prepared import PreparedRow


@dataclass(frozen=True, slots=True, kw_only=True)
class LookOptions:
    """Options of `calltune look`."""

    model: str | None = None
    """The model whose tokenizer makes the tokens; without one, rows are shown as text, and nothing
    is fetched."""
    data: Path = Path("data/training")
    """Folder with the splits that prep wrote."""
    split: Literal["train", "valid", "test"] = "train"
    """Which split to look at."""
    num_examples: int = 3
    """How many rows to show."""
    max_seq_length: int = 2048
    """The limit that train will be given."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.num_examples < 0:
            raise OptionError(f"--num_examples is {self.num_examples}; it must not be negative")
        if self.max_seq_length < 2:
            raise OptionError(f"--max-seq-length is {self.max_seq_length}; give at least 2")


def run(options: LookOptions) -> Path:
    """Print rows, the lengths of all rows, and what prep dropped; the file that they are from.

    With a model the rows are shown as its tokens, without one as text.

    Raises:
        DataError: the split is missing or was not written by prep.
        ModelNotFound: no such model.
        OptionError: the model's tokenizer does not know the rows' prompt format.
    """
    from calltune.data.prepared import read_prepared
    from calltune.report.preparation import print_drops

    path = options.data / f"{options.split}.jsonl"
    rows = read_prepared(path)
    if options.model is None:
        from calltune.report.rows import print_text_lengths, print_text_row

        for row in rows[: options.num_examples]:
            print_text_row(row)
        print_text_lengths(rows)
    else:
        _show_tokens(options, options.model, rows)
    report = path.parent / "prep.json"
    if report.is_file():
        print_drops(read_json(report))
    return path


def _show_tokens(options: LookOptions, model: str, rows: "list[PreparedRow]") -> None:
    from transformers import AutoTokenizer

    from calltune.data.batching import check_control_tokens, tokenize
    from calltune.formats import FORMATS
    from calltune.models.resolve import resolve
    from calltune.report.rows import print_lengths, print_row

    tokenizer = AutoTokenizer.from_pretrained(resolve(model))
    check_control_tokens(tokenizer, FORMATS[rows[0].format], model)
    tokenized = tokenize(rows, tokenizer, options.max_seq_length)
    for row in tokenized.rows[: options.num_examples]:
        print_row(row, tokenizer)
    print_lengths(tokenized.rows, tokenized.too_long, options.max_seq_length)
