"""Compiler from JSON Schema to grammar rules for the JSON that satisfies it, plain or in a string.

llguidance compiles JSON Schemas itself, but not into JSON within a JSON string, as some formats
write arguments. So objects and arrays are built here, for both. The JSON is spaced as Python's
`json` writes it, keys in the schema's order. A keyword that no rule can express is left out where
it stands, with a note. It descends on its own rather than by `keywords.map_subschemas`: it resolves
and merges schemas as it goes, bounds their depth, and gives up one alternative without the others.

Source: JSON Schema draft 2020-12; llguidance's Lark syntax.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial

from calltune.files import dumps
from calltune.schemas.exclusion import (
    EXCLUDED,
    Unsatisfiable,
    UnsupportedSchema,
    are_disjoint,
    negate,
    possible_types,
)
from calltune.schemas.keywords import Schema
from calltune.schemas.lark import LarkGrammar, literal, one_of, repeat
from calltune.schemas.members import Member, chain_members, declared_members, free_members
from calltune.schemas.merge import MAX_ALTERNATIVES, Merger
from calltune.schemas.scalars import Scalars
from calltune.schemas.validate import satisfies
from calltune.types import Json

MAX_ENFORCED_DEPTH = 32
"""Values nested deeper than this cannot be written, so that recursive schemas end."""
MAX_FREE_DEPTH = 5
"""How deep values may nest where the schema allows anything."""
UNENFORCED_KEYWORDS = ("contains", "$dynamicRef", "$recursiveRef")
"""Keywords that no rule expresses; others are left out in some places only."""
CLOSED = "no properties but those named"
"""In place of `additionalProperties`, which in a part of a schema would forbid those of others."""


class SchemaCompiler:
    """Compiles one schema, a tool's or a whole answer's, into rules of a grammar."""

    def __init__(
        self,
        lark: LarkGrammar,
        root: Json,
        is_quoted: bool,
        control_tokens: Collection[str],
        note: Callable[[str], None],
    ) -> None:
        """Values that hold one of `control_tokens` cannot be written; `note` gets what is lost."""
        self._lark = lark
        self._is_quoted = is_quoted
        self._note = note
        self._merger = Merger(root, note)
        self._scalars = Scalars(lark, is_quoted, control_tokens, note)
        self._root = root
        self._open: set[str] = set()
        # Equal schemas of two tools share their rules, unless they refer to other parts of these.
        self._references = hash(dumps(root)) if '"$ref"' in dumps(root) else 0

    def arguments(self) -> str:
        """The rule for the object of arguments, without arguments that the schema does not name.

        Raises:
            Unsatisfiable: no object satisfies the schema.
        """
        try:
            schema = self._merger.resolve(self._root)
            whole = self._merger.merge({"type": "object"}, schema)
            return self._value({CLOSED: True} | whole, MAX_ENFORCED_DEPTH)
        except UnsupportedSchema as reason:
            self._note(str(reason))
            return self.anything()

    def whole(self) -> str:
        """The rule for any value that satisfies the schema, of whatever type.

        Raises:
            Unsatisfiable: no value satisfies the schema.
        """
        return self._value(self._root, MAX_ENFORCED_DEPTH)

    def anything(self) -> str:
        """The rule for any object of arguments."""
        return self._value({"type": "object"}, MAX_FREE_DEPTH)

    def _value(self, schema: Json, depth: int) -> str:
        if schema in (True, {}):
            depth = min(depth, MAX_FREE_DEPTH)
        key = dumps([schema, depth, self._references, self._is_quoted])
        if key in self._open:
            # A value defined as itself and nothing more.
            raise Unsatisfiable
        self._open.add(key)
        try:
            return self._lark.cached(key, lambda: self._lark.rule(self._body(schema, depth)))
        finally:
            self._open.discard(key)

    def _body(self, written: Json, depth: int) -> str:
        try:
            return self._of_schema(self._merger.resolve(written), depth)
        except UnsupportedSchema as reason:
            self._note(str(reason))
        except (AttributeError, TypeError, ValueError):
            # Broken schemas: a count that is a string, properties that are a list.
            self._note("a keyword of the wrong kind")
        return self._of_schema({}, min(depth, MAX_FREE_DEPTH))

    def _of_schema(self, schema: Schema, depth: int) -> str:
        for keyword in UNENFORCED_KEYWORDS:
            if keyword in schema:
                self._note(keyword)
        for keyword in ("anyOf", "oneOf"):
            if isinstance(schema.get(keyword), list):
                return self._choice(schema, keyword, depth)
        if "const" in schema or isinstance(schema.get("enum"), list):
            return self._values(schema)
        kinds = possible_types(schema)
        return self._first_possible([partial(self._of_type, kind, schema, depth) for kind in kinds])

    def _choice(self, schema: Schema, keyword: str, depth: int) -> str:
        rest = {key: value for key, value in schema.items() if key != keyword}
        parts: list[Schema] = []
        written: list[Json] = []
        for part in schema[keyword]:
            try:
                parts.append(self._merger.merge(rest, self._merger.resolve(part)))
                written.append(part)
            except Unsatisfiable:
                continue
        made: Sequence[Json] = self._exclusive(parts, written) if keyword == "oneOf" else parts
        return self._first_possible([partial(self._value, part, depth) for part in made])

    def _exclusive(self, parts: Sequence[Schema], written: Sequence[Json]) -> list[Json]:
        """The alternatives of `oneOf`, each without what another one admits too."""
        found: list[Json] = []
        for index, part in enumerate(parts):
            others = [
                negate(written[i], self._root)
                for i, other in enumerate(parts[:MAX_ALTERNATIVES])
                if i != index and not are_disjoint(part, other, self._merger.resolve)
            ]
            if any(other is None for other in others) or len(parts) > MAX_ALTERNATIVES:
                self._note("oneOf, taken as anyOf")
                return list(parts)
            found.append({"allOf": [part, *others]} if others else part)
        return found

    def _first_possible(self, makers: Sequence[Callable[[], str]]) -> str:
        bodies = []
        for make in makers:
            try:
                bodies.append(make())
            except Unsatisfiable:
                continue
        if not bodies:
            raise Unsatisfiable
        return one_of(bodies)

    def _values(self, schema: Schema) -> str:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return self._first_possible(
            [
                partial(self._constant, value)
                for value in values
                if satisfies(value, schema) and not _is_excluded(value, schema)
            ]
        )

    def _constant(self, value: Json) -> str:
        """The body for one value, in the parts that other objects and arrays have.

        As one text it would hide them: the lexer takes what begins alike for the longer one.
        """
        if isinstance(value, dict):
            members = [f"{self._key(name)} {self._constant(part)}" for name, part in value.items()]
            return f"{self._literal('{')} {f' {self._comma} '.join(members)} {self._literal('}')}"
        if isinstance(value, list):
            items = f" {self._comma} ".join(map(self._constant, value))
            return f"{self._literal('[')} {items} {self._literal(']')}"
        return self._scalars.literal(dumps(value))

    def _of_type(self, kind: str, schema: Schema, depth: int) -> str:
        match kind:
            case "string":
                return self._scalars.string(schema)
            case "integer" | "number":
                return self._scalars.number(kind, schema)
            case "boolean":
                values = [value for value in (True, False) if not _is_excluded(value, schema)]
                return self._scalars.fixed(values)
            case "null":
                return self._scalars.fixed([] if _is_excluded(None, schema) else [None])
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
        raise UnsupportedSchema(f"type {kind}")

    def _object(self, schema: Schema, depth: int) -> str:
        if depth == 0:
            raise Unsatisfiable
        required = schema.get("required") or []
        free = free_members(schema, self._scalars, self._note, is_closed=CLOSED in schema)
        members = []
        declared = declared_members(schema, free)
        for name, part in declared.items():
            try:
                value = self._value(part, depth - 1)
                body = f"{self._key(name)} {value}"
            except Unsatisfiable:
                if name in required:
                    raise
                continue
            members.append(Member(body, name in required))
        more = self._free_member(free.choices(list(declared)), depth)
        inside = chain_members(self._lark, self._comma, members, more, schema, self._note)
        return f"{self._literal('{')} {inside} {self._literal('}')}"

    def _key(self, name: str) -> str:
        # The colon apart, as after a free name: else the lexer would take the longer text for this.
        return f"{self._scalars.literal(dumps(name))} {self._literal(': ')}"

    def _free_member(self, choices: Sequence[tuple[str, Json]], depth: int) -> str | None:
        """A member whose name the schema does not list; None where there can be none."""
        bodies = []
        for key, part in choices:
            try:
                value = self._value(part, depth - 1)
            except Unsatisfiable:
                continue
            bodies.append(f"{self._lark.terminal(key)} {self._literal(': ')} {value}")
        return one_of(bodies) if bodies else None

    @property
    def _comma(self) -> str:
        return self._literal(", ")

    def _array(self, schema: Schema, depth: int) -> str:
        if depth == 0:
            raise Unsatisfiable
        fixed, items = schema.get("prefixItems", []), schema.get("items")
        if isinstance(items, list):
            # Before draft 2020-12 this was how prefixItems was spelled.
            items, fixed = schema.get("additionalItems"), items
        if items is None:
            items = schema.get("unevaluatedItems", True)
        min_count, max_count = self._scalars.counts(schema, "minItems", "maxItems")
        if schema.get("uniqueItems") and (max_count is None or max_count > 1):
            self._note("uniqueItems")
        try:
            item = self._value(items, depth - 1)
            left = None if max_count is None else max(0, max_count - len(fixed))
            rest = repeat(f"{self._comma} {item}", max(0, min_count - len(fixed)), left)
        except Unsatisfiable:
            item, rest = None, ""
            if min_count > len(fixed):
                raise
        inside = self._fixed_items(fixed, rest, min_count, max_count, depth) if fixed else ""
        if not fixed and item and max_count != 0:
            more = repeat(
                f"{self._comma} {item}",
                max(0, min_count - 1),
                None if max_count is None else max_count - 1,
            )
            inside = f"{item} {more}" if min_count else f"({item} {more})?"
        return f"{self._literal('[')} {inside} {self._literal(']')}"

    def _fixed_items(
        self, fixed: Sequence[Json], rest: str, min_count: int, max_count: int | None, depth: int
    ) -> str:
        """The items of an array that each have a schema of their own, and the rest after them."""
        body = rest
        for index in reversed(
            range(len(fixed) if max_count is None else min(max_count, len(fixed)))
        ):
            comma = self._comma if index else ""
            body = f"{comma} {self._value(fixed[index], depth - 1)} {body}"
            body = self._lark.rule(body.strip() if index < min_count else f"({body.strip()})?")
        return body

    def _literal(self, text: str) -> str:
        return literal(dumps(text)[1:-1] if self._is_quoted else text)


def _is_excluded(value: Json, schema: Schema) -> bool:
    """Whether a `not` excludes this value; `true` is not 1."""
    return any(
        value == other and isinstance(value, bool) == isinstance(other, bool)
        for other in schema.get(EXCLUDED, ())
    )
