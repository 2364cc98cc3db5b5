"""Which schema a row has, and the way from any row to examples."""

from collections.abc import Callable
from typing import NamedTuple

from calltune.data.readers import bfcl, hermes, openai, xlam
from calltune.errors import OptionError
from calltune.schemas.tools import ParsedRow, UnusableRow
from calltune.types import Json


class Source(NamedTuple):
    """One dataset schema: how it is known, and how it is read."""

    matches: Callable[[dict[str, Json]], bool]
    parse: Callable[[dict[str, Json], str], ParsedRow]


SCHEMAS: dict[str, Source] = {
    "xlam": Source(xlam.matches, xlam.parse),
    "bfcl": Source(bfcl.matches, bfcl.parse),
    "openai": Source(openai.matches, openai.parse),
    "hermes": Source(hermes.matches, hermes.parse),
}


def recognise(row: dict[str, Json]) -> str:
    """The name of the row's schema.

    Raises:
        UnusableRow: no schema has these keys.
    """
    for name, source in SCHEMAS.items():
        if source.matches(row):
            return name
    raise UnusableRow("schema not recognised", "keys " + ", ".join(list(row)[:20]))


def parse(row: dict[str, Json], row_id: str, schema: str = "auto") -> ParsedRow:
    """The examples in a row; `row_id` names it where it has no id of its own.

    Raises:
        UnusableRow: the row cannot be used.
        OptionError: there is no schema of that name.
    """
    if schema != "auto" and schema not in SCHEMAS:
        raise OptionError(f"No schema {schema!r}; use auto, {', '.join(SCHEMAS)}")
    return SCHEMAS[recognise(row) if schema == "auto" else schema].parse(row, row_id)
