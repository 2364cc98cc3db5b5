"""Examples of one row: what every reader returns, and conversations cut into examples."""

from collections.abc import Collection
from dataclasses import dataclass

from calltune.data.readers.offer import RowTools
from calltune.schemas.tools import UnusableRow
from calltune.types import Example, Json, Message, exact_answer

MAX_MESSAGES = 500
"""Each example holds all messages before it, so a conversation's length must be bounded."""


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """What a reader makes of one row of a dataset."""

    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    """What was not understood but does no harm: types, a tool offered twice."""


def row_name(row: dict[str, Json], fallback: str) -> str:
    """The row's own `id` where it has one, else `fallback`."""
    own = row.get("id")
    return str(own) if isinstance(own, str | int) and not isinstance(own, bool) else fallback


def split_conversation(
    messages: tuple[Message, ...],
    offer: RowTools,
    row: str,
    source: str,
    untrained: Collection[int] = (),
) -> ParsedRow:
    """One example per assistant turn that calls tools, with the turns before it as its messages.

    A conversation without calls that ends with an answer in words to a user's turn gives one
    example that calls nothing.

    Args:
        messages: the whole conversation.
        offer: the tools on offer in all of it.
        row: the row's id; an example's id is this with the index of its turn.
        source: the dataset, as `Example.source`.
        untrained: indexes of turns that give no example.

    Raises:
        UnusableRow: the conversation is too long, or gives no example.
    """
    if len(messages) > MAX_MESSAGES:
        raise UnusableRow(f"more than {MAX_MESSAGES} messages", len(messages))
    if not any(m.role == "user" and m.content.strip() for m in messages):
        raise UnusableRow("no query")
    turns = [index for index, message in enumerate(messages) if message.calls]
    if not turns and _ends_in_words(messages):
        turns = [len(messages) - 1]
    found = tuple(
        Example(
            id=f"{row}#{turn}",
            messages=messages[:turn],
            tools=offer.tools,
            answers=tuple(exact_answer(call) for call in messages[turn].calls),
            source=source,
        )
        for turn in turns
        if turn not in untrained and any(m.role == "user" for m in messages[:turn])
    )
    if not found:
        raise UnusableRow("no turn to learn from")
    return ParsedRow(found, offer.notes)


def _ends_in_words(messages: tuple[Message, ...]) -> bool:
    if len(messages) < 2 or messages[-1].role != "assistant":
        return False
    return messages[-2].role == "user" and bool(messages[-1].content.strip())
