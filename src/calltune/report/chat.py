"""A chat on the terminal: reads questions and consents, shows calls, results and answers."""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

from rich.text import Text

from calltune.files import dumps
from calltune.report.terminal import open_console
from calltune.terminal_text import escape_for_terminal, escape_line
from calltune.types import Json, ToolCall

MAX_RESULT_LENGTH = 2_000
"""Characters of a result that are shown; the model sees all of it."""
Consent = Literal["yes", "no", "always"]
ReadLine = Callable[[str], str | None]
"""Reads one line after showing a prompt; gives None at the end of the input."""


class Screen:
    """Where a chat is read and written: a terminal, or piped input and output."""

    def __init__(self, read_line: ReadLine | None = None) -> None:
        """Reads lines with `read_line`, by default from the terminal or the standard input."""
        self.is_interactive = read_line is not None or sys.stdin.isatty()
        """Whether there is a user who can be asked."""
        self._read_line = read_line or (_terminal_reader() if self.is_interactive else _read_piped)
        self._console = open_console()

    def read_question(self) -> str | None:
        """The user's next question; None at the end of the input."""
        while (line := self._read_line("> ")) is not None:
            if line.strip():
                return line.strip()
        return None

    def read_consent(self, name: str) -> Consent:
        """Whether a call to this tool may run; anything but yes and always means no."""
        shown = escape_line(name)
        answer = self._read_line(f"  Run it? [y]es, [n]o, [a]lways for {shown}: ") or ""
        match answer.strip().lower():
            case "y" | "yes":
                return "yes"
            case "a" | "always":
                return "always"
        return "no"

    def read_result(self) -> Json:
        """The result of a call that the user enters, as JSON or as text; None if left empty."""
        line = self._read_line("  Nothing here runs it. Enter its result, or nothing: ") or ""
        try:
            return json.loads(line) if line.strip() else None
        except ValueError:
            return line.strip()

    def thinking(self) -> AbstractContextManager[object]:
        """A context that shows a spinner on a terminal."""
        return self._console.status("…") if self._console.is_terminal else nullcontext()

    def show_call(self, call: ToolCall) -> None:
        """Show a call with its arguments."""
        self._write(f"→ {escape_line(call.name)}", "bold")
        for line in json.dumps(call.arguments, indent=2, ensure_ascii=False).splitlines():
            self._write(f"  {line}")

    def show_result(self, result: Json) -> None:
        """Show the result of a call, truncated to `MAX_RESULT_LENGTH` characters."""
        self._write(f"← {escape_for_terminal(dumps(result), MAX_RESULT_LENGTH)}", "dim")

    def show_text(self, text: str) -> None:
        """Show a text of the model."""
        self._write(text)

    def warn(self, text: str) -> None:
        """Show a notice: a sentence without a full stop."""
        self._write(f"({text}.)", "dim")

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(Text(escape_for_terminal(text), style), soft_wrap=True)


def _read_piped(prompt: str) -> str | None:
    return sys.stdin.readline() or None


def _terminal_reader() -> ReadLine:
    """Reads lines with a shell's editing keys; the history holds this chat's questions."""
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
