"""Kill training at random moments, start it again, and compare the end with an unbroken run's.

A tiny model is trained to its end once; then again and again, killed with SIGKILL at random
moments and inside saves, and started again with the same command after each kill. Weights,
optimiser state and recorded losses must come out the same to the last bit.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

KILLS_PER_RUN = 10
SAVE_EVERY, N_STEPS = 25, 900
IN_SAVE_SHARE = 0.3
DEADLINE_S = 120
POLL_S = 0.0005
ADAPTER = "adapter"
TIMED = {"elapsed_s", "tokens_per_second", "val_s", "peak_gb"}
SETTING = {
    "--model": "gemma",
    "--device": "cpu",
    "--iters": N_STEPS,
    "--save-every": SAVE_EVERY,
    "--num-layers": 1,
    "--rank": 2,
    "--batch-size": 3,
    "--learning-rate": 1e-3,
    "--lr-schedule": "cosine",
    "--max-grad-norm": 1,
    "--steps-per-report": 5,
    "--steps-per-eval": 50,
    "--adapter-path": ADAPTER,
}


class Aim(NamedTuple):
    """When to kill."""

    step: int
    """Not before this step was reported."""
    in_save: bool
    wait_s: float
    """After that step; a kill in a save waits for the next save."""


class Outcome(NamedTuple):
    """What is left of a run, and must be equal."""

    digests: dict[str, str]
    metrics: list[dict[str, Any]]


@dataclass(slots=True)
class Counts:
    """What happened in all runs."""

    kills: int = 0
    aimed_at_saves: int = 0
    inside_save: int = 0
    """Kills that left a half-written checkpoint behind."""
    runs: int = 0
    identical: int = 0
    ended_first: int = 0
    """Runs that had ended before they could be killed; not counted as kills."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every run ended as the unbroken one."""
    options = _parsed(arguments)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        _make_inputs(place)
        _finish(place)
        unbroken = _taken(place)
        counts = _all_runs(place, unbroken, options.kills, random.Random(options.seed))
    line = _line(counts, options.seed, time.perf_counter() - started)
    if not options.no_record:
        with (HERE / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    print(
        f"{counts.identical} of {counts.runs} runs ended as the unbroken one, after "
        f"{counts.kills} kills, {counts.inside_save} of them inside a save "
        f"({line['seconds']:.0f} s)"
    )
    return 0 if counts.identical == counts.runs else 1


def aims(n_kills: int, rng: random.Random) -> list[Aim]:
    """When a run of `N_STEPS` steps is killed, from early to late."""
    last = N_STEPS - 2 * SAVE_EVERY
    steps = sorted(rng.randrange(0, last) for _ in range(n_kills))
    n_in_save = round(n_kills * IN_SAVE_SHARE)
    in_save = set(rng.sample(range(n_kills), n_in_save))
    return [Aim(step, i in in_save, rng.random() * 0.05) for i, step in enumerate(steps)]


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-record", action="store_true", help="leave results.jsonl alone")
    return parser.parse_args(arguments)


def _all_runs(place: Path, unbroken: Outcome, n_kills: int, rng: random.Random) -> Counts:
    counts = Counts()
    while counts.kills < n_kills:
        before = counts.kills, counts.inside_save
        for aim in aims(min(KILLS_PER_RUN, n_kills - counts.kills), rng):
            _kill(place, aim, counts)
        _finish(place)
        is_identical = _taken(place) == unbroken
        counts.runs, counts.identical = counts.runs + 1, counts.identical + is_identical
        print(
            f"run {counts.runs}: {counts.kills - before[0]} kills, "
            f"{counts.inside_save - before[1]} inside a save, "
            f"{'identical' if is_identical else 'NOT IDENTICAL'}",
            flush=True,
        )
    return counts


def _kill(place: Path, aim: Aim, counts: Counts) -> None:
    """Start the run, or go on with it, and kill it when the aim says."""
    is_time = _is_saving(place, aim) if aim.in_save else _is_past(place, aim)
    running = _start(place)
    deadline = time.monotonic() + DEADLINE_S
    try:
        while not is_time() and running.poll() is None:
            assert time.monotonic() < deadline, aim
            time.sleep(POLL_S)
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()
    if running.returncode != -signal.SIGKILL:
        counts.ended_first += 1
        return
    counts.kills += 1
    counts.aimed_at_saves += aim.in_save
    counts.inside_save += bool(_half_written(place))


def _is_past(place: Path, aim: Aim) -> Callable[[], bool]:
    """Whether the step is behind, and so long ago."""
    metrics = place / ADAPTER / "metrics.jsonl"
    reached: list[float] = []

    def is_time() -> bool:
        if not reached and _last_step(metrics) >= aim.step:
            reached.append(time.monotonic())
        return bool(reached) and time.monotonic() - reached[0] >= aim.wait_s

    return is_time


def _is_saving(place: Path, aim: Aim) -> Callable[[], bool]:
    """Whether a checkpoint after the step is half written."""
    return lambda: any(int(name[1:8]) > aim.step for name in _half_written(place))


def _half_written(place: Path) -> list[str]:
    try:
        names = os.listdir(place / ADAPTER / "state")
    except OSError:
        return []
    return [name for name in names if name.startswith(".")]


def _last_step(metrics: Path) -> int:
    """The step of the last whole line; -1 without one."""
    try:
        lines = metrics.read_bytes().rpartition(b"\n")[0].splitlines()
    except OSError:
        return -1
    return int(json.loads(lines[-1])["step"]) if lines else -1


def _start(place: Path) -> subprocess.Popen[str]:
    setting = [str(part) for pair in SETTING.items() for part in pair]
    return subprocess.Popen(
        [sys.executable, "-m", "calltune", "train", *setting],
        cwd=place,
        # OpenBLAS's threads wait for one another where other programs take the cores.
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(place: Path) -> None:
    out, problem = _start(place).communicate(timeout=10 * DEADLINE_S)
    if "Saved the adapter" not in out and "was trained with these options" not in out:
        sys.exit(f"training did not end well: {problem.strip() or out}")


def _taken(place: Path) -> Outcome:
    """What the finished run left; its folder is removed."""
    from calltune.files import file_digest

    folder = place / ADAPTER
    # run.json holds the time, metrics.jsonl is compared without times.
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    digests = {
        str(path.relative_to(folder)): file_digest(path)
        for path in files
        if path.name not in ("run.json", "state.json")
    }
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    metrics = [{key: line[key] for key in line if key not in TIMED} for line in lines]
    shutil.rmtree(folder)
    return Outcome(digests, metrics)


def _make_inputs(place: Path) -> None:
    """A tiny model and prepared rows."""
    from support import tiny

    tiny.write_gemma(place / "gemma")
    tiny.write_rows(place / "rows", 40)
    prep = [sys.executable, "-m", "calltune", "prep", "--input_file", "rows"]
    subprocess.run(prep, cwd=place, check=True, capture_output=True)


def _line(counts: Counts, seed: int, seconds: float) -> dict[str, Any]:
    from calltune.provenance import describe

    return {
        "benchmark": "kill_resume",
        "kills": counts.kills,
        "aimed_at_saves": counts.aimed_at_saves,
        "inside_save": counts.inside_save,
        "runs": counts.runs,
        "identical": counts.identical,
        "ended_first": counts.ended_first,
        "steps": N_STEPS,
        "save_every": SAVE_EVERY,
        "seed": seed,
        "seconds": round(seconds, 1),
    } | describe()


if __name__ == "__main__":
    sys.exit(main())
