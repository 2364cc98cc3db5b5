"""Conversations, of whichever dataset format, made into examples: the part that readers share."""

from calltune.data.readers.examples import ParsedRow, row_name, split_conversation
from calltune.data.readers.offer import (
    RowTools,
    blocks,
    listed_tools,
    read_offer,
    tagged_tools,
)
from calltune.data.readers.turns import ROLES, Turn, read_turns
from calltune.data.readers.values import decode_text
from calltune.schemas.tools import UnusableRow, check_json
from calltune.types import Json, Message


def parse_conversation(row: dict[str, Json], row_id: str, key: str, source: str) -> ParsedRow:
    """One example for each turn of the model that calls tools.

    Args:
        row: one row of the dataset; beside the conversation it may have `tools` (or `functions`)
            and `system`.
        row_id: names the row where it has no id of its own.
        key: the column of the conversation.
        source: the dataset, as `Example.source`.

    Raises:
        UnusableRow: no query, no tools, no turn to learn from, or a message that cannot be read.
    """
    check_json(row)
    written = row.get(key)
    if isinstance(written, str):
        written = decode_text(written, f"{key} are not JSON")
    column = row.get("tools") or row.get("functions")
    system = row.get("system")
    texts = [*([system] if isinstance(system, str) else []), *_system_texts(written)]
    offer = read_offer(column) if column else _offer_in(texts)
    turns = [
        turn
        for turn in read_turns(written, offer)
        if turn.message.role != "system" or not _lists_tools(turn.message.content, bool(column))
    ]
    if isinstance(system, str) and system.strip() and not _lists_tools(system, bool(column)):
        first = Message("system", system)
        if not any(turn.message == first for turn in turns):
            turns.insert(0, Turn(first))
    untrained = {index for index, turn in enumerate(turns) if not turn.is_trained}
    messages = tuple(turn.message for turn in turns)
    return split_conversation(messages, offer, row_name(row, row_id), source, untrained)


def _system_texts(written: Json) -> list[str]:
    """The texts of the turns of the system, which may list the tools."""
    found: list[str] = []
    for item in written if isinstance(written, list) else []:
        if not isinstance(item, dict):
            continue
        role = item.get("role") or item.get("from")
        text = item.get("content") if item.get("content") is not None else item.get("value")
        if isinstance(role, str) and ROLES.get(role.lower()) == "system" and isinstance(text, str):
            found.append(text)
    return found


def _offer_in(texts: list[str]) -> RowTools:
    """The tools in the texts of the system.

    Raises:
        UnusableRow: there are none, or as `read_offer`.
    """
    tagged = [tool for text in texts for tool in tagged_tools(text)]
    tools = tagged or [tool for text in texts for tool in listed_tools(text)]
    if not tools:
        raise UnusableRow("no tools")
    return read_offer(tools)


def _lists_tools(text: str, has_column: bool) -> bool:
    """Whether a text of the system spells out the tools, which every prompt format does itself."""
    if "<tools>" in text:
        return bool(blocks(text, "tools"))
    return not has_column and bool(listed_tools(text))
