"""Tools of Python functions: their signatures, type hints and docstrings."""

import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from calltune.calls import Json
from calltune.tools.arguments import Argument, Schemas, read_schemas
from calltune.tools.toolset import Draft, Note, Toolset, assembled

Function = Callable[..., Any]


class Docs(NamedTuple):
    """What a docstring says."""

    description: str
    arguments: dict[str, str]
    """By name, what it says of an argument."""


def from_functions(functions: Iterable[Function]) -> Toolset:
    """The tools that functions are, async ones too; nothing is called.

    Calls give arguments by name. So `*args`, `**kwargs` and positional-only arguments with a
    default are left out; a function that wants an argument which cannot be given by name, or whose
    type has no JSON Schema, is left out. An argument without a type hint allows any value. All of
    this is noted. `x: int = None` allows null.
    """
    return from_named((getattr(each, "__name__", type(each).__name__), each) for each in functions)


def from_named(functions: Iterable[tuple[str, Function]]) -> Toolset:
    """The same under names of the caller's choice."""
    drafts: list[Draft] = []
    notes: list[Note] = []
    for name, function in functions:
        try:
            drafts.append(_draft(name, function, notes))
        except _NotExpressed as reason:
            notes.append(Note(name, f"left out: {reason}"))
    return assembled(drafts, notes)


def read_docs(text: str | None) -> Docs:
    """A docstring in Google's, NumPy's, Sphinx's or Epydoc's style; one in no style as it is."""
    from docstring_parser import ParseError, parse

    if not text:
        return Docs("", {})
    text = inspect.cleandoc(text)
    try:
        found = parse(text)
    except ParseError:
        return Docs(text, {})
    arguments = {
        each.arg_name.lstrip("*"): " ".join(each.description.split())
        for each in found.params
        if each.description
    }
    return Docs((found.description or "").strip(), arguments)


class _NotExpressed(Exception):
    """Why a function is no tool."""


def _draft(name: str, function: Function, notes: list[Note]) -> Draft:
    docs = read_docs(inspect.getdoc(_plain(function)))
    arguments = _arguments(name, function, docs, notes)
    schemas = read_schemas(arguments, lambda text: notes.append(Note(name, text)))
    _refuse_unspeakable(arguments, schemas, name, notes)
    parameters: dict[str, Json] = {
        "type": "object",
        "properties": schemas.properties,
        "required": [each.name for each in arguments if each.is_required],
    }
    if schemas.definitions:
        parameters["$defs"] = schemas.definitions
    return Draft(name, docs.description, parameters)


def _refuse_unspeakable(
    arguments: list[Argument], schemas: Schemas, name: str, notes: list[Note]
) -> None:
    """Note the arguments without a schema; a function that wants one is refused."""
    for argument in arguments:
        if argument.name in schemas.refused:
            reason = f"{argument.name} has no JSON Schema ({schemas.refused[argument.name]})"
            if argument.is_required:
                raise _NotExpressed(reason)
            notes.append(Note(name, f"{reason}; its default is used"))


def _arguments(name: str, function: Function, docs: Docs, notes: list[Note]) -> list[Argument]:
    hints = _hints(function)
    arguments = []
    for parameter in _signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            notes.append(Note(name, f"{parameter} is left out: calls give names"))
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is parameter.empty:
                raise _NotExpressed(f"{parameter.name} is positional-only, and calls give names")
            notes.append(Note(name, f"{parameter.name} is left out: calls give names"))
        else:
            if parameter.name not in hints:
                notes.append(Note(name, f"{parameter.name} has no type hint; any value is allowed"))
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
        raise _NotExpressed("it has no signature that can be read") from None


def _hints(function: Function) -> dict[str, Any]:
    try:
        return typing.get_type_hints(_plain(function), include_extras=True)
    except Exception as error:
        # Hints are expressions, and may raise whatever expressions raise.
        raise _NotExpressed(f"its type hints cannot be read ({error})") from None


def _plain(function: Function) -> Function:
    """The function below decorators and partial, or the method that calls an object."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else type(function).__call__
