"""Files that version 0.1.0 wrote before its code was rearranged are read as it read them.

`support/old/run` has what these of its commands left: prep, a training of 8 steps that ended right
after the checkpoint of step 4, a test of another model on its rows, and tools. Two files are what
its training came to: step_4.safetensors, and resumed.safetensors after the 8th step.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from support import cli

OLD = Path(__file__).parent / "support" / "old" / "run"
TRAIN = [
    *("train", "--train", "--model", "model", "--data", "data/training", "--device", "cpu"),
    *("--iters", "8", "--save-every", "4", "--batch-size", "2", "--num-layers", "2"),
    *("--learning-rate", "1e-3", "--rank", "2", "--val-batches", "2"),
    *("--steps-per-report", "2", "--steps-per-eval", "4", "--adapter-path"),
]
SIDES = ("base", "finetuned")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the files, in which commands may write."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def weights(file: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(file))
    assert isinstance(loaded, dict)
    return loaded


def distance(one: Path, other: Path) -> float:
    """The largest difference of two adapters' weights."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max(float(mx.abs(ours[name] - theirs[name]).max()) for name in ours)


def test_a_training_resumes_and_ends_as_the_old_version_ended(place: Path) -> None:
    ended = cli.run(*TRAIN, "adapter", cwd=place)
    assert ended.returncode == 0, ended.stderr
    assert "after step 4" in ended.stdout
    lines = (place / "adapter" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2, 4, 4, 6, 8, 8]
    final = distance(place / "adapter" / "adapters.safetensors", place / "resumed.safetensors")
    anew = cli.run(*TRAIN, "anew", cwd=place)
    assert anew.returncode == 0, anew.stderr
    step_4 = distance(place / "anew" / "0000004_adapters.safetensors", place / "step_4.safetensors")
    # Processors, and threads, add up in different orders; where step 4 has the same bits, all have.
    assert final == 0 if step_4 == 0 else final < 1e-4


def test_results_are_compared_and_gated(place: Path) -> None:
    base, tuned = (Path("results") / f"{name}_model_test_results.json" for name in SIDES)
    sides = ("--base-results", base, "--finetuned-results", tuned)
    ended = cli.run("analyze", *sides, "--output", "comparison.json", cwd=place)
    assert ended.returncode == 0, ended.stderr
    assert cli.run("gate", tuned, "--baseline", base, cwd=place).returncode == 0
    assert cli.run("gate", base, "--baseline", tuned, cwd=place).returncode == 1


def test_rows_are_shown_and_an_adapter_answers_them(place: Path) -> None:
    ended = cli.run("look", "--model", "model", "--data", "data/training", cwd=place)
    assert ended.returncode == 0, ended.stderr
    given = "--adapter-path adapter/best --data data/training --num-examples 1 --device cpu"
    ended = cli.run("test", *given.split(), "--max-tokens", "4", cwd=place)
    assert ended.returncode == 0, ended.stderr


def test_the_same_function_is_still_the_same_tool(place: Path) -> None:
    before = (place / "tools.json").read_bytes()
    ended = cli.run("tools", "mine.py", "--output", "again.json", cwd=place)
    assert ended.returncode == 0, ended.stderr
    assert (place / "again.json").read_bytes() == before
