"""Python functions as a tool source: their signatures, type hints and docstrings.

Source: pydantic makes JSON Schema (draft 2020-12) of type hints; docstring_parser reads Google's,
NumPy's, Sphinx's and Epydoc's styles.
"""

import contextlib
import inspect
import json
import typing
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from calltune.tools.toolset import Note, ToolDraft, Toolset, build_toolset
from calltune.tools.type_hints import Function, hints_of, unwrapped
from calltune.types import Json

if TYPE_CHECKING:
    from docstring_parser import Docstring
    from pydantic.json_schema import GenerateJsonSchema


_SECTIONS = ("Keyword Args", "Keyword Arguments", "Other Parameters", "Other Args", "Kwargs")
"""Sections of Google's style that describe arguments, beyond those that docstring_parser knows."""


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


class ArgumentSchemas(NamedTuple):
    """The JSON ArgumentSchemas of a function's arguments."""

    properties: dict[str, Json]
    definitions: dict[str, Json]
    """The definitions that `properties` refer to with `#/$defs/…`."""
    refused: dict[str, str]
    """By name, why an argument has no JSON Schema; it is not in `properties`."""


def argument_schemas(arguments: list[Argument], note: Callable[[str], None]) -> ArgumentSchemas:
    """The schemas of the values that pydantic would accept for the arguments' type hints.

    `note` is given what the schemas do not express.
    """
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
        # The same warnings were noted above.
        schema_generator=_generator("", lambda _: None),
    )
    properties = {
        each.name: _described(schemas[each.name, "validation"], each, note)
        for each in arguments
        if each.name in adapters
    }
    return ArgumentSchemas(properties, _untitled(whole.get("$defs", {})), refused)


def _described(schema: dict[str, Json], argument: Argument, note: Callable[[str], None]) -> Json:
    described = {"description": argument.description} if argument.description else {}
    if argument.is_required:
        return schema | described
    try:
        default = _as_json(argument.default)
    except (TypeError, ValueError):
        note(f"the default of {argument.name} is not JSON and is left out")
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
    """Without the titles that only repeat the name."""
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


class Docs(NamedTuple):
    """What a docstring says about a function."""

    description: str
    arguments: dict[str, str]
    """By name, the description of an argument."""


def from_functions(functions: Iterable[Function]) -> Toolset:
    """The tools that functions are, async ones too; no function is called.

    Calls give arguments by name, so `*args`, `**kwargs` and positional-only arguments with a
    default are left out, and so is a function that requires an argument which cannot be given by
    name or whose type has no JSON Schema. An argument without a type hint allows any value. Each of
    these gives a note. `x: int = None` allows null.
    """
    return from_named_functions(
        (getattr(each, "__name__", type(each).__name__), each) for each in functions
    )


def from_named_functions(functions: Iterable[tuple[str, Function]]) -> Toolset:
    """As `from_functions`, under the names given."""
    drafts: list[ToolDraft] = []
    notes: list[Note] = []
    for name, function in functions:
        try:
            drafts.append(_draft(name, function, notes))
        except _NotATool as reason:
            notes.append(Note(name, f"left out: {reason}"))
    return build_toolset(drafts, notes)


def read_docs(text: str | None) -> Docs:
    """The description and arguments in a docstring; one in an unknown style is all description."""
    if not text:
        return Docs("", {})
    text = inspect.cleandoc(text)
    found = _parsed(text)
    if found is None:
        return Docs(text, {})
    arguments = {
        # NumPy's style describes several at once, and people put a space before Google's colon.
        name.strip().lstrip("*"): " ".join(each.description.split())
        for each in found.params
        if each.description
        for name in each.arg_name.split(",")
    }
    return Docs((found.description or "").strip(), arguments)


def _parsed(text: str) -> "Docstring | None":
    """The docstring in the style that finds most in it; None where it is in none."""
    from docstring_parser import ParseError, epydoc, google, numpydoc, rest

    more = [google.Section(title, "param", google.SectionType.MULTIPLE) for title in _SECTIONS]
    styles = (
        rest.parse,
        google.GoogleParser([*google.DEFAULT_SECTIONS, *more]).parse,
        numpydoc.parse,
        epydoc.parse,
    )
    found = []
    for parse in styles:
        with contextlib.suppress(ParseError):
            found.append(parse(text))
    return max(found, key=lambda each: len(each.meta), default=None)


class _NotATool(Exception):
    """A function cannot be a tool; the message says why."""


def _draft(name: str, function: Function, notes: list[Note]) -> ToolDraft:
    docs = read_docs(inspect.getdoc(unwrapped(function)))
    arguments = _arguments(name, function, docs, notes)
    if others := [each for each in docs.arguments if each not in {a.name for a in arguments}]:
        text = f"its docstring describes {', '.join(others)}, which calls cannot give"
        notes.append(Note(name, text, "docstrings describe what calls cannot give"))
    schemas = argument_schemas(arguments, lambda text: notes.append(Note(name, text)))
    _check_schemas(arguments, schemas, name, notes)
    parameters: dict[str, Json] = {
        "type": "object",
        "properties": schemas.properties,
        "required": [each.name for each in arguments if each.is_required],
    }
    if schemas.definitions:
        parameters["$defs"] = schemas.definitions
    return ToolDraft(name, docs.description, parameters)


def _check_schemas(
    arguments: list[Argument], schemas: ArgumentSchemas, name: str, notes: list[Note]
) -> None:
    """Note the arguments without a schema; refuse a function that requires one of them."""
    for argument in arguments:
        if argument.name in schemas.refused:
            reason = f"{argument.name} has no JSON Schema ({schemas.refused[argument.name]})"
            if argument.is_required:
                raise _NotATool(reason)
            notes.append(Note(name, f"{reason}; its default is used"))


def _arguments(name: str, function: Function, docs: Docs, notes: list[Note]) -> list[Argument]:
    hints = _hints(function)
    arguments = []
    for parameter in _signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            text = f"{parameter} is left out: calls give names"
            notes.append(Note(name, text, "arguments without a name are left out"))
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is parameter.empty:
                raise _NotATool(f"{parameter.name} is positional-only, and calls give names")
            notes.append(Note(name, f"{parameter.name} is left out: calls give names"))
        else:
            if parameter.name not in hints:
                text = f"{parameter.name} has no type hint; any value is allowed"
                kind = "arguments without a type hint; any value is allowed"
                notes.append(Note(name, text, kind))
            arguments.append(_argument(parameter, hints.get(parameter.name, Any), docs))
    return arguments


def _argument(parameter: inspect.Parameter, hint: Any, docs: Docs) -> Argument:
    if parameter.default is None:
        hint = typing.Optional[hint]  # noqa: UP045 — `|` fails for some hints.
    described = docs.arguments.get(parameter.name, "") or _text_beside(hint)
    return Argument(parameter.name, hint, parameter.default, described)


def _text_beside(hint: Any) -> str:
    """The text in `Annotated[int, "how many"]`."""
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, str)), "")


def _signature(function: Function) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise _NotATool("it has no signature that can be read") from None


def _hints(function: Function) -> dict[str, Any]:
    try:
        return hints_of(function)
    except Exception as error:
        # Hints are expressions, and may raise whatever expressions raise.
        raise _NotATool(f"its type hints cannot be read ({error})") from None
