import pytest

from calltune.schemas.python_types import any_of, read_type
from calltune.types import Json

INT = {"type": "integer"}
NUMBER = {"type": "number"}
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("str", TEXT),
        ("float", NUMBER),
        ("dict", {"type": "object"}),
        ("tuple", {"type": "array"}),
        ("any", {}),
        ("boolean", {"type": "boolean"}),
        ("set", {"type": "array", "uniqueItems": True}),
        ("List[int]", {"type": "array", "items": INT}),
        ("list of strings", {"type": "array", "items": TEXT}),
        ("Dict[str, float]", {"type": "object", "additionalProperties": NUMBER}),
        ("Union[int, str]", {"anyOf": [INT, TEXT]}),
        ("int | None", {"anyOf": [INT, {"type": "null"}]}),
        ("Tuple[int, int]", {"type": "array", "items": INT, "minItems": 2, "maxItems": 2}),
        ("Tuple[int, ...]", {"type": "array", "items": INT}),
        ("Literal['a', 'b']", {"enum": ["a", "b"]}),
        ("List[List[float]]", {"type": "array", "items": {"type": "array", "items": NUMBER}}),
    ],
)
def test_a_type_string_becomes_json_schema(text: str, schema: Json) -> None:
    assert read_type(text) == (schema, "None" in text, True)


@pytest.mark.parametrize(
    "text", ["str, optional", "Optional[str]", "str (optional)", "str, default 'x'"]
)
def test_an_optional_type_says_so(text: str) -> None:
    assert read_type(text).is_optional
    assert read_type(text).is_understood


@pytest.mark.parametrize(
    "text", ["", "Callable[[float], float]", "np.ndarray", "List[", "List[int", "int]", "[" * 500]
)
def test_a_type_outside_the_grammar_takes_any_value(text: str) -> None:
    assert read_type(text) == ({}, False, False)


def test_a_type_not_understood_can_still_be_optional() -> None:
    assert read_type("np.ndarray, optional") == ({}, True, False)


def test_any_of_flattens_and_drops_repeats() -> None:
    assert any_of([{"anyOf": [INT, TEXT]}, INT]) == {"anyOf": [INT, TEXT]}
    assert any_of([INT, {}]) == {}
