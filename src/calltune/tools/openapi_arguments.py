"""An operation's parameters and body as one object of arguments.

The members of the body stand beside the parameters. The body stays whole, as the argument `body`,
where it is not a plain object, has a member of a parameter's name, or is optional although it has
required members. The fields of a form are members like those of a JSON object.

Source: OpenAPI 3.0 and 3.1, Parameter Object, Request Body Object and Media Type Object.
"""

import re

from calltune.schemas.flatten import flattened, is_plain_object
from calltune.schemas.keywords import Schema
from calltune.schemas.openapi_dialect import SchemaConverter
from calltune.schemas.remarks import Noting
from calltune.types import Json

_HEADERS_OF_THE_CLIENT = ("accept", "content-type", "authorization")
"""Header parameters that OpenAPI says are to be ignored."""
_JSON = re.compile(r"(application/([\w.+-]+\+)?json|\*/\*)\s*(;.*)?", re.IGNORECASE)
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def parameters_schema(written: list[Json], converter: SchemaConverter, note: Noting) -> Schema:
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
    written: Json, parameters: Schema, converter: SchemaConverter, note: Noting
) -> Schema | None:
    """`parameters` with the body added; None, with a note, where a required body has no form."""
    if written is None or (body := converter.resolve(written)) is None:
        return parameters
    must_be = body.get("required") is True
    content = body.get("content")
    media = _json_of(content)
    if media is None:
        media = _form_of(content)
    if media is None:
        kinds = ", ".join(content) if content and isinstance(content, dict) else "no type"
        kind = f"{'left out: ' if must_be else ''}its body is not JSON"
        note(f"{kind} ({kinds})", kind)
        return None if must_be else parameters
    schema = flattened(converter.schema(media.get("schema", {})))
    if _fits_beside(schema, parameters, must_be):
        return _beside(parameters, schema)
    if isinstance(text := body.get("description"), str):
        schema = {**schema, "description": text}
    return _with_argument(parameters, _free("body", "request", parameters), schema, must_be)


def _is_taken(name: str, place: str, note: Noting) -> bool:
    if place == "cookie":
        kind = "cookies are left out: the application keeps them"
        note(f"cookie {name} is left out: the application keeps cookies", kind)
    elif place == "header" and name.lower() in _HEADERS_OF_THE_CLIENT:
        kind = "headers that the application sets are left out"
        note(f"header {name} is left out: the application sets it", kind)
    elif place not in ("path", "query", "header"):
        note(f"{name} is left out: {place} is not a place for a parameter")
    else:
        return True
    return False


def _with_parameter(
    whole: Schema, name: str, parameter: Schema, converter: SchemaConverter, note: Noting
) -> Schema:
    place = parameter["in"]
    media = _json_of(parameter.get("content"))
    if "schema" not in parameter and media is None:
        kind = "parameters without a valid JSON Schema; any value is allowed"
        said = f"{place} parameter {name} has no valid JSON Schema; any value is allowed"
        note(said, kind, is_loss=True)
    schema = converter.schema(parameter.get("schema", (media or {}).get("schema", {})))
    if isinstance(text := parameter.get("description"), str):
        schema = {**schema, "description": text}
    if "example" in parameter and "examples" not in schema:
        schema = {**schema, "examples": [parameter["example"]]}
    called = _free(name, place, whole)
    if called != name:
        kind = "parameters are called otherwise: another one has their name"
        note(f"{place} parameter {name} is called {called}: another one has its name", kind)
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


def _form_of(content: Json) -> Schema | None:
    """The first of the media types that is a form, or plain text, and says what is in it."""
    listed = content if isinstance(content, dict) else {}
    kinds = {kind.partition(";")[0].strip().lower(): media for kind, media in listed.items()}
    for kind in (*_FORMS, *(each for each in kinds if each.startswith("text/"))):
        if isinstance(media := kinds.get(kind), dict) and isinstance(media.get("schema"), dict):
            return media
    return None


def _fits_beside(schema: Schema, parameters: Schema, must_be: bool) -> bool:
    return (
        is_plain_object(schema)
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
