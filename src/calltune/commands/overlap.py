"""The overlap command: which prepared rows ask what the Berkeley leaderboard (BFCL) asks too."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from calltune.data.splits import SPLIT_NAMES
from calltune.errors import DataError
from calltune.files import write_json
from calltune.terminal_text import escape_line
from calltune.types import Json

if TYPE_CHECKING:
    from calltune.data.prepared import PreparedRow

_IDS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapOptions:
    """Options of `calltune overlap`."""

    data: Path = Path("data/training")
    """Folder with the splits that prep wrote."""

    categories: str = "all"
    """Categories of BFCL, joined with +; all is the single-turn Python and irrelevance ones."""


class Shared(NamedTuple):
    """A prepared row and a question of the leaderboard that ask the same."""

    row: str
    category: str
    theirs: str
    has_same_tools: bool
    """Whether they offer functions of the same names."""


def run(options: OverlapOptions) -> Path:
    """Write overlap.json beside the splits, and print what they share; the file.

    A leaderboard score means little for a model that was trained on its questions. Two rows ask the
    same if their queries are equal apart from case, spaces and punctuation.

    Raises:
        DataError: no splits, or no such category.
    """
    from calltune.data.prepared import read_prepared

    splits = {
        name: read_prepared(file)
        for name in SPLIT_NAMES
        if (file := options.data / f"{name}.jsonl").exists()
    }
    if not splits:
        raise DataError(f"No splits in {options.data}; run prep first, or check the path")
    theirs = _leaderboard(options.categories)
    found = {
        name: [s for row in rows for s in _shared(row, theirs)] for name, rows in splits.items()
    }
    document: dict[str, Json] = {
        "categories": options.categories,
        "rows": {name: len(rows) for name, rows in splits.items()},
        "shared": {name: [each._asdict() for each in shared] for name, shared in found.items()},
    }
    file = options.data / "overlap.json"
    write_json(file, document)
    for name, shared in found.items():
        _print(name, len(splits[name]), shared)
    print(f"Wrote {file}")
    return file


def _leaderboard(categories: str) -> dict[str, list[tuple[str, str, set[str]]]]:
    """By query: the category, id and functions' names of the questions that have it."""
    from calltune.data.readers.recognise import parse
    from calltune.data.sources import bfcl
    from calltune.schemas.tools import UnusableRow

    every = "+".join(bfcl.CATEGORIES + bfcl.WITHOUT_CALLS)
    asked: dict[str, list[tuple[str, str, set[str]]]] = {}
    for row in bfcl.rows(every if categories == "all" else categories, None):
        try:
            examples = parse(row, str(row.get("id")), "bfcl").examples
        except UnusableRow:
            continue
        for example in examples:
            category = example.source.removeprefix("bfcl/")
            names = {tool.name for tool in example.tools}
            asked.setdefault(_plain(example.query), []).append((category, example.id, names))
    return asked


def _shared(row: "PreparedRow", theirs: dict[str, list[tuple[str, str, set[str]]]]) -> list[Shared]:
    names = {_name(tool) for tool in row.tools}
    return [
        Shared(row.id, category, their_id, names == their_names)
        for category, their_id, their_names in theirs.get(_plain(row.query), [])
    ]


def _name(tool: Json) -> str:
    inner = tool.get("function", tool) if isinstance(tool, dict) else {}
    return str(inner.get("name")) if isinstance(inner, dict) else ""


def _plain(query: str) -> str:
    return re.sub(r"\W+", " ", query.casefold()).strip()


def _print(name: str, n_rows: int, shared: list[Shared]) -> None:
    rows = list(dict.fromkeys(each.row for each in shared))
    if not rows:
        print(f"{name}: none of {n_rows:,} rows is in BFCL")
        return
    named = escape_line(", ".join(rows[:_IDS_SHOWN])) + (", …" if len(rows) > _IDS_SHOWN else "")
    print(f"{name}: {len(rows):,} of {n_rows:,} rows ask what BFCL asks: {named}")
    for category, count in Counter(each.category for each in shared).most_common():
        print(f"  {category} {count:,}")
