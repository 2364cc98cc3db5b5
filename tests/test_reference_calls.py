import pytest

from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    Answer,
    Example,
    Json,
    Message,
    ToolCall,
    answers_from_json,
    answers_to_json,
    exact_answer,
    reference_call,
)


def reference(query: str, **arguments: AcceptableArgument) -> dict[str, Json]:
    return reference_call(Answer("f", arguments), query).arguments


def test_the_query_is_the_last_user_message() -> None:
    messages = (Message("user", "first"), Message("user", "last"), Message("assistant", "answer"))
    assert Example("id", messages, (), (), "test").query == "last"
    assert Example("id", (Message("system", "rules"),), (), (), "test").query == ""


def test_the_first_value_is_written_when_none_stands_in_the_query() -> None:
    assert reference("How far?", unit=AcceptableArgument(("km", "miles"))) == {"unit": "km"}


def test_the_value_that_stands_in_the_query_is_written() -> None:
    assert reference("How many MILES?", unit=AcceptableArgument(("km", "miles"))) == {
        "unit": "miles"
    }


def test_an_optional_argument_is_written_only_when_it_was_asked_for() -> None:
    limit = AcceptableArgument((5, 10), is_optional=True)
    assert reference("Find some.", limit=limit) == {}
    assert reference("Find 10.", limit=limit) == {"limit": 10}


def test_an_optional_argument_without_values_is_never_written() -> None:
    assert reference("Find x.", x=AcceptableArgument((), is_optional=True)) == {}


@pytest.mark.parametrize("value", ["", None, True, False, [], {}])
def test_what_no_query_can_name_is_not_taken_for_named(value: Json) -> None:
    assert reference("True, False or None?", x=AcceptableArgument((value,), is_optional=True)) == {}
    assert reference("True, False or None?", x=AcceptableArgument((value,))) == {"x": value}


def test_choices_inside_an_object_are_made_one_by_one() -> None:
    place = AcceptableObject(
        {
            "city": AcceptableArgument(("Rome", "Roma")),
            "zip": AcceptableArgument(("00100",), is_optional=True),
        }
    )
    assert reference("Weather in roma?", place=AcceptableArgument((place,))) == {
        "place": {"city": "Roma"}
    }
    nested = AcceptableArgument(([{"at": place}],))
    assert reference("", places=nested) == {"places": [{"at": {"city": "Rome"}}]}


def test_an_exact_answer_has_one_required_value_an_argument() -> None:
    assert exact_answer(ToolCall("f", {"x": [1], "y": None})) == Answer(
        "f", {"x": AcceptableArgument(([1],)), "y": AcceptableArgument((None,))}
    )


def test_answers_keep_choices_objects_and_options_through_json() -> None:
    answers = (
        Answer(
            "f",
            {"x": AcceptableArgument((1, "one")), "y": AcceptableArgument((), is_optional=True)},
        ),
        Answer(
            "g",
            {
                "z": AcceptableArgument(
                    ([AcceptableObject({"k": AcceptableArgument(({"plain": 1},))})],)
                )
            },
        ),
    )
    assert answers_from_json(answers_to_json(answers)) == answers


@pytest.mark.parametrize("value", [{"$fields": 1}, {"$$fields": {"$fields": {}}}, {"$fields": {}}])
def test_an_object_with_the_mark_of_fields_as_its_key_stays_an_object(value: Json) -> None:
    answers = (Answer("f", {"x": AcceptableArgument((value,))}),)
    assert answers_from_json(answers_to_json(answers)) == answers
