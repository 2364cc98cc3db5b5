"""The commands: for each a dataclass of options and a `run`, and the same as a Python function.

Commands exchange files; they share the rooms below and never import each other. A recipe is a TOML
file with a table for each command; `recipe_tables` reads one.
"""

import functools
import inspect
import tomllib
from collections.abc import Callable, Collection
from dataclasses import fields
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from calltune.errors import OptionError
from calltune.types import Json

COMMANDS = {
    "quickstart": "Run every step on a small model.",
    "load": "Load a dataset.",
    "prep": "Turn a dataset into prompts, and split it.",
    "look": "Show rows as the trainer sees them.",
    "plan": "Estimate the memory that training needs.",
    "train": "Fine-tune a model: train an adapter.",
    "infer": "Evaluate the base model.",
    "test": "Evaluate the tuned model, and compare it with the base model.",
    "analyze": "Compare two evaluations in a report.",
    "gate": "Fail if results fall behind a baseline.",
    "bench bfcl": "Run BFCL's single-turn Python categories.",
    "overlap": "Find rows of your data that are in BFCL.",
    "tools": "Make tools.json from functions, OpenAPI or MCP.",
    "call": "Ask one question, and print the calls.",
    "chat": "Chat with a model whose calls are run.",
    "serve": "Serve an OpenAI-compatible API.",
    "export": "Export a model for other programs.",
    "model": "Fetch or convert a model, and print its folder.",
    "backend": "Show where MLX computes, and why.",
}
"""All commands with their help, in the order of `calltune --help`.

`bench bfcl` is in the module `commands.bench`, and its options are `BfclOptions`.
"""

P = ParamSpec("P")
"""The parameters of the constructor of an options dataclass."""
Options = TypeVar("Options")
Result = TypeVar("Result")


class Command(Generic[P, Options, Result]):
    """A command as a function: `train(iters=80)` is `run(TrainOptions(iters=80))`.

    Keywords are the fields of the options dataclass, with its defaults and checks. Values are
    converted by pydantic's rules; so a path may be a string, as on the command line.
    """

    __test__ = False  # pytest would take `calltune.test` for a test by its name

    def __init__(
        self, name: str, options: Callable[P, Options], run: Callable[[Options], Result]
    ) -> None:
        """`name` is the function's; `options` is the dataclass that `run` takes."""
        self._options = cast(type[Options], options)
        self._run = run
        functools.update_wrapper(self, run)
        self.__name__ = self.__qualname__ = name
        self.__signature__ = inspect.signature(run).replace(
            parameters=list(inspect.signature(options).parameters.values())
        )

    @overload
    def __call__(self, options: Options, /) -> Result: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Result: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        """Run the command with one options object, or with options as keywords; what `run` returns.

        Raises:
            TypeError: there is no such option, or a required one is missing.
            OptionError: a value is of the wrong type, or the options dataclass refuses it.
            CalltuneError: whatever else `run` raises.
        """
        if len(args) == 1 and not kwargs and isinstance(args[0], self._options):
            return self._run(args[0])
        try:
            given = self.__signature__.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.__name__}() {error}{self._suggestion(kwargs)}") from None
        return self._run(self._validated(given))

    def __repr__(self) -> str:
        return f"<command {self.__name__}{self.__signature__}>"

    def _suggestion(self, kwargs: dict[str, Any]) -> str:
        names = list(self.__signature__.parameters)
        unknown = next((name for name in kwargs if name not in names), "")
        close = get_close_matches(unknown, names, n=1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def _validated(self, given: dict[str, Any]) -> Options:
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(self._options).validate_python(given)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            name = fault["loc"][0] if fault["loc"] else "the options"
            raise OptionError(
                f"{self.__name__}(): {name} is {fault['input']!r}; {fault['msg']}"
            ) from None


def options_of(command: str) -> type[Any]:
    """The options dataclass of a command in `COMMANDS`, such as "bench bfcl"."""
    words = command.split()
    module = import_module(f"calltune.commands.{words[0]}")
    return cast(type[Any], getattr(module, f"{words[-1].capitalize()}Options"))


def recipe_tables(recipe: Path, allowed: Collection[str] = ()) -> dict[str, dict[str, Json]]:
    """The tables of a recipe, by the names of their commands.

    Every table is looked at, so that a slip in the last one is told before the first command runs.

    Args:
        recipe: A TOML file.
        allowed: The commands that may have a table; without them every one but plan, which reads
            the table of train.

    Raises:
        OptionError: the file is not TOML, a table is not one of a command, or a key in it is not
            one of the command's options.
    """
    try:
        content = tomllib.loads(recipe.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{recipe} is not TOML ({error}); fix it") from None
    known = allowed or [name for name in COMMANDS if name != "plan"]
    tables: dict[str, dict[str, Json]] = {}
    for name, value in content.items():
        below = [command for command in known if command.startswith(f"{name} ")]
        if below and isinstance(value, dict):
            tables |= {f"{name} {last}": table for last, table in value.items()}
        else:
            tables[name] = value
    for command, table in tables.items():
        _check_table(recipe, command, table, known)
    return tables


def _check_table(recipe: Path, command: str, table: Json, known: Collection[str]) -> None:
    name = command.replace(" ", ".")
    names = [each.replace(" ", ".") for each in known]
    if command not in known and not isinstance(table, dict | list):
        group, dot, _ = name.rpartition(".")
        such = next((each for each in names if dot and each.startswith(f"{group}.")), "train")
        raise OptionError(
            f"{recipe} has {name} in no command's table; put it below one such as [{such}]"
        )
    if command not in known:
        kind = "step" if "quickstart" not in known else "command"
        close = ["train"] if command == "plan" else _closest(name, names)
        hint = f"did you mean {close[0]}?" if close else f"{kind}s are {', '.join(names)}"
        raise OptionError(f"{recipe} has a table {name}, which is not a {kind}; {hint}")
    if not isinstance(table, dict):
        raise OptionError(f"{recipe} has {name} as {_toml_kind(table)}; write the table [{name}]")
    options = {field.name: field.type for field in fields(options_of(command)) if field.init}
    # A flag may be switched off by its other name.
    options |= {f"no_{each}": kind for each, kind in options.items() if kind is bool}
    for key in table:
        if key.replace("-", "_") not in options:
            close = _closest(key.replace("-", "_"), list(options))
            hint = f"did you mean {close[0]}?" if close else f"see calltune {command} --help"
            raise OptionError(
                f"{recipe}, table [{name}]: {key} is not an option of calltune {command}; {hint}"
            )


def _closest(name: str, known: Collection[str]) -> list[str]:
    """The known name that was probably meant; none where nothing is like it."""
    return get_close_matches(name.lower(), known, n=1)


def _toml_kind(value: Json) -> str:
    return "an array" if isinstance(value, list) else f"the value {value!r}"
