from calltune.terminal_text import escape_for_terminal, escape_line

from support.hostile import HOSTILE, obeyed


def test_a_terminal_has_nothing_to_obey() -> None:
    assert obeyed(HOSTILE)
    assert not obeyed(escape_for_terminal(HOSTILE)) and not obeyed(escape_line(HOSTILE))
    assert (
        escape_for_terminal("a\x1b[31m\r\x07\x9b\u202e\ud83d") == r"a\x1b[31m\r\x07\x9b\u202e\ud83d"
    )


def test_letters_of_all_scripts_stay() -> None:
    assert escape_for_terminal("Zürich 東京 😀\nnext") == "Zürich 東京 😀\nnext"
    assert escape_line("one\ntwo") == r"one\ntwo"


def test_what_is_cut_is_counted() -> None:
    assert escape_for_terminal("x" * 100_000, 10) == "xxxxxxxxxx… (99,990 more characters)"
    assert escape_for_terminal("x" * 10, 10) == "x" * 10
