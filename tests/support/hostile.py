"""Text that does harm where it is interpreted as markup, terminal codes or a path."""

HOSTILE = (
    '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
    # Colour, a link, the bell, back to the line's beginning, and a turn of the writing's direction.
    "\x1b[31m\x1b]8;;http://elsewhere\x07link\x1b]8;;\x07\r\x9b2J\u202e\u2028"
    "../../etc/[bold]x[/bold][/nothing]{{ 7 * 7 }}\ud83d\x00"
)
"""A name or a text with markup of HTML, rich and jinja, terminal codes and a path."""


def obeyed(shown: str) -> set[str]:
    """The characters of `shown` that a terminal would interpret rather than show."""
    return {each for each in shown if each != "\n" and not each.isprintable()}
