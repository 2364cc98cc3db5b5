"""Reader of xlam-function-calling-60k and datasets like it: query, tools, answers.

Tools and answers are lists, or JSON in strings. Each argument has one acceptable value; an empty
list of answers means that nothing is to be called.

Source: https://huggingface.co/datasets/Salesforce/xlam-function-calling-60k
"""

from calltune.data.readers.examples import ParsedRow, row_name
from calltune.schemas.tools import (
    UnusableRow,
    check_json,
    decode_json,
    read_calls,
    read_tools,
)
from calltune.types import Example, Json, Message, exact_answer


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has the keys of this dataset format."""
    return "tools" in row and ("answers" in row or "query" in row)


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """The one example in a row.

    Raises:
        UnusableRow: no query, no tools, no answers, or calls that the tools do not take.
    """
    check_json(row)
    query = row.get("query")
    if not isinstance(query, str) or not query.strip():
        raise UnusableRow("no query", query)
    offer = read_tools(row.get("tools"))
    written = decode_json(row.get("answers"), "answers are not JSON")
    if written is None:
        raise UnusableRow("no answers")
    answers = tuple(exact_answer(call) for call in read_calls(written, offer))
    messages = (Message("user", query),)
    example = Example(row_name(row, row_id), messages, offer.tools, answers, "xlam")
    return ParsedRow((example,), offer.notes)
