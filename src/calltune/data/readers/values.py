"""Values in text: JSON, or Python literals that JSON can hold, as many published rows have them.

A key that stands twice in one object is refused: which of its values is meant, nobody knows.
"""

import ast
import json
import re
import warnings
from typing import NamedTuple

from calltune.schemas.tools import UnusableRow, check_json
from calltune.types import Json

MAX_LITERAL_LENGTH = 200_000
"""Python literals longer than this, in characters, are not evaluated."""
_CONSTANTS = {"true": True, "false": False, "null": None}
_SINGLE_QUOTED_JSON = re.compile(r"""(["'])arguments\1\s*:\s*'(?=\s*[{\[])""")
_PLAIN = re.compile(r"[^\[\]{}()\"']*")
_CLOSING = {"[": "]", "{": "}", "(": ")"}


class Located(NamedTuple):
    """A value that was found in a text, and the index after it."""

    value: Json
    end: int


class _DuplicateKey(ValueError):
    pass


def decode_text(text: str, reason: str) -> Json:
    """The value that a whole text spells, as JSON or else as a Python literal.

    Raises:
        UnusableRow: with `reason`, if it is neither; or as `check_json`.
    """
    stripped = text.strip()
    try:
        found = _locate(stripped, 0) if stripped[:1] in ("{", "[") else _json_at(stripped, 0)
    except _DuplicateKey as error:
        raise UnusableRow("a key twice in one object", str(error)) from None
    except (RecursionError, ValueError):
        found = None
    if found is None or found.end != len(stripped):
        found = _literal(stripped)
    if found is None:
        raise UnusableRow(reason, text)
    return check_json(found.value)


def locate_value(text: str, at: int) -> Located | None:
    """The list or object that begins at `at`, and where it ends; None if none does.

    Besides JSON and Python literals it reads Glaive's calls, whose arguments are JSON in single
    quotes that nothing escapes.

    Raises:
        UnusableRow: a key stands twice in one object, it is nested too deeply, or as `check_json`.
    """
    try:
        found = _locate(text, at)
    except _DuplicateKey as error:
        raise UnusableRow("a key twice in one object", str(error)) from None
    except RecursionError:
        raise UnusableRow("nested too deeply") from None
    if found is not None:
        check_json(found.value)
    return found


def _locate(text: str, at: int) -> Located | None:
    """As `locate_value`, with the decoder's own errors."""
    try:
        return _json_at(text, at)
    except _DuplicateKey:
        raise
    except ValueError:
        pass
    if (glaive := _single_quoted(text, at)) is not None:
        return glaive
    end = closing_index(text, at)
    if end is None or (literal := _literal(text[at:end])) is None:
        return None
    return Located(literal.value, end)


def closing_index(text: str, at: int) -> int | None:
    """The index after the bracket that closes the one at `at`; None where nothing closes it.

    Brackets in strings do not count; strings have either kind of quotes.
    """
    open_brackets: list[str] = []
    while at < len(text):
        character = text[at]
        if character in "\"'":
            at = _string_end(text, at)
            continue
        if character in _CLOSING:
            open_brackets.append(_CLOSING[character])
        elif character in "]})" and (not open_brackets or open_brackets.pop() != character):
            return None
        at += 1
        if not open_brackets:
            return at
        plain = _PLAIN.match(text, at)
        at = plain.end() if plain else at
    return None


def split_arguments(text: str) -> list[str]:
    """The parts of a list of arguments between its commas; those in strings and brackets stay."""
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] in "\"'":
            at = _string_end(text, at)
        elif text[at] in _CLOSING:
            at = closing_index(text, at) or len(text)
        elif text[at] == ",":
            parts.append(text[start:at])
            start = at = at + 1
        else:
            at += 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _string_end(text: str, at: int) -> int:
    """The index after the string whose quotes begin at `at`, or the text's length."""
    mark = text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]
    at += len(mark)
    while at < len(text) and not text.startswith(mark, at):
        at += 2 if text[at] == "\\" else 1
    return min(at + len(mark), len(text))


def _json_at(text: str, at: int) -> Located:
    value, end = _DECODER.raw_decode(text, at)
    return Located(value, end)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKey(key)
        found[key] = value
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _single_quoted(text: str, at: int) -> Located | None:
    """Glaive's `{"name": "f", "arguments": '{"x": "it's"}'}`: its quotes become JSON's."""
    opening = _SINGLE_QUOTED_JSON.search(text, at)
    if opening is None:
        return None
    try:
        inner = _json_at(text, opening.end() + _spaces(text, opening.end()))
    except (ValueError, RecursionError):
        return None
    after = inner.end + _spaces(text, inner.end)
    if text[after : after + 1] != "'":
        return None
    # With its arguments in place of their quotes, the call is JSON from its first brace on.
    head = text[at : opening.end() - 1]
    argument = text[opening.end() : inner.end]
    rest = text[after + 1 :]
    joined = f"{head}{argument}{rest}"
    nested = _locate(joined, 0)
    if nested is None or nested.end <= len(head):
        return None
    return Located(nested.value, at + nested.end + (len(text) - at - len(joined)))


def _spaces(text: str, at: int) -> int:
    return len(text[at:]) - len(text[at:].lstrip())


def _literal(text: str) -> Located | None:
    """A Python literal, with JSON's names of constants too; None if the text is none."""
    if not text or len(text) > MAX_LITERAL_LENGTH:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text, mode="eval")
            value = ast.literal_eval(_with_constants(tree).body)
            written = json.dumps(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return Located(json.loads(written), len(text))


def _with_constants(tree: ast.Expression) -> ast.Expression:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            if len(set(map(repr, keys))) < len(keys):
                raise ValueError("a key twice")
    renamed = _Constants().visit(tree)
    assert isinstance(renamed, ast.Expression)
    return renamed


class _Constants(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in _CONSTANTS:
            return node
        return ast.copy_location(ast.Constant(_CONSTANTS[node.id]), node)
