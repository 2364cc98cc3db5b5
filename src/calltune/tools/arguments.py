"""Arguments with type hints -> JSON Schema, by pydantic."""

import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from calltune.calls import Json

if TYPE_CHECKING:
    from pydantic.json_schema import GenerateJsonSchema


class Argument(NamedTuple):
    """One argument of a function."""

    name: str
    hint: Any
    default: Any
    """`inspect.Parameter.empty` where there is none."""
    description: str

    @property
    def is_required(self) -> bool:
        """Whether a call must give it."""
        return self.default is inspect.Parameter.empty


class Schemas(NamedTuple):
    """The JSON Schemas of a function's arguments."""

    properties: dict[str, Json]
    definitions: dict[str, Json]
    """What `properties` refer to with `#/$defs/…`."""
    refused: dict[str, str]
    """By the name of an argument that has no JSON Schema, why not; it is not in `properties`."""


def read_schemas(arguments: list[Argument], note: Callable[[str], None]) -> Schemas:
    """The schemas of the values that pydantic would take for the hints."""
    from pydantic import PydanticUserError, TypeAdapter

    adapters: dict[str, TypeAdapter[Any]] = {}
    refused: dict[str, str] = {}
    for argument in arguments:
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(argument.hint)
            adapter.json_schema(schema_generator=_generator(argument.name, note))
        except (PydanticUserError, TypeError, NameError, RecursionError) as error:
            refused[argument.name] = _first_sentence(str(error))
        else:
            adapters[argument.name] = adapter
    schemas, whole = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in adapters.items()],
        # What it warns of was noted above.
        schema_generator=_generator("", lambda _: None),
    )
    properties = {
        each.name: _described(schemas[each.name, "validation"], each, note)
        for each in arguments
        if each.name in adapters
    }
    return Schemas(properties, _untitled(whole.get("$defs", {})), refused)


def _described(schema: dict[str, Json], argument: Argument, note: Callable[[str], None]) -> Json:
    described = {"description": argument.description} if argument.description else {}
    if argument.is_required:
        return schema | described
    try:
        default = _as_json(argument.default)
    except (TypeError, ValueError):
        note(f"the default of {argument.name} is no JSON and is left out")
        return schema | described
    return schema | described | {"default": default}


def _as_json(value: Any) -> Json:
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        plain = to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise TypeError(str(error)) from None
    json.dumps(plain, allow_nan=False)
    return plain


def _untitled(definitions: dict[str, Json]) -> dict[str, Json]:
    """Without the titles that only say the name again."""
    return {
        name: {k: v for k, v in schema.items() if (k, v) != ("title", name)}
        for name, schema in definitions.items()
    }


def _first_sentence(text: str) -> str:
    return text.partition("\n")[0].partition(". ")[0].rstrip(".")


def _generator(argument: str, note: Callable[[str], None]) -> type["GenerateJsonSchema"]:
    from pydantic.json_schema import GenerateJsonSchema

    class Plain(GenerateJsonSchema):
        """Without titles made of names, and with warnings as notes."""

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

        def emit_warning(self, kind: Any, detail: str) -> None:
            note(f"not all of {argument} is expressed: {_first_sentence(detail)}")

    return Plain
