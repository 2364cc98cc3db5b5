"""Text that models and datasets wrote, made safe to show: a terminal obeys control characters."""


def escape_for_terminal(text: str, most: int | None = None) -> str:
    """`text` cut to `most` letters, with all but printable letters and line ends as escapes.

    So are the marks that turn the direction of writing, and halves of surrogate pairs.
    """
    more = 0 if most is None else len(text) - most
    cut = f"{text[:most]}… ({more:,} more letters)" if more > 0 else text
    if cut.replace("\n", "").isprintable():
        return cut  # Most texts are; looking at each letter of thousands takes seconds.
    return "".join(
        letter if letter == "\n" or letter.isprintable() else ascii(letter)[1:-1] for letter in cut
    )


def escape_line(text: str, most: int | None = None) -> str:
    """The same for a name, or whatever else must not begin a line of its own."""
    return escape_for_terminal(text, most).replace("\n", "\\n")
