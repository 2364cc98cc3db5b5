"""The real clients of the hub, in a process of their own, against a small hub on 127.0.0.1."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calltune.types import Json

from support.hub_server import DATASET, GOOD_TOKEN, Hub, serving

N_ROWS = 3000
# Run as a user's process would be: error lines on stderr, exit code 1.
PROGRAM = """
import sys
from pathlib import Path
from calltune.errors import CalltuneError
from calltune.commands.load import LoadOptions, run
split, count, out, subset = sys.argv[1:]
try:
    run(LoadOptions(dataset=DATASET, split=split, num_examples=int(count) or None,
                    output_dir=Path(out), subset=subset or None))
except CalltuneError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def _rows() -> list[dict[str, Json]]:
    letters = random.Random(0)
    tools = [{"name": "f", "description": "d", "parameters": {"x": {"type": "int"}}}]
    return [
        {
            "id": n,
            "query": f"What is {n}? {letters.randbytes(1500).hex()}",
            "tools": json.dumps(tools),
            "answers": json.dumps([{"name": "f", "arguments": {"x": n}}]),
        }
        for n in range(N_ROWS)
    ]


ROWS = _rows()


def _parquet() -> dict[str, bytes]:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer, row_group_size=250)
    return {"data/train-00000-of-00001.parquet": buffer.getvalue()}


PARQUET = _parquet()
ARRAY = {"data/train.json": json.dumps(ROWS, indent=1).encode()}


def load(
    hub: Hub,
    folder: Path,
    count: int = 0,
    split: str = "train",
    token: str = "",
    subset: str = "",
) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))
    }
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home")}
    if token:
        environment["HF_TOKEN"] = token
    program = PROGRAM.replace("DATASET", repr(DATASET))
    return subprocess.run(
        [sys.executable, "-c", program, split, str(count), str(folder / "out"), subset],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def written(folder: Path) -> dict[str, list[dict[str, Json]]]:
    return {
        path.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (folder / "out").iterdir()
    }


@pytest.mark.parametrize(
    "files", [PARQUET, pytest.param(ARRAY, marks=pytest.mark.slow)], ids=["parquet", "array"]
)
def test_a_few_rows_are_streamed_without_the_rest(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serving(Hub(files)) as hub:
        done = load(hub, tmp_path, count=20)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == {"xlam-shaped_train_20examples": ROWS[:20]}
    assert hub.bytes_sent < len(next(iter(files.values()))) / 2
    asked = {line.split()[1].removeprefix("/api").split("/")[1] for line in hub.log}
    assert asked == {"datasets"}, "no telemetry and no download count"


@pytest.mark.slow
def test_all_rows_are_fetched_once_from_a_slow_gated_hub(tmp_path: Path) -> None:
    with serving(Hub(PARQUET, is_gated=True, delay_s=0.05)) as hub:
        first = load(hub, tmp_path, token=GOOD_TOKEN)
        second = load(hub, tmp_path, token=GOOD_TOKEN)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert written(tmp_path) == {f"xlam-shaped_train_{N_ROWS}examples": ROWS}
    (size,) = map(len, PARQUET.values())
    assert hub.bytes_sent == size


@pytest.mark.parametrize("token", ["", pytest.param("hf_other", marks=pytest.mark.slow)])
def test_a_gated_dataset_says_how_to_get_access(tmp_path: Path, token: str) -> None:
    with serving(Hub(PARQUET, is_gated=True)) as hub:
        done = load(hub, tmp_path, token=token)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("AccessDenied: ")
    assert f"https://huggingface.co/datasets/{DATASET}" in last
    assert "`hf auth login`" in last
    assert "Traceback" not in done.stderr
    assert written(tmp_path) == {}


@pytest.mark.parametrize("count", [0, pytest.param(2500, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_download_that_breaks_off_once_still_gives_every_row(tmp_path: Path, count: int) -> None:
    with serving(Hub(ARRAY, n_breaks=1)) as hub:
        done = load(hub, tmp_path, count)
    assert done.returncode == 0, done.stderr
    assert hub.n_broken == 1
    (rows,) = written(tmp_path).values()
    assert rows == ROWS[: count or N_ROWS]


@pytest.mark.slow
def test_a_download_that_always_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with serving(Hub(ARRAY, n_breaks=1_000)) as hub:
        done = load(hub, tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"FetchError: {DATASET} could not be fetched")
    assert "Traceback" not in done.stderr
    assert written(tmp_path) == {}


@pytest.mark.slow
def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    with serving(Hub(PARQUET)) as hub:
        done = load(hub, tmp_path, split="dev")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"DataError: {DATASET} has no split dev; it has train"
    assert hub.bytes_sent == 0


SUBSETS = {
    "README.md": b"""---
configs:
- config_name: easy
  data_files: easy.jsonl
- config_name: hard
  data_files: hard.jsonl
---
""",
    "easy.jsonl": json.dumps(ROWS[0]).encode(),
    "hard.jsonl": json.dumps(ROWS[1]).encode(),
}


@pytest.mark.slow
def test_a_subset_can_be_named(tmp_path: Path) -> None:
    with serving(Hub(SUBSETS)) as hub:
        done = load(hub, tmp_path, subset="hard")
    assert done.returncode == 0, done.stderr
    assert written(tmp_path) == {"xlam-shaped_hard_train_1examples": [ROWS[1]]}


@pytest.mark.slow
@pytest.mark.parametrize("subset", ["", "none"])
def test_the_subsets_are_listed_where_one_must_be_named(tmp_path: Path, subset: str) -> None:
    with serving(Hub(SUBSETS)) as hub:
        done = load(hub, tmp_path, subset=subset)
    assert "has the subsets easy, hard; choose one with --subset" in done.stderr
