"""OpenAPI's schemas as JSON Schema: references inlined, and 3.0's spellings replaced.

Source: the Schema Object of OpenAPI 3.0 (a dialect of its own: `nullable`, boolean
`exclusiveMinimum`, `example`) and 3.1 (JSON Schema draft 2020-12), https://spec.openapis.org/oas.
"""

from collections.abc import Iterator

from calltune.schemas.dialects import is_nullable, modernized, or_null
from calltune.schemas.keywords import ANNOTATIONS, HOLD_SCHEMAS, Schema, map_subschemas
from calltune.schemas.names import sanitize_names
from calltune.schemas.references import resolve_pointer
from calltune.schemas.remarks import Noting
from calltune.types import Json

_MAX_INLINED = 2_000
"""References inlined in one tool; later ones stay references, or the tool grows without end."""
_MAX_DEPTH = 12
"""How many references are inlined within each other."""
_KEYWORDS = HOLD_SCHEMAS - {"additionalItems", "definitions"}
"""Those of draft 2020-12: older spellings mean nothing in OpenAPI."""
_ABOUT = ANNOTATIONS | {"deprecated", "example", "readOnly"}
_DROPPED = (
    # References are pointers already, which a base of its own would lead astray.
    *("$id", "$anchor", "$dynamicAnchor", "$schema"),
    *("xml", "externalDocs", "discriminator", "nullable", "example", "readOnly", "writeOnly"),
)
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

    def __init__(self, document: OpenAPIDocument, note: Noting) -> None:
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
        return self._resolved(part, keeps_beside=False)

    def resolve_beside(self, part: Json) -> Schema | None:
        """As `resolve`, with what stands beside a reference kept: a path item's own operations."""
        return self._resolved(part, keeps_beside=True)

    def _resolved(self, part: Json, keeps_beside: bool) -> Schema | None:
        seen: set[str] = set()
        beside: Schema = {}
        while isinstance(part, dict) and isinstance(reference := part.get("$ref"), str):
            found = None if reference in seen else self._found(reference)
            seen.add(reference)
            if found is None:
                kind = "references that lead nowhere here are left out"
                text = f"reference {reference} leads nowhere here; left out"
                self._note(text, kind, is_loss=True)
                return beside or None
            if keeps_beside:
                beside = {key: value for key, value in part.items() if key != "$ref"} | beside
            part = found
        return part | beside if isinstance(part, dict) else None

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
            kind = "references that lead nowhere here; any value is allowed"
            text = f"reference {reference} leads nowhere here; any value is allowed"
            self._note(text, kind, is_loss=True)
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
    modern = modernized(modern)
    return or_null(modern) if is_nullable(written) else modern
