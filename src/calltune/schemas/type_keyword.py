"""The value of `type` in whatever spelling: JSON Schema's, Gemini's capitals, Python's names.

Source: JSON Schema draft 2020-12, validation, 6.1.1, and draft 3, 5.1 (schemas among the types).
"""

from typing import NamedTuple

from calltune.schemas.keyword_values import TYPES
from calltune.schemas.keywords import Schema
from calltune.schemas.python_types import any_of, read_type
from calltune.types import Json

_SAYS_NOTHING = frozenset({"type_unspecified", "unspecified", ""})


class ParsedTypes(NamedTuple):
    """What `type` says."""

    keywords: Schema
    """The keywords that say it in draft 2020-12; {} where any value is meant."""
    schemas: tuple[tuple[int, Schema], ...]
    """Schemas among the types, with their index in the list."""
    not_understood: tuple[str, ...]

    def may_be(self, kind: str) -> bool:
        """Whether values of this type are allowed."""
        if self.schemas or not self.keywords:
            return True
        each = self.keywords.get("anyOf", [self.keywords])
        kinds = [k for part in each for k in _listed(part.get("type", kind))]
        return kind in kinds


def read_types(written: Json) -> ParsedTypes:
    """The types that the value of `type` names; any, where one of them is not understood."""
    if isinstance(written, str):
        keywords = _named(written)
        return ParsedTypes(keywords or {}, (), () if keywords is not None else (written[:60],))
    if not isinstance(written, list) or not written:
        return ParsedTypes({}, (), (str(written)[:60],))
    names = [name for name in written if isinstance(name, str)]
    schemas = tuple((i, each) for i, each in enumerate(written) if isinstance(each, dict))
    found = [_named(name) for name in names]
    unknown = tuple(name[:60] for name, each in zip(names, found, strict=True) if each is None)
    odd = [each for each in written if not isinstance(each, str | dict)]
    # null in place of its name.
    found += [{"type": "null"} for each in odd if each is None]
    unknown += tuple(str(each)[:60] for each in odd if each is not None)
    known = [each for each in found if each is not None]
    if unknown or {} in known:
        return ParsedTypes({}, (), unknown)
    return ParsedTypes(_union(known), schemas, ())


def _union(kinds: list[Schema]) -> Schema:
    """The types together: as a list of names, where names are all there is."""
    if kinds and all(each.keys() == {"type"} for each in kinds):
        names = list(dict.fromkeys(name for each in kinds for name in _listed(each["type"])))
        return {"type": names}
    return any_of(kinds)


def _named(name: str) -> Schema | None:
    lower = name.strip().lower()
    if lower in TYPES:
        return {"type": lower}
    if lower in _SAYS_NOTHING:
        return {} if lower else None
    reading = read_type(name)
    return dict(reading.schema) if reading.is_understood else None


def _listed(kinds: Json) -> list[str]:
    return kinds if isinstance(kinds, list) else [kinds]


def forgets_null(written: Schema, schema: Schema) -> bool:
    """Whether null is a type and the default, or the type is `Optional[…]`, and `enum` forgets."""
    if "enum" not in schema:
        return False
    if isinstance(kind := written.get("type"), str):
        return {"type": "null"} in read_types(kind).keywords.get("anyOf", ())
    has_default = "default" in schema and schema["default"] is None
    return has_default and isinstance(kind, list) and read_types(kind).may_be("null")
