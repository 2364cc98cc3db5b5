"""How much of the schemas of real tool lists the grammars enforce, by keyword.

    uv run python benchmarks/grammar_coverage.py LIST.json …

Each file is a list of tools in any shape that `calltune tools` reads. A keyword of a tool counts as
enforced if no note says that it is left out anywhere in that tool, in any prompt format.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from calltune.formats import FORMATS
from calltune.formats.grammar import ANY_CALLS, strictest
from calltune.schemas.keywords import ANNOTATIONS, HOLD_LIST, HOLD_MAP, HOLD_ONE, IDENTIFIERS
from calltune.schemas.lark import matcher_of_bytes
from calltune.tools import from_openai
from calltune.types import Tool

SAY_NOTHING = ANNOTATIONS | IDENTIFIERS | {"format", "deprecated", "readOnly", "writeOnly"}
STRUCTURE = {"type", "properties", "required", "items", "$ref"}
"""Keywords of every schema; they are counted apart, as they hide the others."""


def keywords(schema: Any) -> Iterator[str]:
    """The keywords in a schema that constrain values, wherever they stand."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key not in SAY_NOTHING and not key.startswith("x-"):
            yield key
        if key in HOLD_ONE:
            yield from keywords(value)
        elif key in HOLD_LIST and isinstance(value, list):
            for part in value:
                yield from keywords(part)
        elif key in HOLD_MAP and isinstance(value, dict):
            for part in value.values():
                yield from keywords(part)


def left_out(tool: Tool) -> set[str]:
    """The keywords of a tool's schema that no grammar of some prompt format enforces."""
    found = set()
    for prompt_format in FORMATS.values():
        made = strictest(prompt_format.grammar, [tool], frozenset(), ANY_CALLS, _compiled)
        notes = ["its whole schema"] if made is None else made.grammar.notes
        for note in notes:
            what = note.removeprefix(f"{tool.name}: ")
            used = set(keywords(tool.parameters))
            named = {key for key in used if what.split(",")[0].split(" ")[0] == key}
            found |= named or used
    return found


def main(paths: list[str]) -> None:
    """Print one line of JSON for each keyword, and the shares."""
    used: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    n_tools = n_whole = 0
    for path in paths:
        for tool in from_openai(path).tools:
            n_tools += 1
            used.update(set(keywords(tool.parameters)))
            lost.update(missing := left_out(tool))
            n_whole += not missing
    for keyword, count in used.most_common():
        print(json.dumps({"keyword": keyword, "tools": count, "left_out": lost[keyword]}))
    others = {key: count for key, count in used.items() if key not in STRUCTURE}
    summary = {
        "tools": n_tools,
        "wholly_enforced": n_whole,
        "keywords_of_tools": used.total(),
        "share_enforced": round(1 - lost.total() / used.total(), 5),
        "share_enforced_without_structure": round(
            1 - sum(lost[key] for key in others) / sum(others.values()), 5
        ),
    }
    print(json.dumps(summary))


def _compiled(grammar: str) -> Any:
    matcher = matcher_of_bytes(grammar)
    return None if matcher.is_error() else matcher


if __name__ == "__main__":
    main(sys.argv[1:])
