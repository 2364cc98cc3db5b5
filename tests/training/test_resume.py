"""A killed run, started again, ends with the files of one that was never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calltune.files import file_digest

from support import tiny

N_STEPS, SAVE_EVERY = 200, 20
EXACT = [
    "adapters.safetensors",
    "adapter_config.json",
    "best/adapters.safetensors",
    f"{N_STEPS:07d}_adapters.safetensors",
    f"state/{N_STEPS:07d}/weights.safetensors",
    f"state/{N_STEPS:07d}/optimizer.safetensors",
]
DEADLINE_S = 120

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared rows and a model."""
    folder = tmp_path_factory.mktemp("resume")
    tiny.write_rows(folder / "rows", 40)
    tiny.write_gemma(folder / "gemma")
    prep = [sys.executable, "-m", "calltune", "prep", "--input_file", "rows"]
    subprocess.run(prep, cwd=folder, check=True, capture_output=True)
    return folder


def start(place: Path) -> subprocess.Popen[str]:
    """The same command in every run; `adapter` is moved away afterwards."""
    command = [sys.executable, "-m", "calltune", "train", "--model", "gemma", "--device", "cpu"]
    command += ["--iters", str(N_STEPS), "--save-every", str(SAVE_EVERY), "--num-layers", "1"]
    command += ["--batch-size", "3", "--rank", "2", "--learning-rate", "1e-3"]
    command += ["--lr-schedule", "cosine", "--max-grad-norm", "1", "--steps-per-report", "10"]
    command += ["--steps-per-eval", "50", "--adapter-path", "adapter"]
    # OpenBLAS's threads wait for one another where other programs take the cores.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(place: Path) -> str:
    """Run the command to its end; what it printed."""
    out, problem = start(place).communicate(timeout=DEADLINE_S)
    assert "Saved the adapter" in out, problem
    return out


def killed_when(place: Path, is_time: Callable[[], bool]) -> bool:
    """Run the command and kill it as soon as `is_time`; False where it had ended by then."""
    running = start(place)
    deadline = time.monotonic() + DEADLINE_S
    try:
        while not is_time() and running.poll() is None:
            assert time.monotonic() < deadline
            # Not a wait for something, but a core left to what is watched.
            time.sleep(0.0005)
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    return running.returncode == -signal.SIGKILL


def records(folder: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl says, without times."""
    timed = {"elapsed_s", "tokens_per_second", "val_s", "peak_gb"}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    parsed = [json.loads(line) for line in lines]
    return [{key: line[key] for key in line if key not in timed} for line in parsed]


def taken(place: Path, name: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The digests and the metrics of a finished run, which is moved to `name`."""
    folder = (place / "adapter").rename(place / name)
    hidden = [path for path in folder.rglob(".*")]
    assert hidden == []
    return {file: file_digest(folder / file) for file in EXACT}, records(folder)


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    finish(place)
    return taken(place, "uninterrupted")


def n_lines(place: Path) -> int:
    try:
        return (place / "adapter" / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(
    place: Path, uninterrupted: tuple[dict[str, str], list[dict[str, Any]]]
) -> None:
    rng = random.Random(5)
    for at_line in (3, 14):
        wait_s = rng.random() * 0.02
        reached: list[float] = []

        def is_time(at: int = at_line, wait: float = wait_s, seen: list[float] = reached) -> bool:
            if not seen and n_lines(place) >= at:
                seen.append(time.monotonic())
            return bool(seen) and time.monotonic() - seen[0] >= wait

        assert killed_when(place, is_time)
    assert "Resuming after step" in finish(place)
    assert taken(place, "killed") == uninterrupted


def test_a_run_killed_inside_a_save_ends_as_if_it_had_not_been(
    place: Path, uninterrupted: tuple[dict[str, str], list[dict[str, Any]]]
) -> None:
    state = place / "adapter" / "state"
    n_cut_off = 0
    for at_step in (40, 120):

        def is_saving(step: int = at_step) -> bool:
            try:
                names = os.listdir(state)
            except OSError:
                return False
            return any(name.startswith(".") and int(name[1:8]) >= step for name in names)

        assert killed_when(place, is_saving)
        n_cut_off += any(name.startswith(".") for name in os.listdir(state))
    # The others were renamed in before the signal came.
    assert n_cut_off >= 1
    assert "Resuming after step" in finish(place)
    assert taken(place, "cut off") == uninterrupted
