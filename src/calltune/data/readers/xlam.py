"""Rows as in Salesforce/xlam-function-calling-60k: query, tools, answers.

Tools and answers are JSON in strings, or lists. Each argument has one acceptable value; an empty
list of answers means that nothing is to be called.
"""

from calltune.schemas.tools import (
    Parsed,
    Unusable,
    checked,
    decoded,
    query_text,
    read_calls,
    read_tools,
    row_name,
)
from calltune.types import Example, Json, Message, exact_answer


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has this schema's keys."""
    return "tools" in row and ("answers" in row or "query" in row)


def parse(row: dict[str, Json], row_id: str) -> Parsed:
    """The one example in a row.

    Raises:
        Unusable: no query, no tools, no answers, or calls that the tools do not take.
    """
    checked(row)
    query = query_text(row.get("query"))
    offer = read_tools(row.get("tools"))
    written = decoded(row.get("answers"), "answers are not JSON")
    if written is None:
        raise Unusable("no answers")
    answers = tuple(exact_answer(call) for call in read_calls(written, offer))
    messages = (Message("user", query),)
    example = Example(row_name(row, row_id), messages, offer.tools, answers, "xlam")
    return Parsed((example,), offer.notes)
