"""Grammars in llguidance's Lark syntax, built rule by rule.

Source: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from typing import Any

from calltune.files import dumps

MAX_RULES = 20_000


class TooLarge(Exception):
    """A grammar would have more than `MAX_RULES` rules."""


class LarkGrammar:
    """A grammar under construction; rules with equal bodies are one rule."""

    def __init__(self) -> None:
        self._bodies: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._memo: dict[str, str] = {}

    def rule(self, body: str) -> str:
        """The name of the rule with this body, added if it is new.

        Raises:
            TooLarge: the grammar has as many rules as it may have.
        """
        if body not in self._names:
            self._names[body] = self._add(body, "r")
        return self._names[body]

    def terminal(self, body: str) -> str:
        """The name of the terminal (read by the lexer) with this body, added if it is new.

        Raises:
            TooLarge: the grammar has as many rules as it may have.
        """
        if body not in self._names:
            self._names[body] = self._add(body, "T")
        return self._names[body]

    def cached(self, key: str, make: Callable[[], str]) -> str:
        """The rule made for this key; `make` is called the first time only."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]

    def text(self, start: str) -> str:
        """The grammar's text; `start` is the body of its first rule."""
        rules = "".join(f"{name}: {body}\n" for name, body in self._bodies.items())
        return f"start: {start}\n{rules}"

    def _add(self, body: str, kind: str) -> str:
        name = f"{kind}{len(self._bodies)}"
        if len(self._bodies) >= MAX_RULES:
            raise TooLarge
        self._bodies[name] = body
        return name


def literal(text: str) -> str:
    """The body that matches exactly this text."""
    return dumps(text).replace("\x7f", "\\u007f")


@lru_cache(maxsize=1_024)
def is_compilable(terminal: str) -> bool:
    """Whether llguidance takes the body of a terminal, which may be too large for it."""
    return not matcher_of_bytes(f"start: T\nT: {terminal}").is_error()


def matcher_of_bytes(grammar: str) -> Any:
    """The matcher of a grammar with bytes for tokens, after its first mask.

    That finds most errors (`is_error`) and most of the cost.
    """
    from llguidance import LLMatcher

    matcher = LLMatcher(_byte_tokenizer(), grammar, log_level=0)
    matcher.compute_bitmask()
    return matcher


@cache
def _byte_tokenizer() -> Any:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


def text_without(marks: Iterable[str], not_first: str = "") -> str:
    """The body of a terminal that matches text without any of `marks`.

    The text is not empty, and begins neither with white space nor with a character of `not_first`.
    """
    anything = "/(?s:.*)/"
    first = "".join(f"\\{character}" for character in not_first)
    # Python's white space includes four control characters that a regex does not.
    start = rf"/[^\s\x1c-\x1f{first}](?s:.*)/"
    return f"{start} & ~({anything} {one_of(literal(mark) for mark in marks)} {anything})"


def one_of(bodies: Iterable[str]) -> str:
    """The body that matches what one of `bodies` matches."""
    return "(" + " | ".join(dict.fromkeys(bodies)) + ")"


def repeat(body: str, min_count: int, max_count: int | None) -> str:
    """The body that matches `body` from `min_count` to `max_count` times; None: no upper limit."""
    if max_count == 0:
        return ""
    if max_count is None:
        return f"({body})*" if min_count == 0 else f"({body}){{{min_count},}}"
    return f"({body}){{{min_count},{max_count}}}"
