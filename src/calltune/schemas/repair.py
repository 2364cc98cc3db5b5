"""Repair of JSON Schemas: what people write, as a schema that draft 2020-12 accepts.

A fault costs the keyword where it stands, and each kind of fault gives one remark. Law: what the
sound schema accepted the repaired one accepts, and it refuses what the other keywords refuse. So a
keyword that would refuse more once another is gone goes as well (see `loosening`).

It descends on its own: it carries the path, which references and remarks need.
"""

from collections.abc import Iterator
from typing import NamedTuple

from calltune.schemas.dialects import (
    NAMES,
    NULLABLE,
    declared_draft,
    ignored_beside_reference,
    is_nullable,
    modern_path,
    modernized,
    or_null,
)
from calltune.schemas.flatten import with_root_inlined
from calltune.schemas.keyword_values import NO_VALUE, can_compile, read_keyword, read_truth, type_of
from calltune.schemas.keywords import (
    HOLD_LIST,
    HOLD_MAP,
    HOLD_ONE,
    HOLD_SCHEMAS,
    SAY_NOTHING,
    Schema,
)
from calltune.schemas.loosening import weakened_keywords
from calltune.schemas.names import sanitize_names
from calltune.schemas.references import (
    Path,
    ReferenceIndex,
    is_place_of_schema,
    part_at,
    place,
    references_in,
    resolve_pointer,
    to_reference,
    without_references,
)
from calltune.schemas.remarks import Remark, RemarkList
from calltune.schemas.required import with_marked_required, with_properties_for_required
from calltune.schemas.type_keyword import forgets_null, read_types
from calltune.types import Json

MAX_SCHEMA_DEPTH = 64
"""Schemas nested deeper than this allow any value, with a remark."""
_MAY_BE_NULL = frozenset({"const", "default", "example", "x-example"})
"""Keywords for which null is a value like any other."""
_CONDITIONS = (("if",), ("then",), ("else",), ("not",))
_CLOSING = {
    "properties": ("additionalProperties", "unevaluatedProperties"),
    "patternProperties": ("additionalProperties", "unevaluatedProperties"),
    "prefixItems": ("items", "unevaluatedItems"),
    "minContains": ("contains", "maxContains"),
    "if": ("then", "else"),
}
"""By keyword, those that would refuse more, or mean nothing, without it."""


class ParsedSchema(NamedTuple):
    """A schema that draft 2020-12 accepts, and what was repaired or left out in it."""

    schema: Schema
    remarks: tuple[Remark, ...]


def repair_schema(written: Schema) -> ParsedSchema:
    """A tool's parameters as the schema of an object, with `type`, `properties` and `required`.

    References become pointers within the schema; the identifiers that they needed are left out.
    `written` is not changed.
    """
    said_of_the_root = {"type", *NULLABLE}
    schema, remarks = repair_any_schema(
        {key: value for key, value in written.items() if key not in said_of_the_root}
    )
    found = RemarkList()
    kinds = read_types(written.get("type") or "object")
    if not kinds.may_be("object"):
        kind = "parameters have another type than object, which is ignored"
        found.add(kind, str(written["type"])[:60], is_loss=True)
    found.extend(remarks)
    first: Schema = {"type": "object", "properties": {}, "required": []}
    whole = with_properties_for_required(with_root_inlined(first | schema), found, ())
    # In this order, with type first whatever a definition put there.
    return ParsedSchema(first | whole | {"type": "object"}, found.all())


def repair_any_schema(written: Json) -> ParsedSchema:
    """A schema of any type of value, such as an answer's, repaired."""
    loose: set[Path] = set()
    while True:
        repair = _Repair(written, frozenset(loose))
        schema = repair.whole()
        # Where something was lost, another pass leaves out what must not be without it.
        if repair.loose <= loose:
            return ParsedSchema(schema, repair.remarks.all())
        loose |= repair.loose


class _Repair:
    """One pass over a schema."""

    def __init__(self, root: Json, loose: frozenset[Path]) -> None:
        self.remarks = RemarkList()
        self.loose: set[Path] = set()
        """The paths of keywords that are gone, or accept more than they did."""
        self._root = root
        self._known_loose = loose
        self._draft = declared_draft(root)
        self._index = ReferenceIndex(root, self._draft)
        self._definitions: dict[Path, str] = {}
        """By path outside of all schemas, the name of the definition that is made of its part."""

    def whole(self) -> Schema:
        schema = self._schema(self._root, (), 0)
        made: Schema = {}
        while waiting := [
            path for path in self._definitions if self._definitions[path] not in made
        ]:
            for path in waiting:
                part = self._schema(part_at(self._root, path), path, 1)
                made[self._definitions[path]] = part
        if made:
            elsewhere = {path[0] for path in self._definitions}
            kept = {k: v for k, v in schema.items() if k not in elsewhere or k in HOLD_SCHEMAS}
            schema = kept | {"$defs": schema.get("$defs", {}) | made}
        return self._without_dangling(schema)

    def _schema(self, written: Json, path: Path, depth: int) -> Schema:
        if isinstance(written, bool):
            return {} if written else {"not": {}}
        if isinstance(written, str) or (
            isinstance(written, list) and written and all(isinstance(e, str) for e in written)
        ):
            written = {"type": written}
        if not isinstance(written, dict):
            what = "null" if written is None else str(written)[:60]
            self._lose(f"schema not understood: {what}", path, is_loss=written is not None)
            return {}
        if depth > MAX_SCHEMA_DEPTH:
            self._lose("schema nested too deeply", path)
            return {}
        return self._object(written, path, depth)

    def _object(self, written: Schema, path: Path, depth: int) -> Schema:
        ignored = ignored_beside_reference(written, self._draft)
        if ignored:
            kind = f"keywords beside $ref, which draft-0{self._draft} ignores, are left out"
            self.remarks.add(kind, place((*path, ignored[0])))
        weakened = self._weakened(written, path)
        modern = modernized(written)
        schema: Schema = {}
        for key, value in modern.items():
            if key in ignored or key in weakened or key in NULLABLE or key == "optional":
                continue
            found = self._keyword(key, value, (*path, key), depth)
            if key == "type" and found.keys() & modern.keys() & {"anyOf", "enum"}:
                # A type such as `int | str` brings keywords that are written as well.
                found = {"allOf": [found]}
            elif key == "allOf" and "allOf" in schema:
                found = {"allOf": [*schema["allOf"], *found.get("allOf", ())]}
            schema |= found if key != "type" else found | schema
        if (
            "oneOf" in weakened
            and (parts := read_keyword("oneOf", modern["oneOf"])) is not NO_VALUE
        ):
            any_of: Schema = {"anyOf": self._parts("oneOf", parts, (*path, "oneOf"), depth)}
            schema |= {"allOf": [*schema.get("allOf", ()), any_of]} if "anyOf" in schema else any_of
        for keyword in _CLOSING.keys() & {str(where[-1]) for where in self._lost_at(path)}:
            schema = self._opened(schema, keyword, path)
        schema = with_marked_required(schema, modern.get("properties"), self.remarks, path)
        schema = self._with_types_of_values(schema, path)
        if forgets_null(written, schema) and None not in schema["enum"]:
            schema = schema | {"enum": [*schema["enum"], None]}
        if is_nullable(written):
            schema = or_null(schema)
        is_part = path[-2:-1] in (("allOf",), ("dependentSchemas",)) or path[-1:] in _CONDITIONS
        # A part of a whole need not say what it requires, nor is the root done yet.
        return (
            schema
            if is_part or not path
            else with_properties_for_required(schema, self.remarks, path)
        )

    def _keyword(self, key: str, value: Json, path: Path, depth: int) -> Schema:
        """The keyword as it stays: none where it is left out, several where a type brings them."""
        if value is None and key not in _MAY_BE_NULL:
            kind = "null keywords are left out"
            self._lose(kind, path, is_loss=False, is_loosening=key not in SAY_NOTHING)
            return {}
        if key in NAMES:
            return self._reference(key, value, path) if key.endswith("Ref") else {}
        if key == "type":
            return self._types(value, path, depth)
        if key == "required" and path[-3:-2] == ("properties",) and read_truth(value) is not None:
            # The object that has the property reads it.
            return {}
        read = read_keyword(key, value)
        if read is NO_VALUE:
            does_say = key not in SAY_NOTHING
            kind = f"{key} is not valid JSON Schema and is left out"
            self._lose(kind, path, is_loss=does_say, is_loosening=does_say)
            return {}
        if isinstance(value, str) and not isinstance(read, str):
            self.remarks.add("numbers and truths in quotes are read as what they say", place(path))
        if key == "required" and isinstance(value, list) and len(read) < len(value):
            self.remarks.add("names in required that are twice, or no text", place(path))
        if key == "$ref":
            return self._reference(key, value, path)
        parts = self._parts(key, read, path, depth)
        # Names are strings, whatever is said.
        is_idle = key == "propertyNames" and parts in (True, {}, {"type": "string"})
        return {} if is_idle else {key: parts}

    def _parts(self, key: str, value: Json, path: Path, depth: int) -> Json:
        """The schemas under a keyword repaired; other values as they are."""
        if key in HOLD_ONE:
            return value if isinstance(value, bool) else self._schema(value, path, depth + 1)
        if key in HOLD_LIST:
            return [self._schema(each, (*path, i), depth + 1) for i, each in enumerate(value)]
        if key in HOLD_MAP:
            return {
                name: self._schema(each, (*path, name), depth + 1)
                for name, each in self._sound_names(key, value, path)
            }
        return value

    def _sound_names(self, key: str, value: Schema, path: Path) -> Iterator[tuple[str, Json]]:
        for name, each in value.items():
            if key == "patternProperties" and not can_compile(name):
                self._lose("patternProperties with an invalid pattern", (*path, name))
            else:
                yield name, each

    def _types(self, written: Json, path: Path, depth: int) -> Schema:
        found = read_types(written)
        for unknown in found.not_understood:
            self._lose(f"type not understood: {unknown}", path)
        if not found.schemas:
            return found.keywords
        # Draft 3 had schemas among the types.
        kinds = [self._schema(each, (*path, i), depth + 1) for i, each in found.schemas]
        return {"anyOf": [*([found.keywords] if found.keywords else []), *kinds]}

    def _reference(self, key: str, value: Json, path: Path) -> Schema:
        holder = path[:-1]
        target = self._index.follow(value, holder) if isinstance(value, str) else None
        if key == "$dynamicRef" and isinstance(value, str):
            # With one anchor of the name it is an ordinary reference.
            many = len(self._index.dynamic.get(value.partition("#")[2], ())) > 1
            target = None if many else target
        if target is None or target == holder:
            self._lose(
                f"{key} that leads nowhere is left out",
                path,
                example=f"{str(value)[:100]} in {place(holder) or 'the root'}",
            )
            return {}
        return {"$ref": self._pointer(target)}

    def _pointer(self, target: Path) -> str:
        if is_place_of_schema(target):
            return to_reference(modern_path(target, self._root))
        if target not in self._definitions:
            taken = self._root.get("$defs") if isinstance(self._root, dict) else None
            names = [*(taken if isinstance(taken, dict) else ()), *self._definitions.values()]
            self._definitions[target] = sanitize_names([*names, str(target[-1])])[-1]
        return to_reference(("$defs", self._definitions[target]))

    def _weakened(self, written: Schema, path: Path) -> list[str]:
        """The keywords that must go since others within them are gone."""
        found = weakened_keywords(written, path, self._known_loose, self._root, self._index)
        for keyword in found:
            what = "read as anyOf" if keyword == "oneOf" else "left out"
            self._lose(f"{keyword} is {what} since a keyword within it is gone", (*path, keyword))
        return found

    def _opened(self, schema: Schema, keyword: str, path: Path) -> Schema:
        """The schema without what would refuse more now that a keyword is gone."""
        closing = [key for key in _CLOSING[keyword] if key in schema]
        for key in closing:
            self.loose.add((*path, key))
        return {key: value for key, value in schema.items() if key not in closing}

    def _with_types_of_values(self, schema: Schema, path: Path) -> Schema:
        """With the types of the values that `enum` or `const` lists against its type."""
        kinds = schema.get("type")
        values = schema.get("enum", [schema["const"]] if "const" in schema else [])
        if kinds is None or not values:
            return schema
        listed = [kinds] if isinstance(kinds, str) else kinds
        admitted = {*listed, *(("integer",) if "number" in listed else ())}
        used = list(dict.fromkeys(map(type_of, values)))
        missing = [kind for kind in used if kind not in admitted]
        if not missing:
            return schema
        self.loose.add((*path, "type"))
        keyword = "enum" if "enum" in schema else "const"
        self.remarks.add(f"values of {keyword} are of another type than type", place(path))
        fitting = [
            kind for kind in listed if kind in used or (kind == "number" and "integer" in used)
        ]
        new = [*fitting, *missing]
        return schema | {"type": new[0] if len(new) == 1 else new}

    def _without_dangling(self, schema: Schema) -> Schema:
        """Without references to what is not there any more."""
        lost = {p for p, to in references_in(schema) if resolve_pointer(to, schema) is None}
        if not lost:
            return schema
        for path in lost:
            reference = part_at(schema, path)["$ref"]
            example = f"{reference} in {place(path) or 'the root'}"
            self._lose("$ref that leads nowhere is left out", (*path, "$ref"), example=example)
        sound: Schema = without_references(schema, lost, ())
        return sound

    def _lose(
        self,
        kind: str,
        path: Path,
        *,
        example: str = "",
        is_loss: bool = True,
        is_loosening: bool = True,
    ) -> None:
        if is_loosening:
            self.loose.add(path)
        self.remarks.add(kind, example or place(path), is_loss=is_loss)

    def _lost_at(self, path: Path) -> Iterator[Path]:
        """The keywords lost directly in the schema at a path, and patterns of its properties."""
        for where in self.loose:
            if where and where[:-1] == path:
                yield where
            elif where[:-2] == path and where[-2:-1] == ("patternProperties",):
                yield where[:-1]
