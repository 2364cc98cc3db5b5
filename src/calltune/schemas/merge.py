"""Merging of JSON Schemas: references looked up, and `allOf` made one schema.

It looks at one level at a time, for the grammar compiler: what it merges below is left as `allOf`.
Of two keywords that cannot be merged the first is kept, and the second noted.
"""

from collections.abc import Callable
from typing import Any

from calltune.schemas.exclusion import (
    EXCLUDED,
    Unsatisfiable,
    UnsupportedSchema,
    are_disjoint,
    negate,
)
from calltune.schemas.keywords import ANNOTATIONS, IDENTIFIERS, Schema
from calltune.schemas.references import resolve_pointer
from calltune.schemas.validate import matches
from calltune.types import Json

MAX_ALTERNATIVES = 64
MAX_PAIRS = 1_024
_LARGEST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_SMALLEST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_CHOICES = ("anyOf", "oneOf")
_REWRITTEN = {
    *("not", "if", "then", "else"),
    *("dependentRequired", "dependentSchemas", "dependencies"),
}
_IGNORED = {"$ref", "allOf", *ANNOTATIONS, *IDENTIFIERS}
Note = Callable[[str], None]


class Merger:
    """Resolves and merges the parts of one schema."""

    def __init__(self, root: Json, note: Note) -> None:
        """`root` is the whole schema, which references refer to."""
        self._root = root
        self._note = note

    def resolve(self, schema: Json) -> Schema:
        """The schema without `$ref` and `allOf` at its top; what they hold is merged into it.

        A reference that cannot be followed is left out, with a note.

        Raises:
            Unsatisfiable: it is `false`, or its parts contradict each other.
            UnsupportedSchema: a reference leads in a circle.
        """
        try:
            return self._resolve(schema)
        except RecursionError:
            raise UnsupportedSchema("$ref in a circle") from None

    def merge(self, one: Schema, other: Schema) -> Schema:
        """The schema of what satisfies both of two resolved schemas.

        Raises:
            Unsatisfiable: nothing does.
        """
        for listing, rest in ((one, other), (other, one)):
            if "prefixItems" in listing and "items" in rest and "prefixItems" not in rest:
                self._note("prefixItems and items in different parts")
                return self.merge(listing, {k: v for k, v in rest.items() if k != "items"})
        result = self._within(one, other)
        if choices := {key for key in _CHOICES if key in one and key in other}:
            required = [*one.get("required", ()), *other.get("required", ())]
            for key in choices:
                result[key] = self._combined(key, one[key], other[key], required)
            other = {key: value for key, value in other.items() if key not in choices}
        for key, value in self._within(other, one).items():
            result[key] = self._both(key, result[key], value) if key in result else value
        return result

    def _resolve(self, schema: Json) -> Schema:
        for _ in range(MAX_ALTERNATIVES):
            if schema is False or (isinstance(schema, dict) and schema.get("not") == {}):
                raise Unsatisfiable
            if not isinstance(schema, dict):
                return {}
            parts: list[Json] = []
            if "$ref" in schema:
                parts.append(self._target(schema["$ref"]))
            if isinstance(schema.get("allOf"), list):
                parts.extend(schema["allOf"])
            rest = {k: v for k, v in schema.items() if k not in _IGNORED}
            parts += self._rewritten(rest)
            rest = {k: v for k, v in rest.items() if k not in _REWRITTEN}
            if not parts:
                return rest
            if len(parts) == 1 and not rest:
                schema = parts[0]
                continue
            for part in parts:
                rest = self.merge(rest, self._resolve(part))
            schema = rest
        raise UnsupportedSchema("$ref in a circle")

    def _rewritten(self, schema: Schema) -> list[Json]:
        """Schemas in place of keywords that no grammar has; those that have none are noted."""
        parts: list[Json] = []
        if "not" in schema:
            parts += self._noted("not", negate(schema["not"], self._root))
        if "if" in schema and schema.keys() & {"then", "else"}:
            otherwise = negate(schema["if"], self._root)
            holds = {"allOf": [schema["if"], schema.get("then", True)]}
            fails = {"allOf": [otherwise, schema.get("else", True)]}
            choice: Json = None if otherwise is None else {"anyOf": [holds, fails]}
            parts += self._noted("if", choice)
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            for name, needed in dict(schema.get(keyword) or {}).items():
                is_absent: Json = {"properties": {name: False}}
                part = {"required": needed} if isinstance(needed, list) else needed
                parts.append({"anyOf": [is_absent, {"allOf": [{"required": [name]}, part]}]})
        return parts

    def _noted(self, keyword: str, part: Json) -> list[Json]:
        if part is None:
            self._note(keyword)
        return [] if part is None else [part]

    def _within(self, schema: Schema, other: Schema) -> Schema:
        """The schema, its properties limited by the other's `additionalProperties`."""
        extra, properties = other.get("additionalProperties", True), schema.get("properties")
        if extra in (True, {}):
            return dict(schema)
        result = dict(schema)
        if "patternProperties" in schema and schema["patternProperties"] != other.get(
            "patternProperties"
        ):
            self._note("patternProperties and additionalProperties in different parts")
            del result["patternProperties"]
        if not isinstance(properties, dict):
            return result
        named: Any = other.get("properties") or {}
        patterns: Any = other.get("patternProperties") or {}
        limited = {
            name: part
            if name in named or any(matches(pattern, name) for pattern in patterns)
            else {"allOf": [part, extra]}
            for name, part in properties.items()
        }
        return result | {"properties": limited}

    def _both(self, key: str, one: Any, other: Any) -> Any:
        if one == other:
            return one
        if key in _LARGEST | _SMALLEST:
            return max(one, other) if key in _LARGEST else min(one, other)
        if key in ("required", EXCLUDED):
            return [*one, *(each for each in other if each not in one)]
        if key in ("properties", "patternProperties"):
            shared = {k: {"allOf": [one[k], other[k]]} for k in one if k in other}
            return one | other | shared
        if key == "type":
            return _shared_types(one, other)
        if key == "const":
            raise Unsatisfiable
        if key == "enum":
            return [value for value in one if value in other]
        if key in ("items", "additionalProperties", "propertyNames", "unevaluatedProperties"):
            return {"allOf": [one, other]}
        self._note(f"{key} twice")
        return one

    def _combined(
        self, key: str, one: list[Json], other: list[Json], required: list[str]
    ) -> list[Json]:
        """The alternatives of two choices that both apply, as one; `required` is known to apply.

        Those that no value satisfies are left out: of conditions on one property's value, which
        would be hundreds together, few are left.
        """
        if one == other:
            return one
        pairs: list[Json] = []
        if len(one) * len(other) <= MAX_PAIRS:
            for a in one:
                pairs += [{"allOf": [a, b]} for b in other if not self._exclude(a, b, required)]
        if pairs and len(pairs) <= MAX_ALTERNATIVES:
            return pairs
        self._note(f"{key} twice, in too many combinations")
        return one

    def _exclude(self, one: Json, other: Json, required: list[str]) -> bool:
        try:
            this = self.resolve({"allOf": [one, {"required": required}]})
            that = self.resolve({"allOf": [other, {"required": required}]})
            return are_disjoint(this, that, self.resolve)
        except Unsatisfiable:
            return True
        except UnsupportedSchema:
            return False

    def _target(self, reference: Json) -> Json:
        if not isinstance(reference, str) or not reference.startswith("#"):
            self._note("$ref to another document")
            return {}
        found = resolve_pointer(reference, self._root)
        if found is None:
            self._note(f"$ref that leads nowhere ({reference[:80]})")
            return {}
        return found


def _shared_types(one: Any, other: Any) -> list[str]:
    these, those = (kind if isinstance(kind, list) else [kind] for kind in (one, other))
    shared = [kind for kind in these if kind in those]
    numbers = {"integer", "number"}
    if "integer" not in shared and numbers <= {*these, *those}:
        shared.append("integer")
    if not shared:
        raise Unsatisfiable
    return shared
