"""Text that would do harm where it is taken for more than text."""

HOSTILE = (
    '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    # Colour, a link, the bell, back to the line's beginning, and a turn of the writing's direction.
    "\x1b[31m\x1b]8;;http://elsewhere\x07link\x1b]8;;\x07\r\x9b2J\u202e\u2028"
    "../../etc/[bold]x[/bold][/nothing]{{ 7 * 7 }}\ud83d\x00"
)
"""A name or a text with markup of HTML, rich and jinja, terminal codes and a path."""


def obeyed(shown: str) -> set[str]:
    """What of `shown` a terminal would obey, rather than show."""
    return {letter for letter in shown if letter != "\n" and not letter.isprintable()}
