"""A Python file as a tool source: its functions as tools, and calls to them."""

import asyncio
import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from calltune.errors import DataError
from calltune.tools.functions import from_named_functions
from calltune.tools.toolset import Toolset
from calltune.tools.type_hints import Function, call_with, unwrapped
from calltune.types import Json


def from_python_file(path: str | Path, names: Sequence[str] = ()) -> Toolset:
    """The tools of the functions in a file.

    Raises:
        DataError: as `functions_in`.
    """
    return from_named_functions(functions_in(path, names).items())


def functions_in(path: str | Path, names: Sequence[str] = ()) -> dict[str, Function]:
    """By name, the public functions defined in a file, or those named in `names`.

    The file is imported, which runs it as `python FILE` would except for what is under `__main__`;
    it can import files beside it. Functions that it imports are included only if `names` has them.

    Raises:
        DataError: no such file, an exception while it is imported, no functions, or no function of
            a name in `names`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"No file {path}; check the path")
    members = vars(_imported(path))
    functions = {name: each for name, each in members.items() if _is_public(name, each, path)}
    if names:
        functions = {name: members[name] for name in names if callable(members.get(name))}
        if missing := [name for name in names if name not in functions]:
            raise DataError(f"{path} has no function {', '.join(missing)}; check the name")
    if not functions:
        raise DataError(f"{path} defines no public functions; write some, or name them after a :")
    return functions


def _module_name(path: Path) -> str:
    return f"calltune_tools_of_{path.stem}"


def _is_public(name: str, member: Any, path: Path) -> bool:
    if isinstance(member, functools.partial):
        member = unwrapped(member)
    is_function = callable(member) and inspect.isroutine(inspect.unwrap(member))
    defined_here = getattr(member, "__module__", None) == _module_name(path)
    return is_function and defined_here and not name.startswith("_")


def _imported(path: Path) -> ModuleType:
    # A name of its own: a file called json.py must not stand in for the library.
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    # Type hints are looked up there, also later.
    sys.modules[name] = module
    with _found_beside(path):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise DataError(
                f"{path} cannot be imported: {_place(error, path)}"
                f"{type(error).__name__}: {' '.join(str(error).split())}; fix it"
            ) from error
    return module


@contextmanager
def _found_beside(path: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before


def _place(error: BaseException, path: Path) -> str:
    """The last line of the file that was running, for a message."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return f"line {lines[-1]}: " if lines else ""


def run_function(function: Callable[..., Any], arguments: dict[str, Json]) -> Json:
    """What a function returns, as JSON; its exceptions are not caught.

    Arguments are converted to its type hints by pydantic (dataclasses, enums and so on are made of
    their JSON). An async function is run to its end. What has no JSON is returned as text.
    """
    from pydantic_core import to_jsonable_python

    returned = call_with(function, arguments)
    if inspect.isawaitable(returned):
        returned = asyncio.run(_awaited(returned))
    return to_jsonable_python(returned, fallback=str, inf_nan_mode="strings")


async def _awaited(value: Any) -> Any:
    return await value
