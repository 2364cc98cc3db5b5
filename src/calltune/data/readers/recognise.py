"""Recognition of a row's dataset format, and the way from any row to examples."""

from collections.abc import Callable
from typing import NamedTuple

from calltune.data.readers import bfcl, glaive, hermes, openai, xlam
from calltune.data.readers.examples import ParsedRow
from calltune.errors import OptionError
from calltune.schemas.tools import UnusableRow
from calltune.types import Json


class Reader(NamedTuple):
    """One dataset format: how a row of it is recognised, and how it is read."""

    matches: Callable[[dict[str, Json]], bool]
    parse: Callable[[dict[str, Json], str], ParsedRow]


READERS: dict[str, Reader] = {
    "xlam": Reader(xlam.matches, xlam.parse),
    "bfcl": Reader(bfcl.matches, bfcl.parse),
    "openai": Reader(openai.matches, openai.parse),
    "hermes": Reader(hermes.matches, hermes.parse),
    "glaive": Reader(glaive.matches, glaive.parse),
}
"""Every dataset format by the name that `--schema` takes, in the order in which they are tried."""

_REFUSED: tuple[tuple[frozenset[str], str], ...] = (
    (
        frozenset({"question", "correct_answer", "answers"}),
        "When2Call's multiple-choice questions are not read; use its file train_sft",
    ),
    (
        frozenset({"chosen", "rejected"}),
        "pairs of preferences are not read; use the dataset's files for supervised fine-tuning",
    ),
    (
        frozenset({"contents"}),
        "Gemini's format is not read; write messages with tool_calls, as OpenAI's format has them",
    ),
    (
        frozenset({"instruction", "output"}),
        "Alpaca's format has no tools; write query, tools and answers, or messages and tools",
    ),
    (
        frozenset({"prompt", "completion"}),
        "prompts and completions have no tools; write query, tools and answers, or messages and "
        "tools",
    ),
)
"""Formats that are known and not read, by their keys, with what to do."""


def recognise(row: dict[str, Json]) -> str:
    """The name of the row's dataset format.

    Raises:
        UnusableRow: no dataset format has these keys, or one that is not read.
    """
    for keys, advice in _REFUSED:
        if keys <= row.keys() and "messages" not in row and "conversations" not in row:
            raise UnusableRow(advice, "keys " + ", ".join(list(row)[:20]))
    for name, reader in READERS.items():
        if reader.matches(row):
            return name
    raise UnusableRow("schema not recognised", "keys " + ", ".join(list(row)[:20]))


def format_name(row: dict[str, Json], dataset_format: str = "auto") -> str:
    """The name of the row's dataset format, or "unknown"; `dataset_format` where that is set."""
    if dataset_format != "auto":
        return dataset_format
    try:
        return recognise(row)
    except UnusableRow:
        return "unknown"


def parse(row: dict[str, Json], row_id: str, dataset_format: str = "auto") -> ParsedRow:
    """The examples in a row.

    Args:
        row: one row of a dataset, as JSON.
        row_id: names the row where it has no id of its own.
        dataset_format: a name in `READERS`; auto recognises it by its keys.

    Raises:
        UnusableRow: the row cannot be used.
        OptionError: there is no dataset format of that name.
    """
    if dataset_format != "auto" and dataset_format not in READERS:
        raise OptionError(f"No schema {dataset_format!r}; use auto, {', '.join(READERS)}")
    return READERS[recognise(row) if dataset_format == "auto" else dataset_format].parse(
        row, row_id
    )
