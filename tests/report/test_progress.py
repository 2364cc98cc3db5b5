"""Progress of an evaluation: a bar on a terminal, and lines elsewhere."""

from time import monotonic, sleep

import pytest

from calltune import terminal_text
from calltune.report.progress import progress_of

from support.verdicts import record


@pytest.fixture(autouse=True)
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests themselves run in, standard output is no terminal."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_terminal_lines_say_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal_text, "SILENCE_S", 0.01)

    def wait_for(text: str) -> None:
        printed, deadline = "", monotonic() + 10
        while text not in printed:
            assert monotonic() < deadline, printed
            sleep(0.002)
            printed += capsys.readouterr().out

    with progress_of("base model", False) as show:
        wait_for("base model: no answer yet\n")
        show(record(True), 11, 50)
        show(record(False), 12, 50)
        wait_for("base model: 12 of 50 answered, 1 of 2 new ones right\n")


def test_what_is_quick_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of("base model", False) as show:
        show(record(True), 1, 2)
    assert capsys.readouterr() == ("", "")
