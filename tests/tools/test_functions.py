import dataclasses
import enum
import functools
import math
import socket
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from calltune.tools import Toolset, from_functions
from calltune.tools.functions import read_docs


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Place:
    city: str
    near: "list[Place] | None" = None


class Person(BaseModel):
    name: str = Field(description="As people say it.")
    age: int = 3


class Box(TypedDict):
    width: float


def schema(function: Callable[..., Any]) -> dict[str, Any]:
    (tool,) = from_functions([function]).tools
    Draft202012Validator.check_schema(tool.parameters)
    return tool.parameters


def texts(toolset: Toolset) -> list[str]:
    return [note.text for note in toolset.notes]


def test_signature_hints_and_docstring_make_a_tool() -> None:
    def weather(city: str, days: int = 3, unit: Literal["C", "F"] = "C") -> str:
        """Tell the weather.

        From tomorrow on.

        Args:
            city: Where, as
                people write it.
            days (int): How many.
        """
        return city

    (tool,) = from_functions([weather]).tools
    assert tool.name == "weather"
    assert tool.description == "Tell the weather.\n\nFrom tomorrow on."
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where, as people write it."},
            "days": {"type": "integer", "description": "How many.", "default": 3},
            "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
        },
        "required": ["city"],
    }


@pytest.mark.parametrize(
    "text",
    [
        "Do.\n\nArgs:\n    x: The x.\n    y (int, optional): The y.\n\nReturns:\n    None.",
        "Do.\n\nParameters\n----------\nx : int\n    The x.\ny : int, optional\n    The y.",
        "Do.\n\n:param x: The x.\n:param int y: The y.\n:returns: nothing",
        "Do.\n\n    @param x: The x.\n    @param y: The y.",
    ],
    ids=["google", "numpy", "sphinx", "epydoc"],
)
def test_every_style_of_docstring_is_read(text: str) -> None:
    assert read_docs(text) == ("Do.", {"x": "The x.", "y": "The y."})


@pytest.mark.parametrize("text", [None, "", "Just words: no style.", ":param"])
def test_a_docstring_in_no_style_is_kept_as_it_is(text: str | None) -> None:
    assert read_docs(text) == (text or "", {})


def test_nested_types_stand_in_definitions() -> None:
    def f(place: Place, person: Person, box: Box, colour: Colour = Colour.BLUE) -> None: ...

    found = schema(f)
    assert found["required"] == ["place", "person", "box"]
    assert found["$defs"].keys() == {"Place", "Person", "Box", "Colour"}
    assert found["$defs"]["Person"]["properties"] == {
        "name": {"type": "string", "description": "As people say it."},
        "age": {"type": "integer", "default": 3},
    }
    assert found["properties"]["colour"]["default"] == "blue"
    validator = Draft202012Validator(found)
    inner = {"city": "B", "near": None}
    call = {"place": {"city": "A", "near": [inner]}, "person": {"name": "C"}, "box": {"width": 1}}
    assert validator.is_valid(call)
    assert not validator.is_valid({**call, "place": {"near": []}})


def test_optional_and_implicitly_optional_arguments_allow_null() -> None:
    def f(a: int | None, b: str = None, c: Annotated[int, "how many"] = 1) -> None: ...  # type: ignore[assignment]

    found = schema(f)
    assert found["required"] == ["a"]
    assert found["properties"]["b"]["default"] is None
    assert Draft202012Validator(found).is_valid({"a": None, "b": None})
    assert found["properties"]["c"]["description"] == "how many"


def test_bounds_and_descriptions_of_fields_are_kept() -> None:
    def f(n: Annotated[int, Field(ge=1, description="How many.")]) -> None: ...

    assert schema(f)["properties"]["n"] == {
        "type": "integer",
        "minimum": 1,
        "description": "How many.",
    }


def test_what_names_do_not_reach_is_named() -> None:
    def f(a: int = 1, /, b: int = 2, *rest: int, **more: int) -> None: ...

    toolset = from_functions([f])
    assert list(toolset.tools[0].parameters["properties"]) == ["b"]
    assert texts(toolset) == [
        "a is left out: calls give names",
        "*rest: int is left out: calls give names",
        "**more: int is left out: calls give names",
    ]


def test_a_function_that_cannot_be_called_by_name_is_left_out() -> None:
    def f(a: int, /) -> None: ...

    assert from_functions([f]).tools == ()
    assert texts(from_functions([f])) == ["left out: a is positional-only, and calls give names"]


def test_an_argument_without_a_hint_is_left_open() -> None:
    def f(a, b=2):  # type: ignore[no-untyped-def]
        return a, b

    toolset = from_functions([f])
    assert toolset.tools[0].parameters["properties"] == {"a": {}, "b": {"default": 2}}
    assert texts(toolset) == [
        "a has no type hint; any value is allowed",
        "b has no type hint; any value is allowed",
    ]


@pytest.mark.parametrize("kind", [socket.socket, Callable[[int], int], Colour | socket.socket])
def test_a_type_without_a_schema_stops_only_who_wants_it(kind: Any) -> None:
    def wants(x, n: int = 1): ...  # type: ignore[no-untyped-def]
    def may_have(n: int, x=None): ...  # type: ignore[no-untyped-def]

    wants.__annotations__["x"] = may_have.__annotations__["x"] = kind
    toolset = from_functions([wants, may_have])
    assert [tool.name for tool in toolset.tools] == ["may_have"]
    assert "x" not in toolset.tools[0].parameters["properties"]
    first, second = toolset.notes
    assert first.tool == "wants" and first.text.startswith("left out: x has no JSON Schema (")
    assert second.tool == "may_have" and second.text.endswith("; its default is used")


@pytest.mark.parametrize("default", [math.inf, object(), {1: object()}])
def test_a_default_that_is_no_json_is_named(default: Any) -> None:
    def f(x: Any = default) -> None: ...

    toolset = from_functions([f])
    assert toolset.tools[0].parameters == {
        "type": "object",
        "properties": {"x": {}},
        "required": [],
    }
    assert texts(toolset) == ["the default of x is not JSON and is left out"]


def test_what_pydantic_leaves_out_of_a_type_is_named() -> None:
    class Shelf(BaseModel):
        books: Any = object()

    def f(x: int | Callable[[], int], shelf: Shelf) -> None: ...

    toolset = from_functions([f])
    assert toolset.tools[0].parameters["properties"]["x"] == {"type": "integer"}
    first, second = texts(toolset)
    assert first.startswith("not all of x is expressed: Cannot generate a JsonSchema")
    assert second.startswith("not all of shelf is expressed: Default value <object")


def test_hints_that_cannot_be_read_are_one_note() -> None:
    def f(x): ...  # type: ignore[no-untyped-def]

    f.__annotations__["x"] = "Nowhere"
    (note,) = from_functions([f]).notes
    assert note.text == "left out: its type hints cannot be read (name 'Nowhere' is not defined)"


def test_async_wrapped_partial_bound_and_callable_ones_are_functions() -> None:
    async def asks(x: int) -> None: ...

    @functools.wraps(asks)
    def wrapped(*args: Any, **kwargs: Any) -> None: ...

    class Shop:
        def buy(self, thing: str) -> None:
            """Buy a thing."""

        def __call__(self, money: float) -> None: ...

    cached = functools.cache(lambda x: x)
    bound = functools.partial(Shop().buy, thing="tea")
    toolset = from_functions([asks, wrapped, Shop().buy, Shop(), cached, bound])
    names = [tool.name for tool in toolset.tools]
    assert names == ["asks", "buy", "Shop", "lambda", "partial"]
    properties = [list(tool.parameters["properties"]) for tool in toolset.tools]
    assert properties == [["x"], ["thing"], ["money"], ["x"], ["thing"]]
    assert toolset.tools[4].parameters["required"] == []


def test_names_that_pydantic_keeps_for_itself_are_only_names() -> None:
    def f(schema: int, _x: int, model_config: str, copy: bool) -> None: ...

    assert list(schema(f)["properties"]) == ["schema", "_x", "model_config", "copy"]


def test_a_builtin_without_a_signature_is_named() -> None:
    assert texts(from_functions([type])) == ["left out: it has no signature that can be read"]
