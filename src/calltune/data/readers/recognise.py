"""Recognition of a row's dataset format, and the way from any row to examples."""

from collections.abc import Callable
from typing import NamedTuple

from calltune.data.readers import bfcl, hermes, openai, xlam
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
}
"""Every dataset format by the name that `--schema` takes, in the order in which they are tried."""


def recognise(row: dict[str, Json]) -> str:
    """The name of the row's dataset format.

    Raises:
        UnusableRow: no dataset format has these keys.
    """
    for name, reader in READERS.items():
        if reader.matches(row):
            return name
    raise UnusableRow("schema not recognised", "keys " + ", ".join(list(row)[:20]))


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
