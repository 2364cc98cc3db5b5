"""What an earlier part of a run, or another run, left in an adapter's folder."""

import re
import shutil
from pathlib import Path

from calltune.jsonl import output_error
from calltune.tune.metrics_file import drop_after


def forget_after(folder: Path, step: int) -> None:
    """Remove what was recorded after `step`: it speaks for weights that are no longer there.

    So is what a killed process left half written. Adapters stay until others take their place.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("", "state", "best"):
            sweep(folder / name)
        (folder / "run.json").unlink(missing_ok=True)
        if step == 0:
            (folder / "metrics.jsonl").unlink(missing_ok=True)
            for name in ("state", "best"):
                _remove(folder / name)
    except OSError as error:
        raise output_error(folder, error) from error
    drop_after(folder / "metrics.jsonl", step)


def sweep(folder: Path) -> None:
    """Remove half-written files and checkpoints; by their names, nothing else that is hidden."""
    for path in folder.glob(".*") if folder.is_dir() else ():
        if re.fullmatch(r"\.\d{7,}\.\w+", path.name):
            _remove(path)
        elif re.fullmatch(r"\..+\.\d+\.partial", path.name):
            path.unlink()


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
