"""Functions' type hints, as pydantic reads them, and calls by them.

Source: Python's `typing` (get_type_hints) and `inspect`; PEP 589 and PEP 655 (TypedDict).
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from calltune.types import Json

Function = Callable[..., Any]


def unwrapped(function: Function) -> Function:
    """The function under decorators and `partial`, or an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else type(function).__call__


def hints_of(function: Function) -> dict[str, Any]:
    """The type hints of a function's arguments, by name.

    What a function returns is not looked at: it may be hinted with what only type checkers import.

    Raises:
        Exception: whatever the hints raise, which are expressions.
    """
    inner = unwrapped(function)
    annotations = dict(getattr(inner, "__annotations__", {}))
    annotations.pop("return", None)
    hinted = types.SimpleNamespace(__annotations__=annotations)
    names = getattr(getattr(inner, "__func__", inner), "__globals__", {})
    hints = typing.get_type_hints(hinted, names, include_extras=True)
    return {name: for_pydantic(hint) for name, hint in hints.items()}


def for_pydantic(hint: Any) -> Any:
    """The hint with `typing.TypedDict` replaced, which pydantic refuses before Python 3.12."""
    if typing.is_typeddict(hint):
        return _typed_dict(hint)
    arguments = typing.get_args(hint)
    if not arguments or typing.get_origin(hint) is typing.Literal:
        return hint
    if typing.get_origin(hint) is typing.Annotated:
        made = for_pydantic(arguments[0])
        return hint if made is arguments[0] else typing.Annotated[(made, *arguments[1:])]
    replaced = tuple(for_pydantic(each) for each in arguments)
    if all(new is old for new, old in zip(replaced, arguments, strict=True)):
        return hint
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.Union[replaced]  # noqa: UP007 — `|` fails for some hints.
    return hint.copy_with(replaced) if hasattr(hint, "copy_with") else hint.__origin__[replaced]


@functools.cache
def _typed_dict(kind: Any) -> Any:
    if type(kind).__module__ != "typing" or hasattr(types, "get_original_bases"):
        # Since 3.12, which brought it, the two kinds are one.
        return kind
    import typing_extensions

    fields = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        is_marked = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
        inner = for_pydantic(typing.get_args(hint)[0] if is_marked else hint)
        may_be_missing = name in kind.__optional_keys__
        if is_marked:
            may_be_missing = typing.get_origin(hint) is typing.NotRequired
        mark = typing_extensions.NotRequired if may_be_missing else typing_extensions.Required
        fields[name] = mark[inner]
    return typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[operator]


def call_with(function: Function, arguments: dict[str, Json]) -> Any:
    """What a function returns, called with arguments that pydantic makes of JSON by its hints.

    Raises:
        Exception: pydantic's for arguments that do not fit, or whatever the function raises.
    """
    from pydantic import TypeAdapter

    hints = hints_of(function)
    defaults = inspect.signature(function).parameters
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        if name in defaults and defaults[name].default is None:
            hint = typing.Optional[hint]  # noqa: UP045 — `|` fails for some hints.
        values[name] = TypeAdapter(hint).validate_python(value)
    if _is_cached(function):
        values = {name: _hashable(value) for name, value in values.items()}
    return function(**values)


def _is_cached(function: Function) -> bool:
    """Whether `lru_cache` is somewhere in a function, which wants arguments that have a hash."""
    while not hasattr(function, "cache_info"):
        inner = getattr(function, "func", getattr(function, "__wrapped__", None))
        if inner is None:
            return False
        function = inner
    return True


class _List(list[Any]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(self))


class _Dict(dict[str, Any]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(self))


class _Set(set[Any]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


def _hashable(value: Any) -> Any:
    kinds: dict[type, Callable[[Any], Any]] = {list: _List, dict: _Dict, set: _Set}
    return kinds.get(type(value), lambda same: same)(value)
