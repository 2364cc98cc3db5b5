"""What is listed of a Python file can be run, with the values that its schemas admit."""

import functools
import typing
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from calltune.schemas.validate import satisfies
from calltune.tools import from_functions
from calltune.tools.functions import read_docs
from calltune.tools.python_file import functions_in, run_function
from calltune.tools.sources import MCPOptions, open_sources

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"
FUNCTIONS = CASES / "16-functions" / "future_tools.py"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "move": {"target": {"n": 1, "nested": {"depth": 2.5}}, "note": "x"},
    "act": {"pet": {"kind": "dog", "name": "Rex"}},
    "act_maybe": {"pet": None},
    "kinds": {
        "when": "2024-05-06T07:08:09",
        "day": "2024-05-06",
        "span": "P1D",
        "ident": "12345678-1234-5678-1234-567812345678",
        "price": "1.50",
        "where": "/tmp",
        "opts": {"unit": "C"},
        "row": {"key": "k"},
        "pair": [1, "b"],
        "many": ["a", "b"],
        "mapping": {"a": [1]},
    },
    "slow": {},
    "varied": {"a": 1},
    "tree": {"root": {"value": 3, "children": [{"value": 4}]}},
    "unhinted": {"a": [1]},
    "lazily": {"items": ["a"]},
    "wrapped": {"city": "Rome"},
    "cached": {"city": "Rome"},
    "buy": {"item": "tea"},
    "price": {"item": "tea"},
    "last5": {"city": "Rome"},
    "with_alias": {"f": {"n": 1}},
}


def test_what_is_listed_can_be_run() -> None:
    with ExitStack() as stack:
        toolset, runs = open_sources([str(FUNCTIONS)], MCPOptions(), stack)
        listed = {tool.name for tool in toolset.tools}
        # The hint of one is imported for type checkers only; one is positional-only.
        assert ARGUMENTS.keys() - listed == {"lazily"} and listed == runs.keys()
        assert listed - ARGUMENTS.keys() == {"logged"}
        for tool in (each for each in toolset.tools if each.name in ARGUMENTS):
            arguments = ARGUMENTS[tool.name]
            assert satisfies(arguments, tool.parameters), tool
            assert runs[tool.name](arguments) is not None or tool.name == "unhinted"
        assert runs["kinds"](ARGUMENTS["kinds"]).startswith(
            "datetime.datetime(2024, 5, 6, 7, 8, 9)"
        )
        assert runs["buy"]({"item": "tea", "count": 2}) == "2 tea"


class Old(typing.TypedDict, total=False):
    key: typing.Required[str]
    note: int


class Nested(typing.TypedDict):
    old: "Old | None"
    many: list[Old]
    maybe: typing.NotRequired[dict[str, Old]]


def test_typed_dicts_of_typing_are_read_and_kept() -> None:
    def save(nested: Nested, either: Old | int = 3) -> Any:
        return nested, either

    (tool,) = from_functions([save]).tools
    assert tool.parameters["$defs"]["Old"]["required"] == ["key"]
    assert tool.parameters["$defs"]["Nested"]["required"] == ["old", "many"]
    nested = {"old": None, "many": [{"key": "a", "note": 1}]}
    arguments = {"nested": nested, "either": {"key": "b"}}
    assert satisfies(arguments, tool.parameters)
    assert run_function(save, arguments) == [nested, {"key": "b"}]
    with pytest.raises(ValueError, match="key"):
        run_function(save, {"nested": nested, "either": {"note": 1}})


@functools.lru_cache
def count(words: list[str], least: int = 1) -> int:
    """Count."""
    return len([word for word in words if len(word) >= least])


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


class Shop:
    def __call__(self, thing: str, n: int = 1) -> str:
        return thing * n

    @classmethod
    def make(cls, name: str) -> str:
        return name


@pytest.mark.parametrize(
    ("function", "arguments", "result"),
    [
        (count, {"words": ["a", "bcd"], "least": 2}, 1),
        (functools.partial(count, least=3), {"words": ["abc"]}, 1),
        (logged(count), {"words": ["a"]}, 1),
        (functools.partial(logged(count), least=2), {"words": ["a"]}, 0),
        (functools.cache(lambda x: x), {"x": {"a": [1]}}, {"a": [1]}),
        (Shop(), {"thing": "a", "n": 2}, "aa"),
        (Shop.make, {"name": "n"}, "n"),
        (functools.partial(Shop(), n=3), {"thing": "a"}, "aaa"),
    ],
)
def test_wrapped_functions_are_listed_and_run(function: Any, arguments: Any, result: Any) -> None:
    (tool,) = from_functions([function]).tools
    assert satisfies(arguments, tool.parameters)
    assert run_function(function, arguments) == result


def test_a_partial_of_a_files_function_is_one_of_its_functions(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import functools\nimport math\n\ndef power(x: int, n: int = 2):\n    return x**n\n\n"
        "cube = functools.partial(power, n=3)\nroot = functools.partial(math.sqrt)\n"
    )
    found = functions_in(tmp_path / "mine.py")
    assert list(found) == ["power", "cube"] and run_function(found["cube"], {"x": 2}) == 8


def test_what_a_function_returns_may_be_hinted_with_anything() -> None:
    def f(x: int) -> Any:
        return x

    f.__annotations__["return"] = "NotImported"
    assert [tool.name for tool in from_functions([f]).tools] == ["f"]
    assert run_function(f, {"x": 3}) == 3


def test_docstrings_of_people_are_read() -> None:
    path = CASES / "17-docstrings" / "doc_tools.py"
    toolset = from_functions(functions_in(path).values())
    told = {
        tool.name: {name: part.get("description") for name, part in properties.items()}
        for tool in toolset.tools
        if (properties := tool.parameters["properties"])
    }
    assert all(all(each.values()) for each in told.values() if "extra" not in each), told
    assert told["google_keyword"]["limit"] == "Most results to give back."
    assert told["numpy_style"]["limit"] == told["numpy_style"]["extra"] == "Two at once."
    assert told["colon_first"]["text"] == "The text (with a space before the colon)."
    assert told["french"]["book_title"] == 'Titre du livre (ex. "Genesis")'
    texts = [note.text for note in toolset.notes if note.tool == "numpy_style"]
    assert "its docstring describes verbose, which calls cannot give" in texts


@pytest.mark.parametrize("title", ["Args", "Keyword Args", "Keyword Arguments", "Other Parameters"])
def test_every_section_of_arguments_is_read(title: str) -> None:
    text = f"Do.\n\nArgs:\n    a: The a.\n\n{title}:\n    b (int) : The b.\n\nReturns:\n    None."
    found = read_docs(text.replace("Args:\n    a: The a.\n\nArgs:\n", "Args:\n    a: The a.\n"))
    assert found == ("Do.", {"a": "The a.", "b": "The b."})
