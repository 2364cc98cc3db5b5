"""A grammar under construction: named rules in llguidance's Lark syntax.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from collections.abc import Callable, Iterable

from calltune.files import dumps

MAX_RULES = 20_000


class TooLarge(Exception):
    """A grammar of more than `MOST_RULES` rules."""


class Lark:
    """Rules by name; equal bodies share one rule, and recursion goes through `named`."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._memo: dict[str, str] = {}

    def rule(self, body: str) -> str:
        """The name of the rule with this body."""
        if body not in self._names:
            self._names[body] = self._add(body, "r")
        return self._names[body]

    def terminal(self, body: str) -> str:
        """The name of the terminal (what is read as one piece) with this body."""
        if body not in self._names:
            self._names[body] = self._add(body, "T")
        return self._names[body]

    def once(self, key: str, make: Callable[[], str]) -> str:
        """What `make` gave for this key when it was first asked for."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def text(self, start: str) -> str:
        """The whole grammar; `start` is the body of its first rule."""
        rules = "".join(f"{name}: {body}\n" for name, body in self._bodies.items())
        return f"start: {start}\n{rules}"

    def _add(self, body: str, kind: str) -> str:
        name = f"{kind}{len(self._bodies)}"
        if len(self._bodies) >= MAX_RULES:
            raise TooLarge
        self._bodies[name] = body
        return name


def literal(text: str) -> str:
    """A text that is written as it stands."""
    return dumps(text).replace("\x7f", "\\u007f")


def text_without(marks: Iterable[str], not_first: str = "") -> str:
    """The body of a terminal: a text that begins with no white space and holds no mark.

    `not_first` are further letters that it does not begin with.
    """
    anything = "/(?s:.*)/"
    first = "".join(f"\\{letter}" for letter in not_first)
    # What Python takes for white space: four control characters more than a regex does.
    start = rf"/[^\s\x1c-\x1f{first}](?s:.*)/"
    return f"{start} & ~({anything} {either(literal(mark) for mark in marks)} {anything})"


def either(bodies: Iterable[str]) -> str:
    """One of several."""
    return "(" + " | ".join(dict.fromkeys(bodies)) + ")"


def repeated(body: str, least: int, most: int | None) -> str:
    """So many of them; None is any number from the least on."""
    if most == 0:
        return ""
    if most is None:
        return f"({body})*" if least == 0 else f"({body}){{{least},}}"
    return f"({body}){{{least},{most}}}"
