"""Rows as the trainer sees them, in the terminal: tokens or text, the trained part, lengths."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from calltune.data.batching import TokenRow
from calltune.data.prepared import PreparedRow
from calltune.terminal_text import escape_for_terminal, escape_line

if TYPE_CHECKING:
    from rich.text import Text

NEAR = 0.9
"""A row of at least this share of the limit is near it."""


def print_row(row: TokenRow, tokenizer: Any) -> None:
    """Print one row: the prompt dim, the trained tokens green, special tokens reversed."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    trained = len(row.tokens) - row.completion_start
    title = f"{escape_line(row.id)}: {len(row.tokens)} tokens, {trained} trained on"
    console.rule(Text(title), align="left", style="dim")
    console.print(_as_text(row.tokens[: row.completion_start], tokenizer, "dim"), soft_wrap=True)
    # Colours are lost where the output is no terminal; this line is not.
    console.print(Text(f"──── trained from here on: {trained} tokens ────", "bold green"))
    console.print(_as_text(row.tokens[row.completion_start :], tokenizer, "green"), soft_wrap=True)
    console.print()


def print_lengths(rows: Sequence[TokenRow], too_long: Sequence[str], limit: int) -> None:
    """Print how long the rows are, and how many are dropped or near the limit of tokens."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    lengths = sorted(len(row.tokens) for row in rows)
    if lengths:
        trained = sum(len(row.tokens) - row.completion_start for row in rows) / sum(lengths)
        console.print(
            f"{len(rows)} rows: shortest {lengths[0]}, median {lengths[len(lengths) // 2]}, "
            f"longest {lengths[-1]} tokens; {trained:.0%} of all tokens are trained on"
        )
    near = sum(length >= NEAR * limit for length in lengths)
    console.print(f"Limit {limit} tokens: {len(too_long)} rows dropped, {near} rows near it")
    if too_long:
        named = escape_line(", ".join(too_long[:5])) + (", …" if too_long[5:] else "")
        console.print(f"  dropped: {named}")


def print_text_row(row: PreparedRow) -> None:
    """Print one row as text: the prompt dim, what is trained on green."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    trained = len(row.completion)
    title = f"{escape_line(row.id)}: {len(row.text)} characters, {trained} trained on"
    console.rule(Text(title), align="left", style="dim")
    console.print(Text(escape_for_terminal(row.prompt), "dim"), soft_wrap=True)
    console.print(Text(f"──── trained from here on: {trained} characters ────", "bold green"))
    console.print(Text(escape_for_terminal(row.completion), "green"), soft_wrap=True)
    console.print()


def print_text_lengths(rows: Sequence[PreparedRow]) -> None:
    """Print how long the rows are, in characters, and how to see tokens."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    lengths = sorted(len(row.text) for row in rows)
    trained = sum(len(row.completion) for row in rows) / sum(lengths)
    console.print(
        f"{len(rows)} rows: shortest {lengths[0]}, median {lengths[len(lengths) // 2]}, "
        f"longest {lengths[-1]} characters; {trained:.0%} of all characters are trained on"
    )
    console.print("Give --model for tokens and the limit of a training run")


def _as_text(tokens: Sequence[int], tokenizer: Any, style: str) -> "Text":
    from rich.text import Text

    text = Text()
    special = set(tokenizer.all_special_ids) | {
        id for id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    plain: list[int] = []
    for token in [*tokens, None]:
        if token is not None and token not in special:
            plain.append(token)
            continue
        text.append(escape_for_terminal(tokenizer.decode(plain)), style)
        plain = []
        if token is not None:
            text.append(escape_for_terminal(tokenizer.decode([token])), f"reverse {style}")
    return text
