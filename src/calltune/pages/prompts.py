"""The prompts behind the examples of a report, what they share kept once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from calltune.batches import PreparedRow, read_prepared
from calltune.calls import Json
from calltune.jsonl import dumps, file_digest
from calltune.score.results import Results


def prompts_of(results: Results, ids: Sequence[str]) -> dict[str, Json] | None:
    """The prompts of these examples, read from the test set; None where that is not at hand.

    It is at hand when it lies where it lay and has the SHA-256 that it had. "pieces" are the
    different texts that prompts are made of; "rows" has, for each id, the places in there of its
    prompt's pieces, every second of which is a tool.
    """
    rows = _test_rows(results)
    if rows is None or not rows.keys() >= set(ids):
        return None
    places: dict[str, int] = {}
    made_of = [[places.setdefault(piece, len(places)) for piece in _pieces(rows[id])] for id in ids]
    return {"pieces": list(places), "rows": made_of}


def _test_rows(results: Results) -> dict[str, PreparedRow] | None:
    path = Path(results.test_path)
    try:
        if not os.path.isfile(path) or file_digest(path) != results.test_digest:
            return None
    except OSError:
        return None
    return {row.id: row for row in read_prepared(path)}


def _pieces(row: PreparedRow) -> Iterator[str]:
    """What stands before the first tool, the tool, what stands before the next one, and so on.

    Every format shows a tool as its dataset wrote it; one that did not would have one piece.
    """
    rest = row.prompt
    tools = row.data.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        before, shown, after = rest.partition(dumps(tool))
        if shown:
            yield before
            yield shown
            rest = after
    yield rest
