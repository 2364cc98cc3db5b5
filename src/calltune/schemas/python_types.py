"""Python's names of types, as datasets write them, as JSON Schema.

Datasets write `str, optional`, `List[int]`, `dict` or `float` where JSON Schema has names of its
own. A string that is not understood becomes `{}` (any value), and the result says so.

Source: the `type` strings of xlam-function-calling-60k and BFCL; Python's `typing`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from calltune.types import Json

TYPE_NAMES: dict[str, dict[str, Json]] = {
    **dict.fromkeys(("str", "string", "text", "char"), {"type": "string"}),
    **dict.fromkeys(("int", "integer", "long"), {"type": "integer"}),
    **dict.fromkeys(("float", "double", "number", "decimal"), {"type": "number"}),
    **dict.fromkeys(("bool", "boolean"), {"type": "boolean"}),
    **dict.fromkeys(("none", "nonetype", "null"), {"type": "null"}),
    **dict.fromkeys(("dict", "dictionary", "object", "mapping", "map"), {"type": "object"}),
    **dict.fromkeys(("list", "array", "sequence", "iterable", "tuple"), {"type": "array"}),
    **dict.fromkeys(("set", "frozenset"), {"type": "array", "uniqueItems": True}),
    "any": {},
}
"""Type names in lower case, with a plural s taken off."""

MAX_TYPE_LENGTH = 400
_TOKEN = re.compile(r"""\.\.\.|'[^']*'|"[^"]*"|[\w.]+|\S""")


class ParsedType(NamedTuple):
    """The meaning of a type string."""

    schema: dict[str, Json]
    is_optional: bool
    """Whether the string says that the argument may be left out."""
    is_understood: bool


def read_type(text: str) -> ParsedType:
    """The JSON Schema of one type string, such as `List[int]` or `str, optional`."""
    try:
        reader = _TypeReader(text)
        schema = reader.union()
        words = reader.remarks()
    except _NotUnderstood:
        is_optional = re.search(r"\boptional\b", text[:MAX_TYPE_LENGTH], re.IGNORECASE) is not None
        return ParsedType({}, is_optional, False)
    says_so = not words.isdisjoint(("optional", "default"))
    return ParsedType(schema, says_so or _may_be_null(schema), True)


def any_of(schemas: Iterable[dict[str, Json]]) -> dict[str, Json]:
    """The schema that accepts what any of `schemas` accepts; {} where there are none."""
    kinds: list[dict[str, Json]] = []
    for schema in schemas:
        for kind in schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]:
            if kind not in kinds:
                kinds.append(kind)
    if {} in kinds or not kinds:
        return {}
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _may_be_null(schema: dict[str, Json]) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


class _NotUnderstood(Exception):
    """A type string outside the grammar below."""


class _TypeReader:
    """Reads `union := type (("|" | "or") type)*`, `type := name ["[" union, … "]"]`."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TYPE_LENGTH:
            raise _NotUnderstood
        self._tokens: list[str] = _TOKEN.findall(text)
        self._at = 0

    def union(self) -> dict[str, Json]:
        kinds = [self._type()]
        while self._peek() in ("|", "or"):
            self._next()
            kinds.append(self._type())
        return any_of(kinds)

    def remarks(self) -> set[str]:
        """The words after the type, such as `, optional`, `(optional)` and `, default 3`."""
        words = [word.lower() for word in self._tokens[self._at :]]
        if words and words[0] not in (",", "("):
            raise _NotUnderstood
        return set(words)

    def _type(self) -> dict[str, Json]:
        name = self._next().removeprefix("typing.").lower()
        if self._peek() == "of":
            self._next()
            return self._built(name, [self.union()])
        if self._peek() != "[":
            return self._named(name)
        self._next()
        if name == "literal":
            return {"enum": self._literals()}
        parts = [self._part()]
        while (token := self._next()) == ",":
            parts.append(self._part())
        if token != "]":
            raise _NotUnderstood
        return self._built(name, parts)

    def _part(self) -> dict[str, Json] | None:
        if self._peek() == "...":
            self._next()
            return None
        return self.union()

    def _named(self, name: str) -> dict[str, Json]:
        known = TYPE_NAMES.get(name, TYPE_NAMES.get(name.removesuffix("s")))
        if known is None:
            raise _NotUnderstood
        return dict(known)

    def _built(self, name: str, parts: list[dict[str, Json] | None]) -> dict[str, Json]:
        known = [part for part in parts if part is not None]
        if name == "union" and known:
            return any_of(known)
        if name == "optional" and len(known) == 1:
            return any_of([*known, {"type": "null"}])
        base = self._named(name)
        if base.get("type") == "object" and len(known) in (1, 2):
            return base | {"additionalProperties": known[-1]}
        if base.get("type") != "array" or not known:
            raise _NotUnderstood
        items = any_of(known)
        if name == "tuple" and None not in parts:
            return base | {"items": items, "minItems": len(known), "maxItems": len(known)}
        return base | {"items": items}

    def _literals(self) -> list[Json]:
        values: list[Json] = []
        while True:
            token = self._next()
            if token[0] in "'\"":
                values.append(token[1:-1])
            elif re.fullmatch(r"[0-9]{1,18}", token):
                values.append(int(token))
            else:
                raise _NotUnderstood
            if (mark := self._next()) == "]":
                return values
            if mark != ",":
                raise _NotUnderstood

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise _NotUnderstood
        self._at += 1
        return token
