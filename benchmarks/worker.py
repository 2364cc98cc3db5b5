"""One engine in a process of its own: commands on stdin, answers on stdout, as JSON lines.

A process of its own gives each engine its own BLAS, device memory and failures. What the engine's
libraries print goes to stderr, so that stdout carries only answers.
"""

import importlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

from rows import Rows, cut, read_rows
from settings import Setting


class Block(NamedTuple):
    """What was measured in a number of steps, or in a validation."""

    seconds: float
    steps: int
    """Training steps, or batches validated."""
    tokens: int
    """Tokens in the rows, prompts included and padding not."""
    padded_tokens: int
    """Tokens with the padding: rows times the width of their batch."""
    loss: float | None = None
    """Mean over a validation; None for training."""


class Engine(Protocol):
    """What every engine does between its blocks of steps."""

    def validate(self) -> Block:
        """The loss over the validation rows, once through."""

    def peak_gb(self) -> float | None:
        """The most memory the engine's arrays took at once so far, in GB; None if not counted."""

    def release(self) -> None:
        """Free memory that is only kept for reuse, for the engine that runs next."""

    def details(self) -> dict[str, Any]:
        """What else belongs in the result: versions, device, choices the engine made."""


class SteppingEngine(Engine, Protocol):
    """An engine that can train a few steps and come back."""

    def steps(self, count: int) -> Block:
        """Train on the next `count` batches; return when the device is done."""


class WorkerChannel:
    """Reads commands for an engine, and writes its answers."""

    def __init__(self, commands: TextIO, answers: TextIO) -> None:
        self._commands = commands
        self._answers = answers

    def blocks(self, engine: Engine) -> Iterator[int]:
        """The number of steps to train next, each time; each must be answered with `done`.

        Other commands are answered here.
        """
        for line in self._commands:
            command = json.loads(line)
            match command["do"]:
                case "steps":
                    yield command["count"]
                case "validate":
                    self.done(engine.validate())
                case "release":
                    engine.release()
                    self.answer({})
                case "report":
                    self.answer({"peak_gb": engine.peak_gb(), "max_rss_gb": _max_rss_gb()})
                case "details":
                    self.answer(engine.details())
                case unknown:
                    raise AssertionError(f"no command {unknown}")

    def serve(self, engine: SteppingEngine) -> None:
        """Train every block that is asked for, with an engine that can be stepped."""
        for count in self.blocks(engine):
            self.done(engine.steps(count))

    def done(self, block: Block) -> None:
        """Answer with what was measured in a block."""
        self.answer(block._asdict())

    def answer(self, values: dict[str, Any]) -> None:
        """Write one answer."""
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()


def main() -> None:
    """Run the engine module named on the command line until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    channel = WorkerChannel(sys.stdin, answers)
    try:
        setting = Setting.from_json(json.loads(sys.stdin.readline()))
        engine = importlib.import_module(f"engines.{sys.argv[1]}")
        engine.serve(_rows(setting), setting, channel)
    except Exception as error:
        # An engine that runs out of memory is a result; the others go on.
        channel.answer({"failed": f"{type(error).__name__}: {str(error)[:300]}"})
        raise


def _rows(setting: Setting) -> Rows:
    rows = read_rows(Path(setting.rows), setting.max_seq_length, setting.n_valid, setting.n_train)
    if setting.cut_to is None:
        return rows
    # One batch is all that such an engine gets through.
    short = cut(rows.train, setting.cut_to)[: setting.batch_size]
    return Rows(short, short, rows.left_out)


def _max_rss_gb() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kilobytes.
    return used / 1e9 if sys.platform == "darwin" else used * 1024 / 1e9


if __name__ == "__main__":
    # Under its name, so that engines that import it get this module and not a second one.
    sys.modules["worker"] = sys.modules["__main__"]
    main()
