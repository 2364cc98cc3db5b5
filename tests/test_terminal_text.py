from collections.abc import Callable
from threading import active_count
from time import monotonic, sleep

import pytest

from calltune import terminal_text
from calltune.terminal_text import Heartbeat, escape_for_terminal, escape_line

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


def until(is_so: Callable[[], bool]) -> None:
    deadline = monotonic() + 10
    while not is_so():
        assert monotonic() < deadline
        sleep(0.001)


def test_a_long_block_prints_what_it_does_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_text, "SILENCE_S", 0.005)
    lines: list[str] = []
    with Heartbeat("loading pip:x", lines.append):
        until(lambda: len(lines) > 2)
    n_lines, n_threads = len(lines), active_count()
    sleep(0.02)
    assert set(lines) == {"loading pip:x, 0 s so far"}
    assert (len(lines), active_count()) == (n_lines, n_threads)


def test_a_quick_block_prints_nothing_and_a_failing_one_ends_it() -> None:
    lines: list[str] = []
    with Heartbeat("x", lines.append):
        pass
    n_threads = active_count()
    with pytest.raises(KeyError), Heartbeat("x", lines.append):
        raise KeyError
    assert lines == [] and active_count() == n_threads


def test_a_block_may_say_itself_what_is_printed_and_when_nothing_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminal_text, "SILENCE_S", 0.005)
    lines: list[str] = []
    state = ""
    with Heartbeat(lambda: state, lines.append):
        sleep(0.02)
        assert lines == []
        state = "3 of 7"
        until(lambda: len(lines) > 0)
    assert set(lines) == {"3 of 7"}


def test_another_line_puts_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_text, "SILENCE_S", 0.2)
    lines: list[str] = []
    with Heartbeat("x", lines.append) as heartbeat:
        for _ in range(30):
            sleep(0.01)
            heartbeat.postpone()
    assert lines == []


def test_an_output_that_was_closed_ends_it_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_text, "SILENCE_S", 0.005)
    n_calls = 0

    def closed(_: str) -> None:
        nonlocal n_calls
        n_calls += 1
        raise BrokenPipeError

    with Heartbeat("x", closed):
        until(lambda: n_calls > 0)
        sleep(0.02)
    assert n_calls == 1
