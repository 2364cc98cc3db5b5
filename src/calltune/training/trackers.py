"""A run's numbers in TensorBoard, Trackio or Weights & Biases.

None is needed and none is opened unless it is named: wandb sends what it gets to its makers'
service, tensorboard and trackio keep it on this machine (trackio asks the Hugging Face hub who the
user is when a token is there). Functions called: https://docs.wandb.ai/ref/python and
https://huggingface.co/docs/trackio.

TensorBoard's files are written by tensorboardX, which needs numpy and protobuf only;
`torch.utils.tensorboard` would bring PyTorch.
"""

import importlib
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from calltune.errors import CalltuneError, OptionError
from calltune.files import dumps, output_error
from calltune.types import Json


class Tracker(Protocol):
    """Somewhere else that a run's numbers go."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take the numbers of one report."""

    def finish(self) -> None:
        """Write out what waits; nothing is logged afterwards."""


def open_trackers(
    names: Sequence[str],
    folder: Path,
    config: dict[str, Json],
    first_step: int = 0,
    project: str = "calltune",
) -> list[Tracker]:
    """The trackers of these names, open; each once.

    A run that goes on appears as one run in tensorboard and trackio, as a second one in wandb.

    Raises:
        OptionError: an unknown name, a library that is not installed, or one that does not start.
        OutputError: no event file can be made in `folder`.
    """
    for name in names:
        if name not in _OPENERS:
            raise OptionError(f"No tracker {name!r}; known are {', '.join(_OPENERS)}")
    run = _Run(folder, config, first_step, project)
    opened: list[Tracker] = []
    try:
        for name in dict.fromkeys(names):
            with _one_line_for(name):
                opened.append(_OPENERS[name](run))
    except BaseException:
        for tracker in opened:
            # That one could not be opened is the news.
            with suppress(Exception):
                tracker.finish()
        raise
    return opened


@dataclass(frozen=True, slots=True)
class _Run:
    """What a tracker is told of a run when it is opened."""

    folder: Path
    """The adapter's folder; its name is the run's."""
    config: dict[str, Json]
    first_step: int
    """Steps already made: above 0 when the run goes on where it was."""
    project: str

    @property
    def name(self) -> str:
        """The run's name in lists of runs."""
        return self.folder.resolve().name


class _TensorBoard:
    """An event file in the folder `tensorboard`, written through at each report.

    tensorboardX's SummaryWriter gives events to a thread and waits for ever once that thread has
    failed to write; its EventsWriter writes in the caller's.
    """

    name = "tensorboard"

    def __init__(self, run: _Run) -> None:
        events_writer = _library("tensorboardX.event_file_writer", "EventsWriter")
        self._event = _library("tensorboardX.proto.event_pb2", "Event")
        self._summary = _library("tensorboardX.proto.summary_pb2", "Summary")
        text = _library("tensorboardX.summary", "text")
        folder = run.folder / "tensorboard"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The file's name has whole seconds only: two starts in one must not meet.
            self._file = events_writer(str(folder / "events"), f".{os.getpid()}")
        except OSError as error:
            raise output_error(folder, error) from error
        if run.first_step:
            self._forget_after(run.first_step)
        # The page takes it for Markdown, in which indented text is shown as it is.
        options = textwrap.indent(dumps(run.config, indent=2), "    ")
        self._write(run.first_step, summary=text("options", options))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """One event with a scalar for each number."""
        values = [self._summary.Value(tag=tag, simple_value=metrics[tag]) for tag in metrics]
        self._write(step, summary=self._summary(value=values))

    def finish(self) -> None:
        """Close the file."""
        self._file.close()

    def _forget_after(self, step: int) -> None:
        """Let TensorBoard leave out what an earlier file says of later steps."""
        session = _library("tensorboardX.proto.event_pb2", "SessionLog")
        self._write(step + 1, session_log=session(status=session.START))

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))
        self._file.flush()


@dataclass(frozen=True, slots=True)
class _Service:
    """A tracker with wandb's functions."""

    name: str
    send: Callable[..., object]
    end: Callable[[], object]

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Hand the numbers on; the library sends them when it likes."""
        self.send(metrics, step=step)

    def finish(self) -> None:
        """End the run, which waits until all is written or sent."""
        self.end()


def _wandb(run: _Run) -> _Service:
    init = _library("wandb", "init")
    run.folder.mkdir(parents=True, exist_ok=True)
    # What is printed is the user's, and the live line would be sent over and over.
    opened = init(
        project=run.project,
        name=run.name,
        dir=str(run.folder),
        config=run.config,
        settings={"console": "off"},
    )
    return _Service("wandb", opened.log, opened.finish)


def _trackio(run: _Run) -> _Service:
    init = _library("trackio", "init")
    resume = "allow" if run.first_step else "never"
    init(project=run.project, name=run.name, config=run.config, resume=resume)
    return _Service("trackio", _library("trackio", "log"), _library("trackio", "finish"))


_OPENERS: dict[str, Callable[[_Run], Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _trackio,
    "wandb": _wandb,
}
"""How each known tracker is opened."""


@contextmanager
def _one_line_for(name: str) -> Iterator[None]:
    try:
        yield
    except CalltuneError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OptionError(f"{name} did not start ({reason}); set it up or leave it out") from error


def _library(module: str, member: str) -> Any:
    """A member of a module that need not be installed."""
    try:
        # A folder of that name is a module too, but an empty one.
        return getattr(importlib.import_module(module), member)
    except (ImportError, AttributeError) as error:
        package = module.partition(".")[0]
        raise OptionError(
            f"Cannot use {package} ({error}); install it with python -m pip install {package}"
        ) from error
