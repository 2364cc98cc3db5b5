"""Reader of glaive-function-calling-v2: the tools in a system text, and the chat in one text.

Turns begin with USER, ASSISTANT and FUNCTION RESPONSE; a call is `<functioncall>` with JSON whose
arguments are JSON in single quotes.

Source: https://huggingface.co/datasets/glaiveai/glaive-function-calling-v2
"""

import re

from calltune.data.readers.conversation import parse_conversation
from calltune.data.readers.examples import ParsedRow
from calltune.schemas.tools import UnusableRow, check_json
from calltune.types import Json

_SPEAKER = re.compile(r"^(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*", re.MULTILINE)
_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}
_END = "<|endoftext|>"


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has the keys of this dataset format."""
    return "chat" in row and "system" in row


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """One example for each turn of the model that calls tools.

    Raises:
        UnusableRow: no query, no tools, no turn to learn from, or a turn that cannot be read.
    """
    check_json(row)
    chat, system = row.get("chat"), row.get("system")
    if not isinstance(chat, str) or not isinstance(system, str):
        raise UnusableRow("chat that is not text", chat)
    pieces = _SPEAKER.split(chat)
    if pieces[0].strip():
        raise UnusableRow("chat that begins with nobody's turn", pieces[0])
    messages = [
        {"role": _ROLES[speaker], "content": text.strip().removesuffix(_END).strip()}
        for speaker, text in zip(pieces[1::2], pieces[2::2], strict=True)
    ]
    told = {"role": "system", "content": system.removeprefix("SYSTEM:").strip()}
    rest = {key: value for key, value in row.items() if key not in ("chat", "system")}
    return parse_conversation({**rest, "messages": [told, *messages]}, row_id, "messages", "glaive")
