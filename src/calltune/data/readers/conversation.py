"""Conversations cut into examples: one for each assistant turn that calls tools."""

from collections.abc import Collection

from calltune.schemas.tools import OfferedTools, ParsedRow, UnusableRow
from calltune.types import Example, Message, exact_answer

MAX_MESSAGES = 500
"""Each example holds all messages before it, so their number must have a bound."""


def examples(
    messages: tuple[Message, ...],
    offer: OfferedTools,
    row: str,
    source: str,
    untrained: Collection[int] = (),
) -> ParsedRow:
    """One example per assistant turn that calls tools, with what came before as its messages.

    A conversation that ends with an answer in words, straight after a user's turn and without any
    call before, gives one example that calls nothing. `untrained` lists turns to pass over. An
    example's id is the row's with the number of the turn.

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
