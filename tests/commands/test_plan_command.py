"""calltune plan through the command line, beside real trainings of small models."""

import json
import re
from pathlib import Path

import pytest

from support import cli, tiny

WIDER = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4}
WIDER |= {"num_hidden_layers": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/training, and a model that is wide enough for its memory to be told."""
    folder = tmp_path_factory.mktemp("plan")
    tiny.write_rows(folder / "rows", 40)
    assert cli.run("prep", "--input_file", "rows", "--format", "chatml", cwd=folder).returncode == 0
    config = tiny.LLAMA_CONFIG | WIDER
    tiny._write(folder / "model", config, tiny.CHATML_TOKENS, "<|im_start|>", "<|im_end|>")
    return folder


def options(*more: str, device: str = "cpu") -> list[str]:
    shared = ["--model", "model", "--data", "data/training", "--iters", "2", "--device", device]
    return [*shared, "--val-batches", "1", *more]


def predicted_gb(output: str) -> float:
    found = re.search(r"predicted peak ([\d.]+) GB", output)
    assert found, output
    return float(found[1])


@pytest.mark.parametrize(
    "more",
    [
        ("--batch-size", "8", "--num-layers", "2"),
        pytest.param(("--batch-size", "4", "--num-layers", "-1"), marks=pytest.mark.slow),
        pytest.param(
            ("--batch-size", "8", "--num-layers", "3", "--prefix-cache", "off", "--rank", "16"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_prediction_is_within_15_percent_of_a_training(
    prepared: Path, more: tuple[str, ...]
) -> None:
    planned = cli.run("plan", *options(*more), cwd=prepared)
    assert planned.returncode == 0, planned.stderr
    folder = prepared / "_".join(more)
    trained = cli.run("train", *options(*more), "--adapter-path", folder, cwd=prepared)
    assert trained.returncode == 0, trained.stderr
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = max(line.get("peak_gb", 0) for line in metrics)
    assert predicted_gb(planned.stdout) == pytest.approx(measured, rel=0.15)


def test_a_small_machine_is_told_what_to_change(prepared: Path) -> None:
    ended = cli.run("plan", *options("--batch-size", "8", "--memory-gb", "0.41"), cwd=prepared)
    assert ended.returncode == 1 and "--num-layers is 8" in ended.stderr
    fewer = options("--batch-size", "8", "--num-layers", "4", "--memory-gb", "0.41")
    ended = cli.run("plan", *fewer, cwd=prepared)
    assert ended.returncode == 0, ended.stderr
    assert "it does not fit" in ended.stdout
    assert "--batch-size 4" in ended.stdout or "--batch-size 1" in ended.stdout
    assert "fits" in cli.run("plan", *options("--num-layers", "4"), cwd=prepared).stdout


def test_a_gpu_can_be_planned_for_where_there_is_none(prepared: Path) -> None:
    arguments = options("--num-layers", "2", "--memory-gb", "24", device="gpu")
    ended = cli.run("plan", *arguments, cwd=prepared)
    assert ended.returncode == 0, ended.stderr
    assert "A run may use 24.00 GB: it fits" in ended.stdout


def test_a_recipe_is_planned_by_its_table_for_train(prepared: Path) -> None:
    recipe = prepared / "recipe.toml"
    recipe.write_text('[prep]\nmodel = "other"\n\n[train]\nmodel = "model"\nnum_layers = 2\n')
    ended = cli.run("plan", "--config", "recipe.toml", "--device", "cpu", cwd=prepared)
    assert ended.returncode == 0, ended.stderr
    assert "predicted peak" in ended.stdout


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--memory-gb", "0"), "--memory-gb is 0"),
        (("--max-seq-length", "20"), "raise --max-seq-length"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_ends_with_one_line(prepared: Path, more: tuple[str, str], reason: str) -> None:
    ended = cli.run("plan", "--model", "model", "--device", "cpu", *more, cwd=prepared)
    assert ended.returncode == 1
    assert reason in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
