"""A tool's parameters, in whatever form they are written, as one JSON Schema object.

Two forms are read: a JSON Schema, in any spelling that `repair` reads, and the flat form of
xlam-function-calling-60k, `{argument: {"type": "str, optional", "description": …, "default": …}}`.
"""

from calltune.schemas.keyword_values import TYPES, read_names, read_truth
from calltune.schemas.keywords import HOLD_SCHEMAS, Schema
from calltune.schemas.python_types import read_type
from calltune.schemas.repair import ParsedSchema, repair_schema
from calltune.schemas.type_keyword import read_types
from calltune.types import Json

_LIST_OF_SCHEMAS = ("allOf", "anyOf", "oneOf")
_MAP_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_KEYWORDS = HOLD_SCHEMAS | {
    *("type", "required", "title", "description", "enum", "const", "default", "examples"),
    *("format", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
    *("nullable", "additionalProperties", "minProperties", "maxProperties", "strict"),
}


def read_parameters(written: Schema) -> ParsedSchema:
    """The JSON Schema of a tool's arguments, with what was repaired or left out.

    Args:
        written: a JSON Schema, or the flat form `{argument: {type, description, default}}`. In the
            flat form an argument is required if it says so. Where none says so, every argument is
            required but those that have a default or a type that says that they are optional.

    Returns:
        A schema with `type`, `properties` and `required`. `written` is not changed.
    """
    return repair_schema(written if is_schema(written) else _flat(written))


def allows(schema: Schema, argument: str) -> bool:
    """Whether a tool with these parameters takes an argument of this name.

    Also true where that depends on a reference, on alternatives or on patterns.
    """
    if argument in schema["properties"] or schema.get("additionalProperties", False) is not False:
        return True
    elsewhere = ("$ref", "anyOf", "oneOf", "allOf", "patternProperties", "if", "dependentSchemas")
    return any(keyword in schema for keyword in elsewhere)


def is_schema(written: Schema) -> bool:
    """Whether parameters are a JSON Schema rather than the flat form.

    An argument may be called like a keyword; then its value describes an argument.
    """
    kind = written.get("type")
    if isinstance(kind, str | list) and _names_object(kind):
        return True
    if any(isinstance(written.get(key), str) for key in ("$ref", "$schema", "$id")):
        return not any(_describes(value) for key, value in written.items() if key not in _KEYWORDS)
    if any(_is_list_of_schemas(written.get(key)) for key in _LIST_OF_SCHEMAS):
        return True
    if any(_is_map_of_schemas(written.get(key)) for key in _MAP_OF_SCHEMAS):
        return True
    if isinstance(extra := written.get("additionalProperties"), bool) or (
        isinstance(extra, dict) and written.keys() <= _KEYWORDS
    ):
        return True
    if isinstance(kind, str) and kind in TYPES:
        are_types = all(isinstance(v, str) and read_type(v).is_understood for v in written.values())
        is_of_keywords = written.keys() <= _KEYWORDS and not any(map(_describes, written.values()))
        return is_of_keywords and (len(written) == 1 or not are_types)
    # Such as `required` alone: no description of an argument is a list, a number or null.
    are_bare = all(v is None or isinstance(v, list | int | float) for v in written.values())
    return are_bare and written.keys() <= _KEYWORDS


def _names_object(kind: Json) -> bool:
    found = read_types(kind)
    return bool(found.keywords) and found.may_be("object") and not found.schemas


def _is_list_of_schemas(value: Json) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _is_map_of_schemas(value: Json) -> bool:
    """Whether the value of a keyword is schemas by name, and no description of an argument."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(v, dict) and "name" in v for v in value)
    if not isinstance(value, dict) or isinstance(value.get("type"), str):
        return False
    return not isinstance(value.get("description"), str) or isinstance(value.get("type"), dict)


def _describes(value: Json) -> bool:
    """Whether a value describes an argument in the flat form."""
    return isinstance(value, dict) and isinstance(value.get("type"), str | list)


def _flat(written: Schema) -> Schema:
    """The JSON Schema of parameters in the flat form, not repaired yet."""
    arguments = {key: value for key, value in written.items() if not key.startswith("$")}
    listed = read_names(arguments.get("required", ()))
    if listed is None:
        del arguments["required"]
    others = arguments.keys() - {"required"}
    if isinstance(listed, list) and others and all(isinstance(name, str) for name in listed):
        # A list beside the arguments is no argument of that name.
        del arguments["required"]
        required = listed
    else:
        marks = {name: _mark(parameter) for name, parameter in arguments.items()}
        are_marked = any(mark is not None for mark in marks.values())
        required = [
            name
            for name, parameter in arguments.items()
            if (marks[name] if are_marked else not _may_be_left_out(parameter))
        ]
    properties = {name: _without_mark(value) for name, value in arguments.items()}
    return {"type": "object", "properties": properties, "required": required}


def _mark(parameter: Json) -> bool | None:
    """Whether an argument says that it is required; None where it does not say."""
    return read_truth(parameter.get("required")) if isinstance(parameter, dict) else None


def _without_mark(parameter: Json) -> Json:
    if _mark(parameter) is None:
        return parameter
    return {key: value for key, value in parameter.items() if key != "required"}


def _may_be_left_out(parameter: Json) -> bool:
    if isinstance(parameter, str):
        return read_type(parameter).is_optional
    if not isinstance(parameter, dict):
        return parameter is None
    if "default" in parameter or read_truth(parameter.get("optional")) is True:
        return True
    kind = parameter.get("type")
    return isinstance(kind, str) and read_type(kind).is_optional
