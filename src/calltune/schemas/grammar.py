"""Compiler from JSON Schema to grammar rules for the JSON that satisfies it, plain or in a string.

llguidance compiles JSON Schemas itself, but not into JSON within a JSON string, as some formats
write arguments. So objects and arrays are built here, for both. The JSON is spaced as Python's
`json` writes it, keys in the schema's order. A keyword that no rule can express is left out, with a
note. It descends on its own rather than by `keywords.map_subschemas`: it resolves and merges
schemas as it goes, bounds their depth, and gives up one alternative without the others.

Source: JSON Schema draft 2020-12; llguidance's Lark syntax.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from calltune.files import dumps
from calltune.schemas.keywords import Schema
from calltune.schemas.lark import LarkGrammar, literal, one_of, repeat
from calltune.schemas.merge import (
    Unsatisfiable,
    UnsupportedSchema,
    merge,
    resolve,
)
from calltune.schemas.validate import satisfies
from calltune.types import Json

MAX_ENFORCED_DEPTH = 32
"""Values nested deeper than this cannot be written, so that recursive schemas end."""
MAX_FREE_DEPTH = 5
"""How deep values may nest where the schema allows anything."""
MAX_ENFORCED_LENGTH = 2_000
"""Larger lengths and counts are not enforced."""
_ALL_TYPES = ("string", "number", "boolean", "null", "object", "array")
_INTEGER = r"/-?(0|[1-9][0-9]{0,29})/"
_NUMBER = (
    r"/-?((0|[1-9][0-9]{0,29})(\.[0-9]{1,29})?"
    r"|[1-9](\.[0-9]{1,29})?e[+-](0[1-9]|[1-9][0-9]|[12][0-9]{2}))/"
)
"""Bounded, so that a model cannot write digits without end."""
_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_BOUND = 10**18
_CHARACTER = (
    r"""([^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00[01][0-9a-f])""",
    r"""([^"\\\x00-\x1f]|\\\\(\\"|\\\\|[bfnrt]|u00[01][0-9a-f]))""",
)
_QUOTE = ('"', r"\\" + '"')
UNENFORCED_KEYWORDS = (
    *("uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties"),
    *("patternProperties", "propertyNames", "dependentRequired", "dependentSchemas"),
    *("not", "if", "then", "else", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef"),
)
_CLOSED = "no properties but those named"
"""In place of `additionalProperties`, which in a part of a schema would forbid those of others."""


class _Member(NamedTuple):
    """A key and its value, as the body of a rule."""

    body: str
    is_required: bool


class SchemaCompiler:
    """Compiles one schema, a tool's or a whole answer's, into rules of a grammar."""

    def __init__(self, lark: LarkGrammar, root: Json, is_quoted: bool, note: Callable[[str], None]):
        self._lark = lark
        self._root = root
        self._is_quoted = is_quoted
        self._note = note
        self._open: set[str] = set()
        # Equal schemas of two tools share their rules, unless they refer to other parts of these.
        self._references = hash(dumps(root)) if '"$ref"' in dumps(root) else 0

    def arguments(self) -> str:
        """The rule for the object of arguments, without arguments that the schema does not name.

        Raises:
            Unsatisfiable: no object satisfies the schema.
        """
        try:
            schema = resolve(self._root, self._root)
            whole = merge({"type": "object"}, schema)
            return self._value({_CLOSED: True} | whole, MAX_ENFORCED_DEPTH)
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
            return self._of_schema(resolve(written, self._root), depth)
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
                return self._any_of(schema, keyword, depth)
        if "const" in schema or isinstance(schema.get("enum"), list):
            return self._values(schema)
        types = schema.get("type", _guessed_types(schema))
        kinds = [types] if isinstance(types, str) else list(types)
        return self._first_possible([partial(self._of_type, kind, schema, depth) for kind in kinds])

    def _any_of(self, schema: Schema, keyword: str, depth: int) -> str:
        if keyword == "oneOf":
            self._note("oneOf, taken as anyOf")
        rest = {key: value for key, value in schema.items() if key != keyword}
        return self._first_possible(
            [partial(self._alternative, rest, part, depth) for part in schema[keyword]]
        )

    def _alternative(self, rest: Schema, part: Json, depth: int) -> str:
        return self._value(merge(rest, resolve(part, self._root)), depth)

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
        fitting = [value for value in values if satisfies(value, schema)]
        if not fitting:
            raise Unsatisfiable
        return one_of(self._literal(dumps(value)) for value in fitting)

    def _of_type(self, kind: str, schema: Schema, depth: int) -> str:
        match kind:
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return self._number(kind, schema)
            case "boolean":
                return one_of((literal("true"), literal("false")))
            case "null":
                return literal("null")
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
        raise UnsupportedSchema(f"type {kind}")

    def _string(self, schema: Schema) -> str:
        if "pattern" in schema and not self._is_quoted:
            keys = ("type", "pattern", "minLength", "maxLength")
            return (
                f"%json {dumps({k: schema[k] for k in keys if k in schema} | {'type': 'string'})}"
            )
        if "pattern" in schema:
            self._note("pattern")
        min_count, max_count = self._counts(schema, "minLength", "maxLength")
        count = (
            "*"
            if (min_count, max_count) == (0, None)
            else f"{{{min_count},{'' if max_count is None else max_count}}}"
        )
        quote = _QUOTE[self._is_quoted]
        return self._lark.terminal(f"/{quote}{_CHARACTER[self._is_quoted]}{count}{quote}/")

    def _number(self, kind: str, schema: Schema) -> str:
        bounds = {key: schema[key] for key in _RANGE if key in schema}
        if not bounds:
            return self._lark.terminal(_INTEGER if kind == "integer" else _NUMBER)
        # Bounded as the numbers above.
        if not bounds.keys() & {"minimum", "exclusiveMinimum"}:
            bounds["minimum"] = -_BOUND
        if not bounds.keys() & {"maximum", "exclusiveMaximum"}:
            bounds["maximum"] = _BOUND
        return f"%json {dumps({'type': kind} | bounds)}"

    def _object(self, schema: Schema, depth: int) -> str:
        if depth == 0:
            raise Unsatisfiable
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        extra = schema.get("additionalProperties", _CLOSED not in schema and not properties)
        members = properties | {name: extra for name in required if name not in properties}
        pieces = []
        for name, part in members.items():
            try:
                value = self._value(part, depth - 1)
            except Unsatisfiable:
                if name in required:
                    raise
                continue
            body = f"{self._literal(dumps(name) + ': ')} {value}"
            pieces.append(_Member(body, name in required))
        more = self._extra_member(extra, list(members), depth)
        return f"{self._literal('{')} {self._members(pieces, more)} {self._literal('}')}"

    def _extra_member(self, extra: Json, known: Sequence[str], depth: int) -> str | None:
        """A member of another name than the known ones."""
        try:
            value = self._value(extra, depth - 1)
        except Unsatisfiable:
            return None
        key = self._string({})
        if known:
            others = " | ".join(self._literal(dumps(name)) for name in known)
            key = self._lark.terminal(f"{key} & ~({others})")
        return f"{key} {self._literal(': ')} {value}"

    def _members(self, members: Sequence[_Member], more: str | None) -> str:
        """Members in order, with commas between those that are there."""
        comma = self._literal(", ")
        after = f"({comma} {more})*" if more else ""
        first = f"({more} {after})?" if more else ""
        for member in reversed(members):
            here = self._lark.rule(f"{member.body} {after}".strip())
            if member.is_required:
                first, after = here, f"{comma} {here}"
            else:
                first = one_of((here, first)) if first else f"({here})?"
                after = f"({comma} {member.body})? {after}".strip()
            first, after = self._lark.rule(first), self._lark.rule(after)
        return first

    def _array(self, schema: Schema, depth: int) -> str:
        if depth == 0:
            raise Unsatisfiable
        items, fixed = schema.get("items", True), schema.get("prefixItems", [])
        if isinstance(items, list):
            # Before draft 2020-12 this was how prefixItems was spelled.
            items, fixed = schema.get("additionalItems", True), items
        min_count, max_count = self._counts(schema, "minItems", "maxItems")
        comma = self._literal(", ")
        try:
            item = self._value(items, depth - 1)
            left = None if max_count is None else max(0, max_count - len(fixed))
            rest = repeat(f"{comma} {item}", max(0, min_count - len(fixed)), left)
        except Unsatisfiable:
            item, rest = None, ""
            if min_count > len(fixed):
                raise
        inside = self._fixed_items(fixed, rest, min_count, max_count, depth) if fixed else ""
        if not fixed and item and max_count != 0:
            more = repeat(
                f"{comma} {item}",
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
            comma = self._literal(", ") if index else ""
            body = f"{comma} {self._value(fixed[index], depth - 1)} {body}"
            body = self._lark.rule(body.strip() if index < min_count else f"({body.strip()})?")
        return body

    def _counts(self, schema: Schema, min_keyword: str, max_keyword: str) -> tuple[int, int | None]:
        min_count, max_count = schema.get(min_keyword, 0), schema.get(max_keyword)
        if min_count > MAX_ENFORCED_LENGTH:
            self._note(min_keyword)
            min_count = 0
        if max_count is not None and max_count > MAX_ENFORCED_LENGTH:
            self._note(max_keyword)
            max_count = None
        if max_count is not None and max_count < min_count:
            raise Unsatisfiable
        return int(min_count), None if max_count is None else int(max_count)

    def _literal(self, text: str) -> str:
        return literal(dumps(text)[1:-1] if self._is_quoted else text)


def _guessed_types(schema: Schema) -> Sequence[str]:
    """The types of a schema that names none."""
    if schema.keys() & {"properties", "required", "additionalProperties"}:
        return ("object",)
    return ("array",) if schema.keys() & {"items", "prefixItems"} else _ALL_TYPES
