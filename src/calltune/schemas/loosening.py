"""Keywords that refuse more when a schema within them refuses less.

`not`, for one: where a keyword in it was lost, what is left matches more, and so `not` refuses
more. Such a keyword cannot stay when a schema is repaired.

Source: JSON Schema draft 2020-12, core, chapters 10 and 11.
"""

from collections.abc import Collection

from calltune.schemas.keywords import Schema
from calltune.schemas.references import Path, ReferenceIndex, part_at, references_in
from calltune.types import Json

_IN_PLACE = frozenset(
    {
        *("allOf", "anyOf", "oneOf", "if", "then", "else", "not", "$ref"),
        *("dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef"),
    }
)
"""Keywords whose schemas apply to the same value."""
_EVALUATING = {
    "unevaluatedProperties": frozenset(
        {"properties", "patternProperties", "additionalProperties", "unevaluatedProperties"}
    ),
    "unevaluatedItems": frozenset({"items", "prefixItems", "contains", "unevaluatedItems"}),
}


def weakened_keywords(
    written: Schema, path: Path, loose: Collection[Path], root: Json, index: ReferenceIndex
) -> list[str]:
    """The keywords of a schema that cannot stay.

    Args:
        written: the schema, which stands at `path` in `root`.
        path: where it stands.
        loose: the paths of keywords in `root` that are gone or accept more.
        root: the whole schema.
        index: follows its references.
    """
    if not loose:
        return []
    reach = _Reach(loose, root, index)
    found: list[str] = [
        key for key in ("not", "oneOf") if key in written and reach.is_loose((*path, key))
    ]
    if "if" in written and reach.is_loose((*path, "if")):
        found += [key for key in ("if", "then", "else") if key in written]
    if {"contains", "maxContains"} <= written.keys() and reach.is_loose((*path, "contains")):
        found.append("maxContains")
    for keyword, evaluating in _EVALUATING.items():
        if keyword in written and reach.loses_evaluation(path, evaluating):
            found.append(keyword)
    return found


class _Reach:
    """Whether lost keywords can be reached from a part of a schema, by references too."""

    def __init__(self, loose: Collection[Path], root: Json, index: ReferenceIndex) -> None:
        self._loose = loose
        self._root = root
        self._index = index

    def is_loose(self, start: Path) -> bool:
        """Whether a lost keyword stands at or below `start`."""
        return any(
            where[: len(each)] == each for each in self._reached(start) for where in self._loose
        )

    def loses_evaluation(self, start: Path, evaluating: Collection[str]) -> bool:
        """Whether a lost keyword said which properties or items the value may have."""
        for each in self._reached(start):
            for where in self._loose:
                rest = where[len(each) :]
                if where[: len(each)] != each or not rest:
                    continue
                applies = all(key in _IN_PLACE or isinstance(key, int) for key in rest[:-1])
                if applies and (rest[-1] in evaluating or rest[-1] in _IN_PLACE):
                    return True
        return False

    def _reached(self, start: Path) -> list[Path]:
        """The path, and those that references below it lead to."""
        reached: dict[Path, None] = {}
        waiting = [start]
        while waiting:
            path = waiting.pop()
            if path in reached:
                continue
            reached[path] = None
            for where, reference in references_in(part_at(self._root, path)):
                target = self._index.follow(reference, (*path, *where))
                if target is not None:
                    waiting.append(target)
        return list(reached)
