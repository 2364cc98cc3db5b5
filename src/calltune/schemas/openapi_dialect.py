"""OpenAPI's schemas as JSON Schema: references inlined, and 3.0's spellings replaced.

Source: the Schema Object of OpenAPI 3.0 (a dialect of its own: `nullable`, boolean
`exclusiveMinimum`, `example`) and 3.1 (JSON Schema draft 2020-12), https://spec.openapis.org/oas.
"""

from collections.abc import Callable, Iterator

from calltune.schemas.keywords import (
    ANNOTATIONS,
    HOLD_LIST,
    HOLD_SCHEMAS,
    Schema,
    map_subschemas,
)
from calltune.schemas.names import sanitize_names
from calltune.schemas.references import resolve_pointer
from calltune.types import Json

_MAX_INLINED = 2_000
"""References inlined in one tool; later ones stay references, or the tool grows without end."""
_MAX_DEPTH = 12
"""How many references are inlined within each other."""
_KEYWORDS = HOLD_SCHEMAS - {"additionalItems", "definitions"}
"""Those of draft 2020-12: older spellings mean nothing in OpenAPI."""
_ABOUT = ANNOTATIONS | {"deprecated", "example", "readOnly"}
_DROPPED = ("xml", "externalDocs", "discriminator", "nullable", "example", "readOnly", "writeOnly")
"""Keywords that do not constrain a value, or that JSON Schema spells differently."""


class OpenAPIDocument:
    """An OpenAPI document, and which of its parts refer to themselves."""

    def __init__(self, root: Json) -> None:
        self.root = root
        self._reached: dict[str, set[str]] = {}

    def is_recursive(self, reference: str) -> bool:
        """Whether the target of a reference refers to itself, directly or through others."""
        return reference in self._reach(reference)

    def _reach(self, reference: str) -> set[str]:
        if reference not in self._reached:
            found: set[str] = set()
            waiting = list(_references(resolve_pointer(reference, self.root)))
            while waiting:
                if (each := waiting.pop()) not in found:
                    found.add(each)
                    waiting += _references(resolve_pointer(each, self.root))
            self._reached[reference] = found
        return self._reached[reference]


class SchemaConverter:
    """Converts the schemas of one tool, and collects the definitions that they refer to."""

    def __init__(self, document: OpenAPIDocument, note: Callable[[str], None]) -> None:
        self.read_only: dict[str, None] = {}
        """Properties left out because only responses have them."""
        self._document = document
        self._note = note
        self._names: dict[str, str] = {}
        self._n_inlined = 0
        self._depth = 0

    def resolve(self, part: Json) -> Schema | None:
        """A parameter, body or path item, by its reference if it is one.

        None, with a note, where the reference leads nowhere in this document, or in a circle.
        """
        seen: set[str] = set()
        while isinstance(part, dict) and isinstance(reference := part.get("$ref"), str):
            found = None if reference in seen else self._found(reference)
            seen.add(reference)
            if found is None:
                self._note(f"reference {reference} leads nowhere here; left out")
                return None
            part = found
        return part if isinstance(part, dict) else None

    def schema(self, written: Json) -> Schema:
        """A schema as draft 2020-12 writes it; what is not a schema allows any value."""
        if not isinstance(written, dict):
            return {"not": {}} if written is False else {}
        if not isinstance(reference := written.get("$ref"), str):
            return _modern(
                map_subschemas(self._of_requests(written), self.schema, _KEYWORDS), written
            )
        beside = {key: value for key, value in written.items() if key != "$ref"}
        target = self._target(reference)
        if beside.keys() <= _ABOUT:
            return target | self.schema(beside)
        return {"allOf": [target, self.schema(beside)]}

    def definitions(self) -> dict[str, Json]:
        """By name, the definitions that the converted schemas refer to with `#/$defs/…`."""
        made: dict[str, Json] = {}
        while waiting := [each for each in self._names if self._names[each] not in made]:
            # One by one: hundreds may refer to each other in a row.
            made[self._names[waiting[0]]] = self.schema(self._found(waiting[0]))
        return made

    def _target(self, reference: str) -> Schema:
        found = self._found(reference)
        if found is None:
            self._note(f"reference {reference} leads nowhere here; any value is allowed")
            return {}
        has_room = self._depth < _MAX_DEPTH and self._n_inlined < _MAX_INLINED
        if has_room and not self._document.is_recursive(reference):
            return self._inlined(found)
        if reference not in self._names:
            wanted = [*self._names.values(), reference.rsplit("/", 1)[-1]]
            self._names[reference] = sanitize_names(wanted)[-1]
        return {"$ref": f"#/$defs/{self._names[reference]}"}

    def _inlined(self, found: Json) -> Schema:
        self._n_inlined += 1
        self._depth += 1
        schema = self.schema(found)
        self._depth -= 1
        return schema

    def _found(self, reference: str) -> Json:
        return resolve_pointer(reference, self._document.root)

    def _of_requests(self, written: Schema) -> Schema:
        """Without properties that a request does not have."""
        properties = written.get("properties")
        if not isinstance(properties, dict):
            return written
        left_out = [k for k, v in properties.items() if isinstance(v, dict) and v.get("readOnly")]
        self.read_only.update(dict.fromkeys(left_out))
        required = written.get("required")
        kept = {key: value for key, value in properties.items() if key not in left_out}
        if isinstance(required, list):
            written = written | {"required": [name for name in required if name not in left_out]}
        return written | {"properties": kept}


def _references(value: Json) -> Iterator[str]:
    """All references in a part of a document.

    Not by `keywords`: a reference may lead to any part of a document, not only to a schema.
    """
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _modern(schema: Schema, written: Schema) -> Schema:
    """The schema with 3.0's spellings in those of draft 2020-12."""
    modern = {k: v for k, v in schema.items() if k not in _DROPPED and not k.startswith("x-")}
    if "example" in written and "examples" not in modern:
        modern["examples"] = [written["example"]]
    for bound in ("Minimum", "Maximum"):
        if isinstance(is_exclusive := modern.get(f"exclusive{bound}"), bool):
            del modern[f"exclusive{bound}"]
            if is_exclusive and bound.lower() in modern:
                modern[f"exclusive{bound}"] = modern.pop(bound.lower())
    return _or_null(modern) if written.get("nullable") is True else modern


def _or_null(schema: Schema) -> Schema:
    if isinstance(kind := schema.get("type"), str) and not schema.keys() & HOLD_LIST:
        if isinstance(values := schema.get("enum"), list) and None not in values:
            schema = schema | {"enum": [*values, None]}
        return schema | {"type": [kind, "null"]}
    about = {key: value for key, value in schema.items() if key in _ABOUT}
    rest = {key: value for key, value in schema.items() if key not in _ABOUT}
    return about | {"anyOf": [rest, {"type": "null"}]} if rest else schema
