"""Random JSON Schemas, and values for them, made to be valid more often than not."""

import random
from collections.abc import Iterator
from typing import Any

from calltune.schemas.references import resolve_pointer
from calltune.types import Json

NAMES = ("a", "id", "x-y", "kind", "größe")
TEXTS = ("", "a", "id", "cat", "Dog7", 'say "hi"', "back\\slash", "tab\t", "ab12", "é🙂", "x" * 9)
PATTERNS = (
    ("^[a-z]+$", ("a", "cat", "id")),
    (r"^https?:\/\/\S+$", ("http://a/b", "https://é")),
    (r"\d", ("ab12", "Dog7", "1")),
    (r"^[\w\-]{1,4}$", ("a-b", "é_1")),
    ('^[^"]*$', ("", "tab\t", "back\\slash")),
)
NUMBERS = (0, 1, -1, 5, 7, 10, 99, 2**53, 10**18 + 1, 2**63, -(10**20), 0.5, -2.25, 3.75e-7)


class SchemaMaker:
    """Makes one random schema."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.definitions: dict[str, Json] = {}

    def parameters(self) -> dict[str, Json]:
        """The schema of a tool's arguments."""
        schema = self._object(3)
        return schema | ({"$defs": self.definitions} if self.definitions else {})

    def schema(self, depth: int) -> Json:
        """A schema of any kind of value."""
        simple = [self._string, self._number, self._fixed, self._boolean]
        nested = [self._object, self._array, self._choice, self._parts, self._reference]
        make = self.random.choice(simple + (nested if depth else []))
        return make(depth)

    def _flip(self, share: float = 0.3) -> bool:
        return self.random.random() < share

    def _string(self, _: int) -> dict[str, Json]:
        found: dict[str, Json] = {"type": self.random.choice(["string", ["string", "null"]])}
        if self._flip():
            found["pattern"] = self.random.choice(PATTERNS)[0]
        if self._flip():
            found["maxLength"] = self.random.choice([3, 40, 5_000])
        if self._flip(0.2):
            found["minLength"] = 1
        if self._flip(0.1):
            found["not"] = {"enum": ["a", "id"]}
        return found

    def _number(self, _: int) -> dict[str, Json]:
        found: dict[str, Json] = {"type": self.random.choice(["integer", "number"])}
        for keyword, low, high in (
            ("minimum", -5, 1),
            ("exclusiveMinimum", -9, 0),
            ("maximum", 7, 2**63),
            ("exclusiveMaximum", 6, 10**21),
        ):
            if self._flip(0.25):
                found[keyword] = self.random.choice([low, high, (low + high) / 2])
        if found["type"] == "integer" and self._flip(0.1):
            found["multipleOf"] = self.random.choice([1, 5, 10, 7])
        return found

    def _fixed(self, _: int) -> dict[str, Json]:
        values = [*TEXTS[1:5], *NUMBERS[:4], None, True, {"a": [1]}]
        chosen = self.random.sample(values, self.random.randint(1, 3))
        return {"const": chosen[0]} if self._flip() else {"enum": chosen}

    def _boolean(self, _: int) -> Json:
        return {"type": self.random.choice(["boolean", "null", ["boolean", "integer"]])}

    def _array(self, depth: int) -> dict[str, Json]:
        found: dict[str, Json] = {"type": "array", "items": self.schema(depth - 1)}
        if self._flip():
            found["maxItems"] = self.random.choice([1, 3, 3_000])
        if self._flip(0.2):
            found["minItems"] = 1
        if self._flip(0.1):
            found["prefixItems"] = [self.schema(depth - 1)]
        if self._flip(0.05):
            found["uniqueItems"] = True
        return found

    def _object(self, depth: int) -> dict[str, Json]:
        names = self.random.sample(NAMES, self.random.randint(0, 4))
        found: dict[str, Json] = {
            "type": "object",
            "properties": {name: self.schema(max(0, depth - 1)) for name in names},
            "required": [name for name in names if self._flip(0.5)],
        }
        if self._flip(0.1):
            found["required"].append("beyond")
        if self._flip(0.25):
            found["additionalProperties"] = self.random.choice([False, True, {"type": "integer"}])
        if self._flip(0.1):
            found["patternProperties"] = {"^x-": self.schema(0)}
        if self._flip(0.05):
            found["propertyNames"] = self.random.choice([{"type": "string"}, {"maxLength": 6}])
        if len(names) > 1 and self._flip(0.15):
            one, other = names[:2]
            found |= self.random.choice(
                [
                    {"dependentRequired": {one: [other]}},
                    {"not": {"required": [one, other]}},
                    {"anyOf": [{"required": [one]}, {"required": [other]}]},
                    {"oneOf": [{"required": [one]}, {"required": [other]}]},
                    {"if": {"required": [one]}, "then": {"required": [other]}},
                    {"minProperties": 1},
                ]
            )
        return found

    def _choice(self, depth: int) -> dict[str, Json]:
        if self._flip(0.5):
            return {"anyOf": [self.schema(depth - 1) for _ in range(self.random.randint(1, 3))]}
        tagged: list[Json] = []
        for tag in self.random.sample(["cat", "dog", "cow"], 2):
            part = self._object(0)
            # What breaks it may be valid as another alternative's free properties.
            part.pop("not", None)
            part["properties"] = {"kind": {"const": tag}} | {
                name: each for name, each in part["properties"].items() if name != "kind"
            }
            part["required"] = ["kind", *(n for n in part["required"] if n != "kind")]
            tagged.append(part)
        return {"oneOf": tagged}

    def _parts(self, depth: int) -> dict[str, Json]:
        one, other = self._object(depth - 1), self._object(0)
        for part in (one, other):
            part.pop("additionalProperties", None)
        return {"allOf": [one, other]}

    def _reference(self, depth: int) -> dict[str, Json]:
        name = f"d{len(self.definitions)}"
        self.definitions[name] = True
        self.definitions[name] = self.schema(depth - 1)
        return {"$ref": f"#/$defs/{name}"}


class ValueMaker:
    """Makes random values that a schema may admit; they are to be checked."""

    def __init__(self, root: Json, seed: int) -> None:
        self._root = root
        self._random = random.Random(seed)

    def arguments(self) -> dict[str, Json]:
        """Arguments of a tool, none beyond what its schema names or admits in so many words."""
        made: dict[str, Json] = self.value({"additionalProperties": False} | self._root)
        return made

    def value(self, schema: Json, depth: int = 5) -> Json:
        """A value, with keys in the order in which calltune's grammars have them."""
        if not isinstance(schema, dict) or not schema or depth == 0:
            return self._random.choice([1, "a", None, True, [1, "x"], {"k": {"l": []}}])
        parts = [resolve_pointer(schema["$ref"], self._root)] if "$ref" in schema else []
        parts += schema.get("allOf", [])
        if choices := [key for key in ("anyOf", "oneOf") if key in schema]:
            chosen = [self._random.choice(schema[keyword]) for keyword in choices]
            rest = {key: value for key, value in schema.items() if key not in choices}
            return self.value({"allOf": [rest, *chosen]} if rest else chosen[0], depth - 1)
        own = self._own(schema, depth)
        made = [self.value(part, depth - 1) for part in parts]
        if not made or not all(isinstance(each, dict) for each in [*made, own or {}]):
            return own if own is not None or not made else made[0]
        merged = {k: v for each in [*reversed(made), own or {}] for k, v in each.items()}
        names = [
            *_names([schema, *parts], self._root),
            *(name for name in merged if name not in ("x-new", "free")),
            *merged,
        ]
        return {name: merged[name] for name in dict.fromkeys(names) if name in merged}

    def _own(self, schema: dict[str, Any], depth: int) -> Json:
        choose = self._random.choice
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return choose(schema["enum"])
        kinds = schema.get("type", "object" if "properties" in schema else None)
        kind = choose(kinds) if isinstance(kinds, list) else kinds
        match kind:
            case "string":
                return choose([*dict(PATTERNS).get(schema.get("pattern", ""), ()), *TEXTS])
            case "integer":
                return choose([number for number in NUMBERS if isinstance(number, int)])
            case "number":
                return choose(NUMBERS)
            case "boolean":
                return choose([True, False])
            case "array":
                rest = [schema.get("items", True)] * choose((0, 1, 2))
                parts = [*schema.get("prefixItems", ()), *rest]
                return [self.value(part, depth - 1) for part in parts]
            case "object":
                return self._object(schema, depth)
        return None

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Json]:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        found = {
            name: self.value(part, depth - 1)
            for name, part in properties.items()
            if name in required or self._random.random() < 0.5
        }
        found |= {name: self.value(True) for name in required if name not in properties}
        # An object that has properties, itself or in other parts, has no others unless it says so.
        extra = schema.get("additionalProperties", False)
        if extra is not False and self._random.random() < 0.3:
            found["free"] = 3 if isinstance(extra, dict) else self.value(True)
        if "patternProperties" in schema and self._random.random() < 0.5:
            found["x-new"] = self.value(schema["patternProperties"]["^x-"], depth - 1)
        return found


def _names(parts: list[Json], root: Json) -> Iterator[str]:
    """The names of properties in the order in which a grammar has those of merged schemas."""
    for part in parts:
        yield from part.get("properties", ()) if isinstance(part, dict) else ()
    for part in parts:
        if isinstance(part, dict):
            inner = [resolve_pointer(part["$ref"], root)] if "$ref" in part else []
            inner += part.get("allOf", ())
            if inner:
                yield from _names(inner, root)
