"""OpenAPI 3 documents as a tool source: each operation is a tool.

An operation's parameters and JSON body become one object of arguments: the members of the body
stand beside the parameters. The body stays whole, as the argument `body`, where it is not a plain
object, has a member of a parameter's name, or is optional although it has required members.

Source: OpenAPI 3.0 and 3.1, https://spec.openapis.org/oas; documents are JSON or YAML.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from calltune.errors import DataError
from calltune.files import read_json
from calltune.schemas.keywords import Schema
from calltune.schemas.openapi_dialect import OpenAPIDocument, SchemaConverter
from calltune.schemas.tools import UnusableRow, check_json
from calltune.tools.toolset import Note, ToolDraft, Toolset, build_toolset
from calltune.types import Json

_YAML = (".yaml", ".yml")
_BOOLEAN = re.compile("(true|True|TRUE|false|False|FALSE)$")
_MAX_VALUES = 2_000_000
"""More than any document has; nested aliases expand a few lines to more."""


def read_document(path: Path) -> Json:
    """The document in a `.yaml` or `.yml` file, or in a JSON file of any other name.

    Dates and words such as `on` and `no` in YAML stay text, as in YAML 1.2.

    Raises:
        DataError: no such file, neither JSON nor YAML, or too many values.
    """
    try:
        return check_json(_plain_yaml(path) if path.suffix.lower() in _YAML else read_json(path))
    except UnusableRow as fault:
        raise DataError(f"{path} cannot be read ({fault}); fix it") from None


def _plain_yaml(path: Path) -> Json:
    import yaml

    if not path.is_file():
        raise DataError(f"No file {path}; check the path")
    try:
        return _YAMLToJSON().value(yaml.load(path.read_text("utf-8-sig"), _loader()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fault = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not YAML ({fault}); fix it") from None


def _loader() -> type[Any]:
    import yaml

    # The one in C is ten times as fast where PyYAML was built with it.
    base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """YAML 1.2 in that dates and plain words are text."""

        yaml_implicit_resolvers = {
            first: [
                (tag, _BOOLEAN if tag.endswith(":bool") else rule)
                for tag, rule in rules
                if not tag.endswith(":timestamp")
            ]
            for first, rules in base.yaml_implicit_resolvers.items()
        }

    return Loader


class _YAMLToJSON:
    """Converts YAML's values to JSON's, and counts them."""

    def __init__(self) -> None:
        self._n_values = 0

    def value(self, found: Any) -> Json:
        """The value with text as keys, and with text for what JSON does not have."""
        self._n_values += 1
        if self._n_values > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES:,} values")
        if isinstance(found, dict):
            return {str(key): self.value(item) for key, item in found.items()}
        if isinstance(found, list | tuple | set):
            return [self.value(item) for item in found]
        is_json = found is None or isinstance(found, str | int | float | bool)
        return found if is_json else str(found)


Notes = Callable[[str], None]
_HEADERS_OF_THE_CLIENT = ("accept", "content-type", "authorization")
"""Header parameters that OpenAPI says are to be ignored."""
_JSON = re.compile(r"(application/([\w.+-]+\+)?json|\*/\*)\s*(;.*)?", re.IGNORECASE)
_OF_AN_OBJECT = {"type", "properties", "required", "additionalProperties"}
_ABOUT = {"title", "description", "examples", "deprecated"}


def parameters_schema(written: list[Json], converter: SchemaConverter, note: Notes) -> Schema:
    """The schema of an object of the parameters.

    Args:
        written: lists of parameters; one in a later list replaces its namesake in an earlier one.
        converter: converts their schemas.
        note: is given what is left out, or renamed.
    """
    found: dict[tuple[str, str], Schema] = {}
    for each in (each for listed in written if isinstance(listed, list) for each in listed):
        parameter = converter.resolve(each)
        if parameter is None:
            continue
        name, place = parameter.get("name"), parameter.get("in")
        if isinstance(name, str) and isinstance(place, str):
            found[name, place] = parameter
    whole: Schema = {"type": "object", "properties": {}, "required": []}
    for (name, place), parameter in found.items():
        if _is_taken(name, place, note):
            whole = _with_parameter(whole, name, parameter, converter, note)
    return whole


def add_body(
    written: Json, parameters: Schema, converter: SchemaConverter, note: Notes
) -> Schema | None:
    """`parameters` with the body added; None, with a note, where a required body is not JSON."""
    if written is None or (body := converter.resolve(written)) is None:
        return parameters
    must_be = body.get("required") is True
    media = _json_of(body.get("content"))
    if media is None:
        content = body.get("content")
        kinds = ", ".join(content) if content and isinstance(content, dict) else "no type"
        note(f"{'left out: ' if must_be else ''}its body is not JSON ({kinds})")
        return None if must_be else parameters
    schema = _flat(converter.schema(media.get("schema", {})))
    if _fits_beside(schema, parameters, must_be):
        return _beside(parameters, schema)
    if isinstance(text := body.get("description"), str):
        schema = {**schema, "description": text}
    return _with_argument(parameters, _free("body", "request", parameters), schema, must_be)


def _is_taken(name: str, place: str, note: Notes) -> bool:
    if place == "cookie":
        note(f"cookie {name} is left out: the application keeps cookies")
    elif place == "header" and name.lower() in _HEADERS_OF_THE_CLIENT:
        note(f"header {name} is left out: the application sets it")
    elif place not in ("path", "query", "header"):
        note(f"{name} is left out: {place} is not a place for a parameter")
    else:
        return True
    return False


def _with_parameter(
    whole: Schema, name: str, parameter: Schema, converter: SchemaConverter, note: Notes
) -> Schema:
    place = parameter["in"]
    media = _json_of(parameter.get("content"))
    if "schema" not in parameter and media is None:
        note(f"{place} parameter {name} has no valid JSON Schema; any value is allowed")
    schema = converter.schema(parameter.get("schema", (media or {}).get("schema", {})))
    if isinstance(text := parameter.get("description"), str):
        schema = {**schema, "description": text}
    if "example" in parameter and "examples" not in schema:
        schema = {**schema, "examples": [parameter["example"]]}
    called = _free(name, place, whole)
    if called != name:
        note(f"{place} parameter {name} is called {called}: another one has its name")
    must_be = place == "path" or parameter.get("required") is True
    return _with_argument(whole, called, schema, must_be)


def _free(name: str, place: str, whole: Schema) -> str:
    while name in whole["properties"]:
        name = f"{name}_{place}"
    return name


def _with_argument(whole: Schema, name: str, schema: Schema, must_be: bool) -> Schema:
    required = [*whole["required"], name] if must_be else whole["required"]
    return {
        **whole,
        "properties": {**whole["properties"], name: schema},
        "required": required,
    }


def _json_of(content: Json) -> Schema | None:
    """The first of the media types that is JSON."""
    for kind, media in (content if isinstance(content, dict) else {}).items():
        if _JSON.fullmatch(kind.strip()):
            return media if isinstance(media, dict) else {}
    return None


def _flat(schema: Schema) -> Schema:
    """A plain object made of `allOf` plain objects without a common member, else the schema.

    It recurses on its own: only `allOf` is looked at, and only objects are joined.
    """
    parts = schema.get("allOf")
    if not isinstance(parts, list) or schema.keys() - {"allOf"} - _OF_AN_OBJECT - _ABOUT:
        return schema
    about = {key: schema[key] for key in schema.keys() & _ABOUT}
    own = {key: schema[key] for key in schema if key in _OF_AN_OBJECT}
    objects = [part for part in (*map(_flat, parts), own) if part]
    if not all(_is_plain_object(part) and _is_open(part) for part in objects):
        return schema
    members = [pair for part in objects for pair in part.get("properties", {}).items()]
    properties = dict(members)
    if len(properties) < len(members):
        return schema
    required = [name for part in objects for name in part.get("required", [])]
    return {**about, "type": "object", "properties": properties, "required": required}


def _is_open(schema: Schema) -> bool:
    return schema.get("additionalProperties", True) is True


def _is_plain_object(schema: Schema) -> bool:
    """Whether the schema says nothing but which members an object has."""
    return (
        not schema.keys() - _OF_AN_OBJECT - _ABOUT
        and schema.get("type", "object") == "object"
        and schema.get("additionalProperties") in (None, True, False)
        and isinstance(schema.get("properties", {}), dict)
        and isinstance(schema.get("required", []), list)
    )


def _fits_beside(schema: Schema, parameters: Schema, must_be: bool) -> bool:
    return (
        _is_plain_object(schema)
        and "properties" in schema
        and not schema["properties"].keys() & parameters["properties"].keys()
        and (must_be or not schema.get("required"))
    )


def _beside(parameters: Schema, schema: Schema) -> Schema:
    return {
        **parameters,
        "properties": {**parameters["properties"], **schema["properties"]},
        "required": [*parameters["required"], *schema.get("required", [])],
    }


METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")


class Operation(NamedTuple):
    """One operation of a document."""

    method: str
    path: str
    written: Schema
    shared: Json
    """The parameters of all operations of its path."""

    @property
    def name(self) -> str:
        """Its operationId, or method and path."""
        own = self.written.get("operationId")
        return own if isinstance(own, str) and own else f"{self.method} {self.path}"

    @property
    def description(self) -> str:
        """Its summary and description."""
        texts = [self.written.get(key) for key in ("summary", "description")]
        said = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
        return "\n\n".join(dict.fromkeys(said))


def from_openapi(source: str | Path | Schema) -> Toolset:
    """The tools of a document's operations; a path, or JSON that is parsed already.

    Path, query and header parameters and the members of the JSON body are one object. Local
    references are inlined, recursive ones stay in `$defs`. Left out, with a note: cookies, bodies
    that are not JSON, references to other documents, callbacks and webhooks.

    Raises:
        DataError: no such file, neither JSON nor YAML, another version of OpenAPI, no operations.
    """
    name = str(source) if isinstance(source, str | Path) else "The document"
    root = read_document(Path(source)) if isinstance(source, str | Path) else source
    _check_version(root, name)
    notes: list[Note] = []
    document = OpenAPIDocument(root)
    drafts: list[ToolDraft] = []
    try:
        for operation in _operations(document, notes):
            drafts += _drafts(operation, document, notes)
    except RecursionError:
        raise DataError(f"{name} is nested too deep; give a simpler one") from None
    if not drafts and not notes:
        raise DataError(f"{name} has no operations under paths; give one that has")
    return build_toolset(drafts, notes)


def _check_version(root: Json, name: str) -> None:
    if not isinstance(root, dict) or not {"openapi", "swagger"} & root.keys():
        raise DataError(f"{name} is not an OpenAPI document; it has no member openapi")
    if not str(version := root.get("openapi")).startswith("3."):
        found = f"Swagger {root['swagger']}" if "swagger" in root else f"OpenAPI {version}"
        raise DataError(f"{name} is {found}; convert it to OpenAPI 3")


def _operations(document: OpenAPIDocument, notes: list[Note]) -> Iterator[Operation]:
    if document.root.get("webhooks"):
        notes.append(Note("", "webhooks are left out: the server calls them"))
    paths = document.root.get("paths")
    for path, written in (paths if isinstance(paths, dict) else {}).items():
        if not str(path).startswith("/"):
            continue
        item = SchemaConverter(document, _noting(notes, path)).resolve(written) or {}
        for method, operation in item.items():
            if method in METHODS and isinstance(operation, dict):
                yield Operation(method, path, operation, item.get("parameters"))


def _drafts(operation: Operation, document: OpenAPIDocument, notes: list[Note]) -> list[ToolDraft]:
    """The operation as a tool; none where it requires what no call can give."""
    note = _noting(notes, operation.name)
    converter = SchemaConverter(document, note)
    if operation.written.get("callbacks"):
        note("callbacks are left out: the server calls them")
    listed = [operation.shared, operation.written.get("parameters")]
    parameters = parameters_schema(listed, converter, note)
    whole = add_body(operation.written.get("requestBody"), parameters, converter, note)
    if whole is None:
        return []
    if definitions := converter.definitions():
        whole = whole | {"$defs": definitions}
    if converter.read_only:
        note(f"only responses have {', '.join(converter.read_only)}; left out")
    return [ToolDraft(operation.name, operation.description, whole)]


def _noting(notes: list[Note], name: str) -> Callable[[str], None]:
    return lambda text: notes.append(Note(name, text))
