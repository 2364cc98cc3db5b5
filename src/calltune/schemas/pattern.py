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

from calltune.schemas.pattern_parser import (
    ESCAPED,
    ESCAPED_CLASS,
    CharacterClass,
    Choice,
    Edge,
    Free,
    Node,
    PatternParser,
    Repeat,
    Sequence,
    UnsupportedPattern,
    code_point,
)


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
        node = _at_edge(PatternParser(pattern).whole(), is_start=True)
        return _Writer(write, any_character).text(_at_edge(node, is_start=False))
    except RecursionError:
        raise UnsupportedPattern("groups nested too deeply") from None


def can_translate(pattern: str) -> bool:
    """Whether a pattern is one that `translate` can read."""
    try:
        translate(pattern, str, ".")
    except UnsupportedPattern:
        return False
    return True


class _Writer:
    def __init__(self, write: Callable[[str], str], any_character: str) -> None:
        self._write = write
        self._any = any_character

    def text(self, node: Node) -> str:
        match node:
            case Free():
                return f"(?:{self._any})*"
            case Edge():
                raise UnsupportedPattern("an anchor in its middle")
            case Sequence(parts=parts):
                return "".join(map(self.text, parts))
            case Choice(parts=parts, flags=flags):
                return f"(?{flags}:{'|'.join(map(self.text, parts))})"
            case Repeat(part=part, count=count):
                return f"(?:{self.text(part)}){count}"
            case CharacterClass():
                return self._class(node)

    def _class(self, node: CharacterClass) -> str:
        within = frozenset[str]().union(*(item.escaped for item in node.items))
        written = [item.text for item in node.items if item.has_plain]
        if node.is_negated:
            plain = f"[^{''.join(written)}{ESCAPED_CLASS}]"
        elif written and within:
            plain = f"[[{''.join(written)}]--[{ESCAPED_CLASS}]]"
        else:
            plain = f"[{''.join(written)}]" if written else ""
        escaped = sorted(ESCAPED - within if node.is_negated else within)
        texts = [literal_regex(self._write(character)) for character in escaped]
        return f"(?:{'|'.join(filter(None, [plain, *texts]))})"


def literal_regex(text: str) -> str:
    """The regular expression that matches exactly this text."""
    return "".join(c if c.isascii() and c.isalnum() else code_point(c) for c in text)


def _at_edge(node: Node, is_start: bool) -> Node:
    """The node with free characters before its beginning or after its end, but for an anchor."""
    match node:
        case Edge(is_start=side) if side == is_start:
            return Sequence(())
        case Sequence(parts=parts) if parts and is_start:
            return Sequence((_at_edge(parts[0], is_start), *parts[1:]))
        case Sequence(parts=parts) if parts:
            return Sequence((*parts[:-1], _at_edge(parts[-1], is_start)))
        case Choice(parts=parts, flags=flags):
            return Choice(tuple(_at_edge(part, is_start) for part in parts), flags)
    return Sequence((Free(), node) if is_start else (node, Free()))
