"""The commands: for each a dataclass of options and a `run`, and the same as a Python function.

Commands exchange files; they share the rooms below and never import each other.
"""

import functools
import inspect
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from calltune.errors import OptionError

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
