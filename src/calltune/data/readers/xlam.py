"""Reader of xlam-function-calling-60k and datasets like it: query, tools, answers.

Tools and answers are lists, or JSON in strings; answers may be in any other notation of calls. Each
argument has one acceptable value; an empty list of answers means that nothing is to be called.

Source: https://huggingface.co/datasets/Salesforce/xlam-function-calling-60k
"""

from calltune.data.readers.calls import UnusableCall, read_calls
from calltune.data.readers.examples import ParsedRow, row_name
from calltune.data.readers.notations import read_turn
from calltune.data.readers.offer import RowTools, read_offer
from calltune.data.readers.values import decode_text
from calltune.schemas.tools import UnusableRow, check_json
from calltune.types import Example, Json, Message, ToolCall, exact_answer


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
    offer = read_offer(row.get("tools"))
    answers = tuple(exact_answer(call) for call in _calls(row.get("answers"), offer))
    messages: tuple[Message, ...] = (Message("user", query),)
    if isinstance(system := row.get("system"), str) and system.strip():
        messages = (Message("system", system), *messages)
    example = Example(row_name(row, row_id), messages, offer.tools, answers, "xlam")
    return ParsedRow((example,), offer.notes)


def _calls(written: Json, offer: RowTools) -> tuple[ToolCall, ...]:
    if isinstance(written, str):
        try:
            written = decode_text(written, "answers are not JSON")
        except UnusableRow as unusable:
            is_json = written.lstrip().startswith(("[{", "[[", "{"))
            if not is_json and (calls := read_turn(written, offer).calls):
                return calls
            raise UnusableCall(unusable.reason, unusable.detail) from None
    if written is None:
        raise UnusableRow("no answers")
    return read_calls(written, offer)
