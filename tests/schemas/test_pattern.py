"""Patterns in grammars: they match what Python's `re` matches, plain and in a string."""

import re

import pytest

from support.schema_grammar import grammar_of

PATTERNS = [
    *(r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,}$", r"^https?:\/\/\S+$"),
    *(r"^[\w\-]+$", "cat", "^a|b$", r'["\\]x', '^[^"]*$', r"\s", ".", "^$", "", "^(a|b)*$"),
    *(r"^[\x00-\x1f]+$", "(?i)^abc$", r"^\d{3}-\d{4}$", r"^[^\s]+$", '^["]$', r"^\\$", "é"),
    *(r"^[\s\S]*$", r"^[A-Z][^\n]*$", "^[à-ü]$", r"^(?P<x>a)(?:b)*?x?$", r"^[^\W_]+$"),
]
TEXTS = [
    *("a.com", "http://x/y", "a-b", "the cat", "ab", "ba", '"x', "\\x", 'x"', "a b", "a\n", ""),
    *("\x01\x02", "ABC", "abc", "123-4567", '"', "\\", "é", 'A\t"b', "\x7f", "\u2028", "ü"),
    *("a-.com", "xb", "bx", "🙂", "_"),
]


@pytest.mark.parametrize("is_quoted", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_string_is_held_to_its_pattern(pattern: str, is_quoted: bool) -> None:
    grammar = grammar_of({"type": "string", "pattern": pattern}, is_quoted)
    assert not grammar.notes
    # Python's $ also matches before a last line feed.
    python = pattern if pattern.endswith(r"\$") else pattern.replace("$", r"\Z")
    for text in TEXTS:
        assert grammar.accepts(text) == bool(re.search(python, text)), text


@pytest.mark.parametrize("is_quoted", [False, True])
def test_escapes_of_javascript_mean_the_same(is_quoted: bool) -> None:
    grammar = grammar_of(
        {"type": "string", "pattern": r"^\p{Lu}\cA\u{e9}\u0041[\p{Nd}.]$"}, is_quoted
    )
    assert not grammar.notes
    assert grammar.accepts("É\x01éA7") and not grammar.accepts("é\x01éA7")


def test_a_hyphen_beside_a_class_is_one() -> None:
    grammar = grammar_of({"type": "string", "pattern": r"^[\w-.]+@[a-\d]$"})
    assert not grammar.notes
    assert all(map(grammar.accepts, ("a-b.c@a", "é@-", "7@7"))) and not grammar.accepts("a+b@a")


@pytest.mark.parametrize("is_quoted", [False, True])
def test_a_pattern_holds_together_with_lengths(is_quoted: bool) -> None:
    schema = {"type": "string", "pattern": "^[a-z\n]+$", "minLength": 2, "maxLength": 3}
    grammar = grammar_of(schema, is_quoted)
    assert not grammar.notes
    assert [t for t in ("a", "ab", "a\n\n", "abcd", "aB") if grammar.accepts(t)] == ["ab", "a\n\n"]


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"^(?!\.)a", "look-around"),
        ("(?<=a)b", "look-around"),
        (r"(a)\1", "a back-reference"),
        (r"(?<n>a)\k<n>", "a back-reference"),
        (r"\bcat\b", "a word boundary"),
        ("a{3000}", "a count above 2,000"),
        ("a^b", "an anchor in its middle"),
        ("(?s)a", "flags in its middle"),
        ("a++", "a possessive quantifier"),
        (r"\p{Script=Greek}", r"\p{Script=Greek}"),
        ("[", "an unexpected end"),
        ("a)", "a bracket that was not opened"),
        ("(" * 5_000, "groups nested too deeply"),
    ],
)
def test_a_pattern_beyond_grammars_is_left_out_alone_and_named(pattern: str, what: str) -> None:
    grammar = grammar_of({"type": "string", "pattern": pattern, "maxLength": 3})
    assert grammar.notes == (f"pattern ({what})",)
    assert grammar.accepts("any") and not grammar.accepts("long") and not grammar.accepts(1)
