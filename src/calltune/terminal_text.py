"""Escapes text from models and datasets, so that a terminal shows control characters literally."""


def escape_for_terminal(text: str, max_characters: int | None = None) -> str:
    """`text` with all characters escaped that are neither printable nor line ends.

    That includes the characters that change the direction of writing, and lone surrogates. A text
    longer than `max_characters` is truncated, and says how many characters are missing.
    """
    n_more = 0 if max_characters is None else len(text) - max_characters
    shown = f"{text[:max_characters]}… ({n_more:,} more characters)" if n_more > 0 else text
    if shown.replace("\n", "").isprintable():
        return shown  # The usual case; going through a long text one character at a time is slow.
    return "".join(
        character if character == "\n" or character.isprintable() else ascii(character)[1:-1]
        for character in shown
    )


def escape_line(text: str, max_characters: int | None = None) -> str:
    """As `escape_for_terminal`, with line ends escaped as well: for names and other one-liners."""
    return escape_for_terminal(text, max_characters).replace("\n", "\\n")
