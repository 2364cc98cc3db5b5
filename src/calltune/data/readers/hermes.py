"""Reader of ShareGPT's form: conversations of `from` and `value`, with tools and calls.

Tools are in a column of their own, in `<tools>` of the system message, or listed in its text. Calls
are in `<tool_call>` (Hermes), in turns of `function_call` and `observation` (LLaMA-Factory,
APIGen-MT), in Python (ToolACE), or in any other notation; a column `system` is a system message.
ChatGLM3's conversations, whose turns of a tool hold the call and the result, are read as well.

Source: https://huggingface.co/datasets/NousResearch/hermes-function-calling-v1,
https://huggingface.co/datasets/Salesforce/APIGen-MT-5k,
https://huggingface.co/datasets/Team-ACE/ToolACE
"""

from calltune.data.readers.conversation import parse_conversation
from calltune.data.readers.examples import ParsedRow
from calltune.types import Json


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has the keys of this dataset format."""
    return "conversations" in row


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """One example for each turn of the model that calls tools.

    Raises:
        UnusableRow: no query, no tools, no turn to learn from, or a message that cannot be read.
    """
    return parse_conversation(row, row_id, "conversations", "hermes")
