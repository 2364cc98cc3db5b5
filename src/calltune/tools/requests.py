"""An operation's parameters and JSON body as the schema of one object.

The members of the body stand beside the parameters. The body stays whole, as the argument `body`,
where it is no plain object, has a member of a parameter's name, or may be left out although it has
members that it must have.
"""

import re
from collections.abc import Callable

from calltune.calls import Json
from calltune.tools.references import References, Schema

Notes = Callable[[str], None]
_APPLICATION_S_OWN = ("accept", "content-type", "authorization")
"""Headers that OpenAPI says are not described as parameters."""
_JSON = re.compile(r"(application/([\w.+-]+\+)?json|\*/\*)\s*(;.*)?", re.IGNORECASE)
_OF_AN_OBJECT = {"type", "properties", "required", "additionalProperties"}
_ABOUT = {"title", "description", "examples", "deprecated"}


def read_parameters(written: list[Json], references: References, note: Notes) -> Schema:
    """The schema of an object of the parameters; in `written`, later lists beat earlier ones."""
    found: dict[tuple[str, str], Schema] = {}
    for each in (each for listed in written if isinstance(listed, list) for each in listed):
        parameter = references.followed(each)
        if parameter is None:
            continue
        name, place = parameter.get("name"), parameter.get("in")
        if isinstance(name, str) and isinstance(place, str):
            found[name, place] = parameter
    whole: Schema = {"type": "object", "properties": {}, "required": []}
    for (name, place), parameter in found.items():
        if _is_taken(name, place, note):
            whole = _with_parameter(whole, name, parameter, references, note)
    return whole


def read_body(
    written: Json, parameters: Schema, references: References, note: Notes
) -> Schema | None:
    """`parameters` with the body added; None, noted, where it must be and cannot be given."""
    if written is None or (body := references.followed(written)) is None:
        return parameters
    must_be = body.get("required") is True
    media = _json_of(body.get("content"))
    if media is None:
        content = body.get("content")
        kinds = ", ".join(content) if content and isinstance(content, dict) else "no type"
        note(f"{'left out: ' if must_be else ''}its body is not JSON ({kinds})")
        return None if must_be else parameters
    schema = _flat(references.schema(media.get("schema", {})))
    if _fits_beside(schema, parameters, must_be):
        return _beside(parameters, schema)
    if isinstance(text := body.get("description"), str):
        schema = {**schema, "description": text}
    return _with_argument(parameters, _free("body", "request", parameters), schema, must_be)


def _is_taken(name: str, place: str, note: Notes) -> bool:
    if place == "cookie":
        note(f"cookie {name} is left out: the application keeps cookies")
    elif place == "header" and name.lower() in _APPLICATION_S_OWN:
        note(f"header {name} is left out: the application sets it")
    elif place not in ("path", "query", "header"):
        note(f"{name} is left out: {place} is no place for a parameter")
    else:
        return True
    return False


def _with_parameter(
    whole: Schema, name: str, parameter: Schema, references: References, note: Notes
) -> Schema:
    place = parameter["in"]
    media = _json_of(parameter.get("content"))
    if "schema" not in parameter and media is None:
        note(f"{place} parameter {name} has no JSON Schema; any value is allowed")
    schema = references.schema(parameter.get("schema", (media or {}).get("schema", {})))
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
    """A plain object made of `allOf` plain objects, where they have no member in common."""
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
    """Whether its members are all that the schema says."""
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
