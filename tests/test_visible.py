from calltune.terminal_text import in_one_line, visible

from support.hostile import HOSTILE, obeyed


def test_a_terminal_has_nothing_to_obey() -> None:
    assert obeyed(HOSTILE)
    assert not obeyed(visible(HOSTILE)) and not obeyed(in_one_line(HOSTILE))
    assert visible("a\x1b[31m\r\x07\x9b\u202e\ud83d") == r"a\x1b[31m\r\x07\x9b\u202e\ud83d"


def test_letters_of_all_scripts_stay() -> None:
    assert visible("Zürich 東京 😀\nnext") == "Zürich 東京 😀\nnext"
    assert in_one_line("one\ntwo") == r"one\ntwo"


def test_what_is_cut_is_counted() -> None:
    assert visible("x" * 100_000, 10) == "xxxxxxxxxx… (99,990 more letters)"
    assert visible("x" * 10, 10) == "x" * 10
