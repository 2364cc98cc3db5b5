"""Reader of OpenAI's fine-tuning format: messages with tool calls, and tools.

The older spelling with `functions` and `function_call` is read too, and so are Anthropic's blocks
and calls in the text of a message, as When2Call has them. An assistant turn of the weight 0 gives
no example.

Source: https://platform.openai.com/docs/guides/supervised-fine-tuning
"""

from calltune.data.readers.conversation import parse_conversation
from calltune.data.readers.examples import ParsedRow
from calltune.schemas.tools import UnusableRow
from calltune.types import Json

_PREFERENCE = ("chosen", "rejected", "chosen_response", "rejected_response")


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has the keys of this dataset format."""
    return "messages" in row


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """One example for each assistant turn that calls tools, and has not the weight 0.

    Raises:
        UnusableRow: no query, no tools, no turn to learn from, or a message that cannot be read.
    """
    try:
        return parse_conversation(row, row_id, "messages", "openai")
    except UnusableRow as unusable:
        if unusable.reason == "no turn to learn from" and any(row.get(key) for key in _PREFERENCE):
            raise UnusableRow(
                "pairs of preferences are not read; use the dataset's files for supervised "
                "fine-tuning",
                [key for key in _PREFERENCE if row.get(key)],
            ) from None
        raise
