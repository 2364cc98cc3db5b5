import pytest

from calltune.data.readers.recognise import parse
from calltune.schemas.tools import UnusableRow
from calltune.types import AcceptableArgument, AcceptableObject, Json

FUNCTION = {
    "name": "book",
    "description": "Books.",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": {"type": "string"},
            "nights": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "guest": {
                "type": "dict",
                "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
            },
            "rooms": {
                "type": "array",
                "items": {"type": "dict", "properties": {"n": {"type": "integer"}}},
            },
        },
        "required": ["city"],
    },
}


def row(arguments: Json, name: str = "book", **changes: Json) -> dict[str, Json]:
    return {
        "id": "live_simple_3-2-1",
        "question": [
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Book."}]
        ],
        "function": [FUNCTION],
        "ground_truth": [{name: arguments}],
    } | changes


def choice(argument: str, values: Json) -> AcceptableArgument:
    return parse(row({argument: values}), "r").examples[0].answers[0].arguments[argument]


def test_a_row_becomes_one_example_of_its_category() -> None:
    (example,) = parse(row({"city": ["Bonn", "Bonn, Germany"]}), "r").examples
    assert (example.source, example.query) == ("bfcl/live_simple", "Book.")
    assert [message.role for message in example.messages] == ["system", "user"]
    assert example.answers[0].arguments == {"city": AcceptableArgument(("Bonn", "Bonn, Germany"))}


def test_an_empty_string_makes_an_argument_optional() -> None:
    assert choice("nights", ["", 2]) == AcceptableArgument((2,), is_optional=True)
    assert choice("nights", [""]) == AcceptableArgument((), is_optional=True)


def test_an_argument_that_holds_text_may_also_be_written_empty() -> None:
    assert choice("city", ["", "Bonn"]) == AcceptableArgument(("Bonn", ""), is_optional=True)


def test_an_acceptable_value_of_a_list_is_a_list() -> None:
    assert choice("tags", [["sea", ""], ["sun"]]) == AcceptableArgument((["sea", ""], ["sun"]))


def test_each_key_of_an_object_has_its_own_choices() -> None:
    assert choice("guest", [{"name": ["Ada", "A."], "age": ["", 30]}]) == AcceptableArgument(
        (
            AcceptableObject(
                {
                    "name": AcceptableArgument(("Ada", "A.")),
                    "age": AcceptableArgument((30,), is_optional=True),
                }
            ),
        )
    )


def test_each_object_in_a_list_has_its_own_choices() -> None:
    assert choice("rooms", [[{"n": [1]}, {"n": [2]}]]) == AcceptableArgument(
        (
            [
                AcceptableObject({"n": AcceptableArgument((1,))}),
                AcceptableObject({"n": AcceptableArgument((2,))}),
            ],
        )
    )


def test_an_object_whose_keys_hold_plain_values_is_one_value() -> None:
    assert choice("guest", ["", {}]) == AcceptableArgument(({},), is_optional=True)
    assert choice("guest", [{"name": ["Ada"], "age": 30}]) == AcceptableArgument(
        ({"name": ["Ada"], "age": 30},)
    )


def test_only_a_row_of_irrelevant_tools_may_lack_the_ground_truth() -> None:
    bare = row({}, id="irrelevance_4", ground_truth=None)
    assert parse(bare, "r").examples[0].answers == ()
    with pytest.raises(UnusableRow, match="no ground truth"):
        parse(bare | {"id": "simple_python_4"}, "r")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (row({"city": ["Bonn"]}, name="cancel"), "call to a tool that is not offered"),
        (row({"town": ["Bonn"]}), "argument the tool does not have"),
        (row({"city": "Bonn"}), "argument without a list of acceptable values"),
        (row({"city": []}), "argument without a list of acceptable values"),
        (row({}, question=[[], []]), "several turns"),
        (row({}, question=[[{"role": "user", "content": ""}]]), "no query"),
        (row({}, question="Book."), "no query"),
        (row({}, function=[]), "no tools"),
    ],
)
def test_an_unusable_bfcl_row_says_why(broken: dict[str, Json], expected: str) -> None:
    with pytest.raises(UnusableRow) as caught:
        parse(broken, "r")
    assert caught.value.reason == expected
