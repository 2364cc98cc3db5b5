"""Rows as in Salesforce/xlam-function-calling-60k: query, tools, answers.

Tools and answers are JSON in strings, or lists. Each argument has one acceptable value; an empty
list of answers means that nothing is to be called.
"""

from calltune.schemas.tools import (
    ParsedRow,
    UnusableRow,
    check_json,
    decode_json,
    query_text,
    read_calls,
    read_tools,
    row_name,
)
from calltune.types import Example, Json, Message, exact_answer


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has this schema's keys."""
    return "tools" in row and ("answers" in row or "query" in row)


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """The one example in a row.

    Raises:
        UnusableRow: no query, no tools, no answers, or calls that the tools do not take.
    """
    check_json(row)
    query = query_text(row.get("query"))
    offer = read_tools(row.get("tools"))
    written = decode_json(row.get("answers"), "answers are not JSON")
    if written is None:
        raise UnusableRow("no answers")
    answers = tuple(exact_answer(call) for call in read_calls(written, offer))
    messages = (Message("user", query),)
    example = Example(row_name(row, row_id), messages, offer.tools, answers, "xlam")
    return ParsedRow((example,), offer.notes)
