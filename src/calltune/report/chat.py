"""A conversation on the terminal: what is asked, what is called, what came back."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from calltune.files import dumps
from calltune.report.terminal import open_console
from calltune.terminal_text import escape_for_terminal, escape_line
from calltune.types import Json, ToolCall

MAX_RESULT_LENGTH = 2_000
"""So much of a result is shown; the model sees all of it."""
Consent = Literal["yes", "no", "always"]
ReadLine = Callable[[str], str | None]
"""A line that the user enters behind a prompt; None where nothing more will come."""


class Screen:
    """Where a conversation is read and written: a terminal, or files that stand for one."""

    def __init__(self, read_line: ReadLine | None = None) -> None:
        """Reads the standard input, by prompt_toolkit where it is a terminal."""
        self.is_asked = read_line is not None or sys.stdin.isatty()
        """Whether somebody is there to be asked."""
        self._read_line = read_line or (_typed() if self.is_asked else _piped)
        self._console = open_console()

    def question(self) -> str | None:
        """What the user asks next; None at the end."""
        while (line := self._read_line("> ")) is not None:
            if line.strip():
                return line.strip()
        return None

    def thinking(self) -> AbstractContextManager[object]:
        """Shows that the model is at work."""
        return self._console.status("…") if self._console.is_terminal else nullcontext()

    def show_call(self, call: ToolCall) -> None:
        """A call with its arguments."""
        self._write(f"→ {escape_line(call.name)}", "bold")
        for line in json.dumps(call.arguments, indent=2, ensure_ascii=False).splitlines():
            self._write(f"  {line}")

    def show_result(self, result: Json) -> None:
        """What came back."""
        self._write(f"← {escape_for_terminal(dumps(result), MAX_RESULT_LENGTH)}", "dim")

    def show_words(self, words: str) -> None:
        """What the model says."""
        self._write(words)

    def warn(self, text: str) -> None:
        """A sentence of our own."""
        self._write(f"({text}.)", "dim")

    def consent(self, name: str) -> Consent:
        """Whether a call may run; what is neither yes nor always is no."""
        shown = escape_line(name)
        answer = self._read_line(f"  Run it? [y]es, [n]o, [a]lways for {shown}: ") or ""
        match answer.strip().lower():
            case "y" | "yes":
                return "yes"
            case "a" | "always":
                return "always"
        return "no"

    def result(self) -> Json:
        """What the user says that a call returned, as JSON or as text; None where nothing."""
        line = (self._read_line("  Nothing here runs it. Its result, or nothing: ") or "").strip()
        try:
            return json.loads(line) if line else None
        except ValueError:
            return line

    def _write(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(escape_for_terminal(text), style), soft_wrap=True)


def _piped(prompt: str) -> str | None:
    return sys.stdin.readline() or None


def _typed() -> ReadLine:
    """Lines typed with the keys of a shell; the history is that of this conversation."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory

    asked: PromptSession[str] = PromptSession(history=InMemoryHistory(), reserve_space_for_menu=0)
    confirmed: PromptSession[str] = PromptSession(reserve_space_for_menu=0)

    def read(prompt: str) -> str | None:
        session = asked if prompt == "> " else confirmed
        try:
            return session.prompt(prompt)
        except EOFError:
            return None

    return read
