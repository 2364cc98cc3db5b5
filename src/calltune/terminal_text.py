"""Text on a terminal: control characters escaped, and lines that tell what takes so long."""

import sys
from collections.abc import Callable
from threading import Event, Thread
from time import monotonic
from typing import Self

SILENCE_S = 10.0
"""After this many seconds without a line, `Heartbeat` prints one."""
LONG_SILENCE_S = 30.0
"""The same once a minute has passed, so that a log of hours stays short."""


def escape_for_terminal(text: str, max_characters: int | None = None) -> str:
    """`text` with all characters escaped that are neither printable nor line ends.

    That includes the characters that change the direction of writing, and lone surrogates. A text
    longer than `max_characters` is truncated, and says how many characters are missing.
    """
    n_more = 0 if max_characters is None else len(text) - max_characters
    shown = f"{text[:max_characters]}… ({n_more:,} more characters)" if n_more > 0 else text
    if shown.replace("\n", "").isprintable():
        return shown  # The usual case; going through a long text one character at a time is slow.
    return "".join(
        character if character == "\n" or character.isprintable() else ascii(character)[1:-1]
        for character in shown
    )


def escape_line(text: str, max_characters: int | None = None) -> str:
    """As `escape_for_terminal`, with line ends escaped as well: for names and other one-liners."""
    return escape_for_terminal(text, max_characters).replace("\n", "\\n")


def print_error(line: str) -> None:
    """Print a line to the standard error, where it is in nobody's way."""
    print(line, file=sys.stderr, flush=True)


class Heartbeat:
    """Prints a line now and then while its block runs, so that no long silence looks like a hang.

    A thread prints, so the block may be a single call that returns after minutes. A block that is
    quick prints nothing.

        with Heartbeat("loading the model"):
            model = load(...)
    """

    def __init__(
        self, doing: str | Callable[[], str], write: Callable[[str], None] = print_error
    ) -> None:
        """Take what the block does, or a function that gives the whole line when it is due.

        Args:
            doing: As in "loading the model"; the seconds so far are added. A function's line is
                printed as it is, and none where it is empty.
            write: Prints a line; by default to the standard error.
        """
        self._doing, self._write = doing, write
        self._ended = Event()
        self._thread = Thread(target=self._beat, daemon=True)
        self._started = self._due = monotonic()

    def __enter__(self) -> Self:
        """As `start`."""
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """As `stop`."""
        self.stop()

    def start(self) -> None:
        """Begin to wait for the first line."""
        self._started = monotonic()
        self.postpone()
        self._thread.start()

    def stop(self) -> None:
        """Print nothing more."""
        self._ended.set()
        self._thread.join()

    def postpone(self) -> None:
        """Wait anew: something else was printed."""
        now = monotonic()
        self._due = now + (SILENCE_S if now - self._started < 60 else LONG_SILENCE_S)

    def _beat(self) -> None:
        while not self._ended.wait(max(0.0, self._due - monotonic())):
            if monotonic() < self._due:
                continue
            try:
                if line := self._line():
                    self._write(line)
            except (OSError, ValueError):
                return  # The output was closed; whoever writes what matters will tell.
            self.postpone()

    def _line(self) -> str:
        if callable(self._doing):
            return self._doing()
        return f"{self._doing}, {monotonic() - self._started:.0f} s so far"
