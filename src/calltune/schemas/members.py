"""Members of objects in grammars: those that a schema names, those it leaves free, and their order.

Source: JSON Schema draft 2020-12, core, chapter 10.3.2, and validation, chapter 6.5.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

from calltune.schemas.exclusion import Unsatisfiable
from calltune.schemas.keywords import Schema
from calltune.schemas.lark import LarkGrammar, one_of, repeat
from calltune.schemas.pattern_parser import UnsupportedPattern
from calltune.schemas.scalars import MAX_ENFORCED_LENGTH, MAX_ENFORCED_MINIMUM, Scalars
from calltune.schemas.validate import matches, satisfies
from calltune.types import Json

MAX_PATTERNS = 4
"""A free name may match any of an object's patterns: so many have sixteen cases."""
_OF_NAMES = frozenset({"type", "pattern", "minLength", "maxLength"})


class Member(NamedTuple):
    """A key and its value, as the body of a rule."""

    body: str
    is_required: bool


class FreeMembers(NamedTuple):
    """What an object may hold beside the properties that its schema names."""

    names: Schema
    """What holds for all names."""
    patterns: dict[str, tuple[str, Json]]
    """By pattern, the terminal of names that match it, and the schema of their values."""
    others: Json
    """The schema of values under other names; False where there are none."""
    scalars: Scalars

    def value_of(self, name: str, declared: Json) -> Json:
        """The schema of the value under a name, with that of each pattern which it matches."""
        parts = [part for pattern, (_, part) in self.patterns.items() if matches(pattern, name)]
        if self.names and not satisfies(name, self.names):
            return False
        if declared is None:
            declared = True if parts else self.others
        return {"allOf": [declared, *parts]} if parts else declared

    def choices(self, known: Sequence[str]) -> list[tuple[str, Json]]:
        """The terminal of free names, and the schema of their values, for each set of patterns."""
        if "enum" in self.names or "const" in self.names:
            return []
        name = self.scalars.string({key: self.names[key] for key in _OF_NAMES & self.names.keys()})
        found = []
        for chosen in product((False, True), repeat=len(self.patterns)):
            pairs = list(zip(chosen, self.patterns.values(), strict=True))
            keys = [f"{'' if is_chosen else '~'}{body}" for is_chosen, (body, _) in pairs]
            parts = [part for is_chosen, (_, part) in pairs if is_chosen]
            others = self.scalars.without(known)
            body = " & ".join([name, *keys, *others])
            found.append((body, {"allOf": parts} if parts else self.others))
        return found


def free_members(
    schema: Schema, scalars: Scalars, note: Callable[[str], None], is_closed: bool
) -> FreeMembers:
    """The free members of a resolved schema; `is_closed` forbids those it says nothing about.

    An object whose schema names properties has no others, unless the schema says so.
    """
    properties: Any = schema.get("properties") or {}
    names = schema.get("propertyNames")
    if names is True or not isinstance(names, dict):
        names = {"not": {}} if names is False else {}
    if not names.keys() <= _OF_NAMES | {"enum", "const"}:
        note("propertyNames")
    patterns: dict[str, tuple[str, Json]] = {}
    written = dict(schema.get("patternProperties") or {})
    is_lost = len(written) > MAX_PATTERNS
    if is_lost:
        note(f"patternProperties (more than {MAX_PATTERNS})")
    for pattern, part in () if is_lost else written.items():
        try:
            patterns[pattern] = (scalars.matching(pattern), part)
        except UnsupportedPattern as reason:
            note(f"patternProperties ({reason})")
            is_lost = True
    is_named = any(part is not False for part in properties.values()) or bool(written)
    otherwise = schema.get("unevaluatedProperties", not is_closed and not is_named)
    others = True if is_lost else schema.get("additionalProperties", otherwise)
    return FreeMembers(names, patterns, others, scalars)


def declared_members(schema: Schema, free: FreeMembers) -> dict[str, Json]:
    """By name, the schemas of the properties that a schema names, in order.

    A name that is required alone takes any value that free members may have.
    """
    properties: Any = schema.get("properties") or {}
    found = {name: free.value_of(name, part) for name, part in properties.items()}
    for name in schema.get("required") or []:
        if name not in found:
            found[name] = free.value_of(name, schema.get("additionalProperties", True))
    names = [free.names["const"]] if "const" in free.names else free.names.get("enum", [])
    for name in names:
        if isinstance(name, str) and name not in found:
            found[name] = free.value_of(name, None)
    return found


def chain_members(
    lark: LarkGrammar,
    comma: str,
    members: Sequence[Member],
    more: str | None,
    schema: Schema,
    note: Callable[[str], None],
) -> str:
    """The body for members in order, with commas between those that are there.

    Raises:
        Unsatisfiable: there must be more members than there can be.
    """
    min_count, max_count = schema.get("minProperties", 0), schema.get("maxProperties")
    if not members:
        return _free_only(comma, more, min_count, max_count, note)
    n_required = sum(member.is_required for member in members)
    if max_count is not None and max_count < n_required:
        raise Unsatisfiable
    if min_count > max(1, n_required):
        note("minProperties")
    if max_count is not None and (more or max_count < len(members)):
        note("maxProperties")
    after = f"({comma} {more})*" if more else ""
    first: str | None = f"{more} {after}" if more else None
    if not min_count:
        first = f"({first})?" if first else ""
    for member in reversed(members):
        here = lark.rule(f"{member.body} {after}".strip())
        if member.is_required:
            first, after = here, f"{comma} {here}"
        else:
            alone = here if first is None else f"({here})?"
            first = one_of((here, first)) if first else alone
            after = f"({comma} {member.body})? {after}".strip()
        first, after = lark.rule(first), lark.rule(after)
    assert first is not None
    return first


def _free_only(
    comma: str,
    more: str | None,
    min_count: int,
    max_count: int | None,
    note: Callable[[str], None],
) -> str:
    """Any members of one kind, as many as there may be."""
    if min_count > MAX_ENFORCED_MINIMUM:
        note("minProperties")
        min_count = 1
    if max_count is not None and max_count > MAX_ENFORCED_LENGTH:
        max_count = None
    if (max_count is not None and max_count < min_count) or (min_count and not more):
        raise Unsatisfiable
    if not more or max_count == 0:
        return ""
    left = None if max_count is None else max_count - 1
    rest = repeat(f"{comma} {more}", max(0, min_count - 1), left)
    return f"{more} {rest}" if min_count else f"({more} {rest})?"
