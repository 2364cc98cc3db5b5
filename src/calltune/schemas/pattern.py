r"""Regular expressions of JSON Schema (`pattern`) as llguidance's, over a string's JSON text.

A pattern speaks of a string's characters, and may match anywhere in it. A grammar speaks of what
is written: quotes, backslashes and control characters are escapes there, and escapes of escapes in
JSON within a JSON string. So a pattern is parsed, its anchors are resolved, and every character and
class in it is written anew. `\d`, `\w` and `\s` are Unicode's, as in Python's `re`, which checks
calls; `$` is the end alone, as in JavaScript.

Source: ECMA-262, chapter 22.2, without what needs more than a finite automaton; Rust's
regex-syntax.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple
from unicodedata import category

MAX_COUNT = 2_000
"""Patterns that count further are not translated."""
_ESCAPED = frozenset('"\\' + "".join(map(chr, range(0x20))))
"""The characters that JSON text does not hold as they are."""
_ESCAPED_CLASS = r'"\\\x00-\x1f'
"""The same within a class of a regular expression."""
_CONTROL_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_BEYOND = {
    **dict.fromkeys(("?=", "?!", "?<=", "?<!"), "look-around"),
    **dict.fromkeys("bB", "a word boundary"),
    **dict.fromkeys("k123456789", "a back-reference"),
}


class UnsupportedPattern(Exception):
    """A pattern that no grammar can hold a string to; the message says what in it."""


class _Item(NamedTuple):
    """A part of a character class."""

    text: str
    """In the syntax of Rust's classes."""
    escaped: frozenset[str]
    """Which of the characters in it are written as escapes."""
    has_plain: bool = True
    """Whether it has characters that are written as they are."""


@dataclass(frozen=True, slots=True)
class _Class:
    items: tuple[_Item, ...]
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class _Edge:
    """The beginning or the end of the string."""

    is_start: bool


@dataclass(frozen=True, slots=True)
class _Free:
    """Any characters, before or after what is searched for."""


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: "tuple[_Node, ...]"


@dataclass(frozen=True, slots=True)
class _Choice:
    parts: "tuple[_Node, ...]"
    flags: str = ""


@dataclass(frozen=True, slots=True)
class _Repeat:
    part: "_Node"
    count: str


_Node = _Class | _Edge | _Free | _Sequence | _Choice | _Repeat


def translate(pattern: str, write: Callable[[str], str], any_character: str) -> str:
    """The regular expression of the JSON text, without its quotes, of strings with a match.

    Args:
        pattern: the regular expression of the schema.
        write: gives a character's JSON text.
        any_character: the regular expression of any character's JSON text.

    Raises:
        UnsupportedPattern: it is none, or needs more than a finite automaton.
    """
    try:
        node = _at_edge(_Parser(pattern).whole(), is_start=True)
        return _Writer(write, any_character).text(_at_edge(node, is_start=False))
    except RecursionError:
        raise UnsupportedPattern("groups nested too deeply") from None


class _Parser:
    """A recursive-descent parser for one pattern."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def whole(self) -> _Node:
        node = self._choice("i" if self._accept("(?i)") else "")
        if self._at < len(self._text):
            raise UnsupportedPattern("a bracket that was not opened")
        return node

    @property
    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _accept(self, text: str) -> bool:
        is_next = self._text.startswith(text, self._at)
        self._at += len(text) if is_next else 0
        return is_next

    def _take(self) -> str:
        if not (character := self._next):
            raise UnsupportedPattern("an unexpected end")
        self._at += 1
        return character

    def _take_until(self, closing: str) -> str:
        end = self._text.find(closing, self._at)
        if end < 0:
            raise UnsupportedPattern("an unexpected end")
        taken, self._at = self._text[self._at : end], end + len(closing)
        return taken

    def _choice(self, flags: str = "") -> _Node:
        parts = [self._sequence()]
        while self._accept("|"):
            parts.append(self._sequence())
        return _Choice(tuple(parts), flags)

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while self._next not in ("", "|", ")"):
            part = self._atom()
            while count := self._count():
                if isinstance(part, _Edge):
                    raise UnsupportedPattern("a repeated anchor")
                part = _Repeat(part, count)
            parts.append(part)
        return _Sequence(tuple(parts))

    def _count(self) -> str:
        count = self._take() if self._next in ("*", "+", "?") else self._braces()
        if count and self._accept("+"):
            raise UnsupportedPattern("a possessive quantifier")
        if count:
            # A lazy quantifier matches the same strings.
            self._accept("?")
        return count

    def _braces(self) -> str:
        """`{2}`, `{2,}` or `{2,3}`; "" where a brace is a character like others."""
        if self._next != "{" or (end := self._text.find("}", self._at, self._at + 16)) < 0:
            return ""
        few, comma, many = self._text[self._at + 1 : end].partition(",")
        if not all(each.isdecimal() and each.isascii() for each in (few + many, few or "0")):
            return ""
        if not few or (many and int(many) < int(few)):
            raise UnsupportedPattern("a count that is none")
        if max(int(few), int(many or 0)) > MAX_COUNT:
            raise UnsupportedPattern(f"a count above {MAX_COUNT:,}")
        self._at = end + 1
        return f"{{{few}{comma}{many}}}"

    def _atom(self) -> _Node:
        match character := self._take():
            case "^" | "$":
                return _Edge(character == "^")
            case ".":
                return _Class((_one("\n"),), is_negated=True)
            case "(":
                return self._group()
            case "[":
                return self._class()
            case "\\":
                return self._escape()
            case "*" | "+" | "?":
                raise UnsupportedPattern("a quantifier of nothing")
        return _Class((_one(character),))

    def _group(self) -> _Node:
        if opening := next((each for each in _BEYOND if self._accept(each)), None):
            raise UnsupportedPattern(_BEYOND[opening])
        flags = "i" if self._accept("?i:") else ""
        if self._accept("?P<") or self._accept("?<"):
            self._take_until(">")
        elif not flags and not self._accept("?:") and self._next == "?":
            raise UnsupportedPattern("flags in its middle")
        inside = self._choice(flags)
        if self._take() != ")":
            raise UnsupportedPattern("a bracket that is not closed")
        return inside

    def _escape(self) -> _Node:
        if self._next in ("A", "Z", "z"):
            return _Edge(self._take() == "A")
        if self._next in _BEYOND:
            raise UnsupportedPattern(_BEYOND[self._next])
        found = self._escaped()
        return _Class((found if isinstance(found, _Item) else _one(found),))

    def _class(self) -> _Node:
        is_negated = self._accept("^")
        if self._next == "]":
            raise UnsupportedPattern("an empty class")
        items: list[_Item] = []
        while not self._accept("]"):
            first = self._class_part()
            if self._next == "-" and self._text[self._at + 1 : self._at + 2] not in ("", "]"):
                self._take()
                items += _range(first, self._class_part())
            else:
                items.append(first if isinstance(first, _Item) else _one(first))
        return _Class(tuple(items), is_negated)

    def _class_part(self) -> str | _Item:
        character = self._take()
        if character != "\\":
            return character
        return "\b" if self._accept("b") else self._escaped()

    def _escaped(self) -> str | _Item:
        """The character, or the class, of an escape after its backslash."""
        letter = self._take()
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in "pP":
            return self._property(is_negated=letter == "P")
        if letter in _CONTROL_LETTERS:
            return _CONTROL_LETTERS[letter]
        if letter in "xu":
            return self._code_point(letter)
        if letter == "c" and self._next.isascii() and self._next.isalpha():
            return chr(ord(self._take()) % 32)
        if letter.isalnum():
            raise UnsupportedPattern(f"the escape \\{letter}")
        return letter

    def _code_point(self, letter: str) -> str:
        if letter == "u" and self._accept("{"):
            digits = self._take_until("}")
        else:
            digits = self._text[self._at : self._at + (2 if letter == "x" else 4)]
            self._at += len(digits)
        try:
            code = int(digits[:8], 16)
            if 0xD800 <= code < 0xDC00 and self._accept("\\u"):
                code = 0x10000 + (code - 0xD800) * 0x400 + ord(self._code_point("u")) - 0xDC00
            return chr(code)
        except ValueError:
            raise UnsupportedPattern(f"the escape \\{letter}{digits[:8]}") from None

    def _property(self, is_negated: bool) -> _Item:
        name = self._take_until("}") if self._accept("{") else self._take()
        short = name.removeprefix("General_Category=").removeprefix("gc=")
        if short not in _categories():
            raise UnsupportedPattern(f"\\p{{{name[:40]}}}")
        within = (c for c in _ESCAPED if category(c).startswith(short) != is_negated)
        return _Item(f"\\{'P' if is_negated else 'p'}{{{short}}}", frozenset(within))


class _Writer:
    def __init__(self, write: Callable[[str], str], any_character: str) -> None:
        self._write = write
        self._any = any_character

    def text(self, node: _Node) -> str:
        match node:
            case _Free():
                return f"(?:{self._any})*"
            case _Edge():
                raise UnsupportedPattern("an anchor in its middle")
            case _Sequence(parts=parts):
                return "".join(map(self.text, parts))
            case _Choice(parts=parts, flags=flags):
                return f"(?{flags}:{'|'.join(map(self.text, parts))})"
            case _Repeat(part=part, count=count):
                return f"(?:{self.text(part)}){count}"
            case _Class():
                return self._class(node)

    def _class(self, node: _Class) -> str:
        within = frozenset[str]().union(*(item.escaped for item in node.items))
        written = [item.text for item in node.items if item.has_plain]
        if node.is_negated:
            plain = f"[^{''.join(written)}{_ESCAPED_CLASS}]"
        elif written and within:
            plain = f"[[{''.join(written)}]--[{_ESCAPED_CLASS}]]"
        else:
            plain = f"[{''.join(written)}]" if written else ""
        escaped = sorted(_ESCAPED - within if node.is_negated else within)
        texts = [literal_regex(self._write(character)) for character in escaped]
        return f"(?:{'|'.join(filter(None, [plain, *texts]))})"


def literal_regex(text: str) -> str:
    """The regular expression that matches exactly this text."""
    return "".join(c if c.isascii() and c.isalnum() else _code(c) for c in text)


def _at_edge(node: _Node, is_start: bool) -> _Node:
    """The node with free characters before its beginning or after its end, but for an anchor."""
    match node:
        case _Edge(is_start=side) if side == is_start:
            return _Sequence(())
        case _Sequence(parts=parts) if parts and is_start:
            return _Sequence((_at_edge(parts[0], is_start), *parts[1:]))
        case _Sequence(parts=parts) if parts:
            return _Sequence((*parts[:-1], _at_edge(parts[-1], is_start)))
        case _Choice(parts=parts, flags=flags):
            return _Choice(tuple(_at_edge(part, is_start) for part in parts), flags)
    return _Sequence((_Free(), node) if is_start else (node, _Free()))


def _code(character: str) -> str:
    if "\ud800" <= character <= "\udfff":
        raise UnsupportedPattern("half of a surrogate pair")
    return f"\\x{{{ord(character):X}}}"


def _one(character: str) -> _Item:
    escaped = frozenset(character) & _ESCAPED
    return _Item(_code(character), escaped, not escaped)


def _range(first: str | _Item, last: str | _Item) -> list[_Item]:
    if isinstance(first, _Item) or isinstance(last, _Item):
        # Beside a class a hyphen is one.
        ends = (each if isinstance(each, _Item) else _one(each) for each in (first, last))
        return [*ends, _one("-")]
    if first > last:
        raise UnsupportedPattern("a range that is none")
    within = frozenset(c for c in _ESCAPED if first <= c <= last)
    return [_Item(f"{_code(first)}-{_code(last)}", within, last > "\x1f" and first + last != '""')]


@cache
def _categories() -> frozenset[str]:
    names = {category(chr(code)) for code in range(0x3000)} - {"Cs", "Cn"}
    return frozenset(names | {name[0] for name in names})


_SPACES = frozenset("\t\n\v\f\r")
_CLASSES = {
    "d": _Item(r"\d", frozenset()),
    "D": _Item(r"\D", _ESCAPED),
    "w": _Item(r"\w", frozenset()),
    "W": _Item(r"\W", _ESCAPED),
    "s": _Item(r"\s", _SPACES),
    "S": _Item(r"\S", _ESCAPED - _SPACES),
}
