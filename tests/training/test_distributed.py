"""Two processes on this machine train what one trains, through MLX's own launcher."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calltune.files import write_rows
from calltune.training.distributed import DistributedGroup

from support import tiny

LAUNCHER = Path(sys.executable).with_name("mlx.launch")
DEADLINE_S = 240
COMMON = ["--model", "gemma", "--device", "cpu", "--num-layers", "1"]
COMMON += ["--rank", "2", "--learning-rate", "1e-3", "--steps-per-report", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, and rows of 30 to 50 tokens."""
    folder = tmp_path_factory.mktemp("group")
    tiny.write_gemma(folder / "gemma")
    prepare(folder / "data", 7, 3)
    return folder


def prepare(folder: Path, n_train: int, n_valid: int) -> None:
    for name, count in (("train", n_train), ("valid", n_valid)):
        start = f"<bos><start_of_turn>user\nA row to {name} on: "
        prompts = [f"{start}{'1' * i}.<end_of_turn>\n" for i in range(count)]
        rows = [
            {"id": f"{i}", "text": f"{prompt}{'ab' * i}!", "completion_start": len(prompt)}
            for i, prompt in enumerate(prompts)
        ]
        write_rows(folder / f"{name}.jsonl", [row | {"format": "gemma"} for row in rows])


def train(place: Path, adapter: str, n_ranks: int, *more: str) -> list[str]:
    """Train in so many processes; the lines that they printed."""
    command = [sys.executable, "-m", "calltune", "train", *COMMON, "--adapter-path", adapter, *more]
    if n_ranks > 1:
        port = str(free_ports(n_ranks))
        launch = [sys.executable, str(LAUNCHER), "-n", str(n_ranks), "--backend", "ring"]
        command = [*launch, "--starting-port", port, "--", *command]
    # The launcher reads its input without end, should that have ended.
    reads, writes = os.pipe()
    try:
        ended = subprocess.run(
            command,
            cwd=place,
            # As many threads as there are cores in each of them would wait for one another.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            stdin=reads,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )
    finally:
        os.close(reads)
        os.close(writes)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout.splitlines()


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens on."""
    while True:
        sockets = [socket.socket() for _ in range(count)]
        try:
            sockets[0].bind(("127.0.0.1", 0))
            first: int = sockets[0].getsockname()[1]
            for offset, other in enumerate(sockets[1:], start=1):
                other.bind(("127.0.0.1", first + offset))
            return first
        except (OSError, OverflowError):
            continue
        finally:
            for one in sockets:
                one.close()


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_curve(one: Path, other: Path) -> None:
    """The same losses to float32 rounding, of the same tokens."""
    ours, theirs = metrics(one), metrics(other)
    assert len(ours) == len(theirs) > 0
    for line, expected in zip(ours, theirs, strict=True):
        assert line.keys() == expected.keys()
        for key in {"train_loss", "val_loss"} & line.keys():
            assert line[key] == pytest.approx(expected[key], rel=1e-5)
        for key in {"step", "tokens", "learning_rate"} & line.keys():
            assert line[key] == expected[key]


def assert_same_weights(one: Path, other: Path) -> None:
    """To rounding, by the largest weight; and not those of the beginning."""
    import mlx.core as mx

    ours: Any = mx.load(str(one / "adapters.safetensors"))
    theirs: Any = mx.load(str(other / "adapters.safetensors"))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        highest = float(mx.abs(value).max())
        assert highest > 1e-4
        assert float(mx.abs(ours[name] - value).max()) <= 1e-4 * highest, name


def kept_rows(lines: list[str]) -> int:
    """The rows whose frozen layers' output a process said it keeps."""
    (line,) = [line for line in lines if line.startswith("Frozen layers")]
    return int(line.split(" rows kept")[0].rsplit(" ", 1)[-1])


@pytest.mark.slow
def test_two_processes_train_what_one_trains(place: Path) -> None:
    """Batches of 3 of 7 rows: shares are uneven, and of the last batch one process has nothing."""
    more = ["--data", "data", "--iters", "8", "--batch-size", "3", "--grad-accumulation-steps", "2"]
    more += ["--steps-per-eval", "4", "--save-every", "4", "--max-grad-norm", "1"]
    alone = train(place, "alone", 1, *more)
    together = train(place, "together", 2, *more)
    assert_same_curve(place / "together", place / "alone")
    assert_same_weights(place / "together", place / "alone")
    assert_same_weights(place / "together" / "best", place / "alone" / "best")

    def names(folder: str) -> list[str]:
        return sorted(
            str(path.relative_to(place / folder)) for path in place.glob(f"{folder}/**/*")
        )

    assert names("together") == names("alone")
    # One of the two speaks, and says what one process alone would.
    assert [line[:28] for line in together if line.startswith("  step")] == [
        line[:28] for line in alone if line.startswith("  step")
    ]
    assert len(together) == len(alone) and len(set(together)) == len(together)
    # It holds its own rows alone, so there were two.
    assert kept_rows(together) < kept_rows(alone) == 10

    (place / "together" / "run.json").unlink()
    again = train(place, "together", 2, *more)
    assert [line for line in again if "Resuming" in line] == [
        "Resuming after step 8, where the run was interrupted"
    ]
    assert_same_weights(place / "together", place / "alone")
    done = train(place, "together", 2, *more)
    assert len(done) == 1 and "was trained with these options" in done[0]


@pytest.mark.slow
def test_more_processes_than_rows_train_what_one_trains(place: Path) -> None:
    prepare(place / "few", 1, 1)
    more = ["--iters", "2", "--batch-size", "1", "--data", "few"]
    train(place, "one row alone", 1, *more)
    train(place, "one row", 2, *more)
    assert_same_curve(place / "one row", place / "one row alone")
    assert_same_weights(place / "one row", place / "one row alone")


def test_a_process_alone_changes_nothing() -> None:
    group = DistributedGroup()
    rows = [1, 2, 3]
    assert (group.size, group.rank, group.is_rank0) == (1, 0, True)
    assert group.shard(rows) == rows and group.sum_numbers(1.5, 2) == [1.5, 2]
    assert group.all_sum(rows) is rows
    group.barrier()
