"""Reader of the Berkeley Function-Calling Leaderboard: question, function, ground_truth.

The ground truth lists the acceptable values of each argument. An empty string among them means
that the argument may be left out. In an object every key has a list of its own.

Source: bfcl-eval, https://github.com/ShishirPatil/gorilla/tree/main/berkeley-function-call-leaderboard
"""

import re

from calltune.data.readers.calls import UnusableCall, check_call
from calltune.data.readers.examples import ParsedRow, row_name
from calltune.data.readers.notations import read_turn
from calltune.data.readers.offer import RowTools, read_offer
from calltune.schemas.tools import UnusableRow, check_json
from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    AcceptableValue,
    Answer,
    Example,
    Json,
    Message,
    exact_answer,
)

_ROLES = ("system", "user", "assistant")
_CATEGORY = re.compile(r"([A-Za-z_]+?)_\d[\d-]*")


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has the keys of this dataset format."""
    return "question" in row and "function" in row


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """The one example in a row.

    Raises:
        UnusableRow: no query, several turns, no ground truth, or calls that the tools do not take.
    """
    check_json(row)
    name = row_name(row, row_id)
    named = _CATEGORY.fullmatch(name)
    category = named[1] if named else ""
    messages = _messages(row.get("question"))
    offer = read_offer(row.get("function"))
    # Only there does a missing ground truth say "call nothing"; elsewhere it was lost.
    if row.get("ground_truth") is None and "irrelevance" in category:
        answers: tuple[Answer, ...] = ()
    else:
        answers = _answers(row.get("ground_truth"), offer)
    source = f"bfcl/{category}" if category else "bfcl"
    return ParsedRow((Example(name, messages, offer.tools, answers, source),), offer.notes)


def _messages(question: Json) -> tuple[Message, ...]:
    if isinstance(question, list) and question and isinstance(question[0], list):
        if len(question) > 1:
            raise UnusableRow("several turns", question)
        question = question[0]
    if not isinstance(question, list):
        raise UnusableRow("no query", question)
    messages = tuple(_message(item) for item in question)
    if not messages or messages[-1].role != "user" or not messages[-1].content.strip():
        raise UnusableRow("no query", question)
    return messages


def _message(written: Json) -> Message:
    if not isinstance(written, dict):
        raise UnusableRow("message that is not an object", written)
    role, content = written.get("role"), written.get("content")
    if role not in _ROLES:
        raise UnusableRow("unknown role", role)
    if not isinstance(content, str):
        raise UnusableRow("content that is not text", content)
    return Message(role, content)


def _answers(written: Json, offer: RowTools) -> tuple[Answer, ...]:
    if written is None:
        raise UnusableCall("no ground truth")
    if not isinstance(written, list):
        raise UnusableCall("ground truth is not a list of calls", written)
    return tuple(answer for call in written for answer in _answer(call, offer))


def _answer(written: Json, offer: RowTools) -> tuple[Answer, ...]:
    if isinstance(written, str) and (calls := read_turn(written, offer).calls):
        # The categories that are run have their calls as Python.
        return tuple(exact_answer(call) for call in calls)
    kept = written.items() if isinstance(written, dict) else ()
    # In a column of Arrow each call has the names of all the others, with null.
    named = [(name, arguments) for name, arguments in kept if arguments is not None]
    if len(named) != 1:
        raise UnusableCall("ground truth is not a list of calls", written)
    ((name, arguments),) = named
    if not isinstance(arguments, dict):
        raise UnusableCall("arguments are not an object", arguments)
    arguments = {key: values for key, values in arguments.items() if values is not None}
    properties = check_call(name, arguments, offer).parameters["properties"]
    choices: dict[str, AcceptableArgument] = {}
    for key, values in arguments.items():
        try:
            choices[key] = _choice(values, properties.get(key, {}))
        except UnusableRow as unusable:
            raise unusable.within(f"{name}: {key}") from None
    return (Answer(name, choices),)


def _choice(values: Json, schema: dict[str, Json]) -> AcceptableArgument:
    if not isinstance(values, list) or not values:
        raise UnusableCall("argument without a list of acceptable values", values)
    kept = [_acceptable(value, schema) for value in values if value != ""]
    is_optional = len(kept) < len(values)
    # An argument that holds text, or anything, may also be written out as empty text.
    if is_optional and schema.get("type", "string") == "string":
        kept.append("")
    return AcceptableArgument(tuple(kept), is_optional)


def _acceptable(value: Json, schema: dict[str, Json]) -> AcceptableValue:
    if isinstance(value, list):
        items = schema.get("items", {})
        return [_acceptable(item, items if isinstance(items, dict) else {}) for item in value]
    if not isinstance(value, dict) or not value:
        return value
    properties = schema.get("properties", {})
    if not all(_is_choice(values, properties.get(key, {})) for key, values in value.items()):
        return value
    return AcceptableObject(
        {key: _choice(values, properties.get(key, {})) for key, values in value.items()}
    )


def _is_choice(values: Json, schema: dict[str, Json]) -> bool:
    """Whether `values` lists the acceptable values of a key, rather than being its value."""
    if not isinstance(values, list) or not values:
        return False
    # The value of a list is itself a list, so its choices are lists in a list.
    is_list = schema.get("type") == "array"
    return not is_list or all(isinstance(value, list) or value == "" for value in values)
