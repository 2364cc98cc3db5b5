"""Checkpoints: what a run needs to be resumed exactly, in numbered folders.

`state/0000100/` holds weights.safetensors, optimizer.safetensors and state.json, which names the
SHA-256 of the other two. A folder is made under another name, flushed to disk and renamed in.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from calltune.errors import DataError
from calltune.files import (
    atomic_folder,
    atomic_write,
    file_digest,
    output_error,
    read_json,
    write_json,
)
from calltune.provenance import describe_changes
from calltune.training.logging import Unreported
from calltune.training.metrics_file import truncate_metrics
from calltune.training.step import TrainState
from calltune.types import Json

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
LAYOUT = 2
"""How trained weights are named and shaped in a checkpoint; counted up when that changes."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has come; with the seed this also decides which rows come next."""

    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Tokens trained on so far, prompts included and padding not."""
    best_loss: float | None = None
    """The lowest validation loss so far, the one before the first step included."""
    best_step: int = 0
    """Its step; 0 where no step made it lower."""
    worse: int = 0
    """Validations since the best one."""
    elapsed_s: float = 0.0
    """Seconds of training, those before an interruption included."""
    unreported: Unreported = Unreported()
    """Sums over the steps since the last report."""


class Checkpoint(NamedTuple):
    """The state of a run that was saved, and how far the run had come."""

    trained: TrainState
    position: Position


def save(
    folder: Path, trained: TrainState, position: Position, run_fingerprint: Json, keep: int = 1
) -> None:
    """Write a checkpoint, then remove all but the last `keep`.

    `folder` is the one that holds the numbered folders. `run_fingerprint` is what decides the
    weights of a run: only a run with an equal one is resumed from this checkpoint.

    Raises:
        OutputError: the folder cannot be written; earlier checkpoints are kept.
    """
    target = folder / f"{position.step:07d}"
    _remove(target)
    with atomic_folder(target) as beside:
        _write_arrays(beside / WEIGHTS, trained.weights)
        _write_arrays(beside / OPTIMIZER, _flat(trained.optimizer))
        digests = {name: file_digest(beside / name) for name in (WEIGHTS, OPTIMIZER)}
        state = {"position": asdict(position), "made_from": run_fingerprint, "sha256": digests}
        state["layout"] = LAYOUT
        write_json(beside / STATE, state)
    for old in _numbered(folder)[:-keep]:
        _remove(old)


def latest(
    folder: Path, run_fingerprint: Json, tell: Callable[[str], None] = print
) -> Checkpoint | None:
    """The newest checkpoint with this fingerprint that is not damaged, or None.

    `tell` gets a line about each newer one that is skipped.
    """
    for candidate in reversed(_numbered(folder)):
        try:
            return _read(candidate, run_fingerprint)
        except (_Unusable, DataError, OSError, KeyError, TypeError, AttributeError) as error:
            reason = error if isinstance(error, _Unusable) else "is damaged"
            tell(f"The checkpoint {candidate} {reason}; it is skipped")
    return None


class _Unusable(Exception):
    """Why a checkpoint is not this run's, or damaged."""


def _read(folder: Path, run_fingerprint: Json) -> Checkpoint:
    """The checkpoint in `folder`, if it is whole and of this run."""
    state = read_json(folder / STATE)
    if state["made_from"] != run_fingerprint:
        changes = describe_changes(state["made_from"], run_fingerprint)
        raise _Unusable(f"was made with other options or rows ({changes})")
    if state.get("layout") != LAYOUT:
        raise _Unusable("was written by another version of calltune")
    digests = state["sha256"]
    if any(file_digest(folder / name) != digests[name] for name in (WEIGHTS, OPTIMIZER)):
        raise _Unusable("is damaged")
    position = dict(state["position"])
    # Checkpoints of earlier versions have no sums.
    unreported = Unreported(**position.pop("unreported", {}))
    weights: Any = mx.load(str(folder / WEIGHTS))
    optimizer: Any = mx.load(str(folder / OPTIMIZER))
    # The file may be removed before a lazy array is used.
    mx.eval(weights, optimizer)
    at = Position(**position, unreported=unreported)
    return Checkpoint(TrainState(weights, _nested(optimizer)), at)


def _write_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    # Sorted, so that equal arrays make equal files.
    with atomic_write(path) as file:
        mx.save_safetensors(file, dict(sorted(arrays.items())))


def _flat(state: dict[str, Any]) -> dict[str, mx.array]:
    """Adam's state with one name for each array: `learning_rate`, `NAME/m`.

    MLX's own flattening would take the dots in the names for levels.
    """
    flat: dict[str, mx.array] = {}
    for name, value in state.items():
        is_one = isinstance(value, mx.array)
        flat |= {name: value} if is_one else {f"{name}/{key}": value[key] for key in value}
    return flat


def _nested(flat: dict[str, mx.array]) -> dict[str, Any]:
    """The reverse of `_flat`."""
    state: dict[str, Any] = {}
    for name, value in flat.items():
        path, slash, key = name.rpartition("/")
        if slash:
            state.setdefault(path, {})[key] = value
        else:
            state[name] = value
    return state


def _numbered(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    numbered = (path for path in folder.iterdir() if re.fullmatch(r"\d{7,}", path.name))
    return sorted(numbered, key=lambda path: int(path.name))


def _remove(folder: Path) -> None:
    if folder.is_dir():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise output_error(folder, error) from error


def truncate_run(folder: Path, step: int) -> None:
    """Remove what a run recorded after `step`, and what a killed process left half written.

    `folder` is that of the adapter; it is made where it is missing. Step 0 removes the state and
    the best adapter too. Other adapter files stay until new ones take their place.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("", "state", "best"):
            remove_partial_files(folder / name)
        (folder / "run.json").unlink(missing_ok=True)
        if step == 0:
            (folder / "metrics.jsonl").unlink(missing_ok=True)
            for name in ("state", "best"):
                _remove(folder / name)
    except OSError as error:
        raise output_error(folder, error) from error
    truncate_metrics(folder / "metrics.jsonl", step)


def remove_partial_files(folder: Path) -> None:
    """Remove half-written files and checkpoints, known by their names, from a folder."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        if re.fullmatch(r"\.\d{7,}\.\w+", path.name):
            _remove(path)
        elif re.fullmatch(r"\..+\.\d+\.partial", path.name):
            path.unlink()
