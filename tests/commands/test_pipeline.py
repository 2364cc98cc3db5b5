"""The stages from prepared rows to a comparison, on two-layer models, through the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support import cli, tiny


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/training as prep writes it by default."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny.write_rows(folder / "rows", 40)
    assert cli.run("prep", "--input_file", "rows", cwd=folder).returncode == 0
    return folder


def train(folder: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--train", "--data", "data/training", "--iters", "6", "--save-every", "4"]
    arguments += ["--batch-size", "4", "--num-layers", "2", "--learning-rate", "1e-3"]
    arguments += ["--steps-per-report", "2", "--val-batches", "2", "--grad-checkpoint"]
    return cli.run("train", "--model", model, *arguments, *more, cwd=folder)


@pytest.fixture(scope="module")
def trained(prepared: Path, tiny_gemma: Path) -> Path:
    ended = train(prepared, tiny_gemma, "--adapter-path", "adapters")
    assert ended.returncode == 0, ended.stderr
    return prepared


def test_training_writes_what_mlx_lm_writes_and_metrics(trained: Path) -> None:
    import mlx.core as mx

    folder = trained / "adapters"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "adapters.safetensors",
        "0000004_adapters.safetensors",
        "adapter_config.json",
        "best",
        "state",
        "metrics.jsonl",
        "run.json",
    }
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_parameters"] == {"rank": 8, "scale": 20.0, "dropout": 0.0}
    assert config["num_layers"] == 2 and config["fine_tune_type"] == "lora"
    weights = mx.load(str(folder / "adapters.safetensors"))
    assert any(float(mx.abs(w).max()) > 0 for name, w in weights.items() if "lora_b" in name)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train_loss"] for line in metrics if "train_loss" in line]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert [line["step"] for line in metrics if "val_loss" in line] == [0, 6]
    reports = [line for line in metrics if "train_loss" in line]
    assert reports[-1]["tokens"] > 0 and reports[-1]["peak_gb"] > 0
    record = json.loads((folder / "run.json").read_text())
    assert record["options"]["iters"] == 6 and record["versions"]["mlx-lm"]


def test_the_adapter_loads_in_mlx_lm_and_changes_the_model(trained: Path, tiny_gemma: Path) -> None:
    code = (
        "import sys; import mlx.core as mx; from mlx_lm import load, generate\n"
        "base, tokenizer = load(sys.argv[1])\n"
        "tuned, _ = load(sys.argv[1], adapter_path=sys.argv[2])\n"
        "tokens = mx.array([tokenizer.encode('Add 3.')])\n"
        "generate(tuned, tokenizer, 'Add 3.', max_tokens=4)\n"
        "print(mx.allclose(base(tokens), tuned(tokens)).item())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, tiny_gemma, trained / "adapters"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "False\n", ended.stderr


def test_training_again_with_the_same_options_keeps_the_adapter(
    trained: Path, tiny_gemma: Path
) -> None:
    weights = trained / "adapters" / "adapters.safetensors"
    before = weights.stat().st_mtime_ns
    ended = train(trained, tiny_gemma, "--adapter-path", "adapters")
    assert "was trained with these options" in ended.stdout
    assert weights.stat().st_mtime_ns == before


def test_resuming_starts_from_the_adapters_weights(trained: Path, tiny_gemma: Path) -> None:
    ended = train(
        trained,
        tiny_gemma,
        "--adapter-path",
        "more",
        "--resume-adapter-file",
        "adapters/adapters.safetensors",
    )
    assert ended.returncode == 0, ended.stderr

    def first_validation(name: str) -> float:
        lines = (trained / name / "metrics.jsonl").read_text().splitlines()
        return float(next(json.loads(line)["val_loss"] for line in lines if "val_loss" in line))

    assert first_validation("more") < first_validation("adapters")


def test_the_manuals_own_training_command_runs_on_what_prep_wrote(
    prepared: Path, tiny_gemma: Path
) -> None:
    command = [sys.executable, "-m", "mlx_lm", "lora", "--model", str(tiny_gemma), "--train"]
    command += ["--data", "data/training", "--iters", "3", "--val-batches", "1"]
    command += ["--learning-rate", "1e-4", "--batch-size", "2", "--num-layers", "2"]
    command += ["--save-every", "2", "--adapter-path", "manual", "--grad-checkpoint"]
    command += ["--seed", "42"]
    ended = subprocess.run(command, cwd=prepared, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    again = [*command, "--resume-adapter-file", "manual/adapters.safetensors"]
    ended = subprocess.run(again, cwd=prepared, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    tested = cli.run(
        "test", "--adapter-path", "manual", "--num_examples", "2", "--max-tokens", "4", cwd=prepared
    )
    assert tested.returncode == 0, tested.stderr


def results(folder: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "data" / "results" / name).read_text())
    return document


def test_base_and_tuned_are_tested_and_compared(trained: Path, tiny_gemma: Path) -> None:
    few = ("--num_examples", "3", "--max-tokens", "8")
    infer = cli.run("infer", "--model", tiny_gemma, *few, cwd=trained)
    assert infer.returncode == 0, infer.stderr
    test = cli.run("test", "--adapter-path", "adapters", *few, "--verbose", cwd=trained)
    assert test.returncode == 0, test.stderr
    assert "Base against tuned on the same 3 examples" in test.stdout
    base = results(trained, "base_model_test_results.json")
    tuned = results(trained, "finetuned_model_test_results.json")
    assert [r["id"] for r in base["results"]] == [r["id"] for r in tuned["results"]]
    assert base["adapter"] is None and tuned["adapter"] == "adapters"
    record = base["results"][0]
    assert record["finish"] == "length" and record["generated_tokens"] == 8
    assert record["problem"] and record["verdict"]["is_parsed"] is False
    assert record["verdict"]["reason"] == "cut off"
    named = results(trained, "test_model_results.json")
    assert named == {"results_file": "finetuned_model_test_results.json"}
    analyze = cli.run("analyze", "--verbose", cwd=trained)
    assert analyze.returncode == 0, analyze.stderr
    assert (trained / "data" / "results" / "comparison.json").exists()


def test_what_is_tested_is_not_tested_again(prepared: Path, tiny_gemma: Path) -> None:
    def tested(count: int) -> dict[str, Any]:
        arguments = ["--model", tiny_gemma, "--num_examples", count, "--max-tokens", 9]
        ended = cli.run("infer", *map(str, arguments), "--results-dir", "again", cwd=prepared)
        assert ended.returncode == 0, ended.stderr
        path = prepared / "again" / "base_model_test_results.json"
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    first, second = tested(2), tested(4)
    assert first["summary"]["taken_over"] == 0 and second["summary"]["taken_over"] == 2
    assert second["results"][:2] == first["results"]
    assert tested(1)["results"] == first["results"][:1]
    third = tested(4)
    assert third["summary"]["taken_over"] == 4 and third["results"] == second["results"]


@pytest.mark.slow
def test_a_killed_test_goes_on_where_it_was(prepared: Path, tiny_gemma: Path) -> None:
    arguments = ["--model", str(tiny_gemma), "--num_examples", "4", "--max-tokens", "400"]
    arguments += ["--batch-size", "1", "--results-dir", "killed"]
    journal = prepared / "killed" / "base_model_test_results.records.jsonl"
    command = [sys.executable, "-m", "calltune", "infer", *arguments]
    running = subprocess.Popen(
        command, cwd=prepared, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    with journal.open("ab") as file:
        file.write(b'{"id": "cut off in the mid')
    kept = journal.read_bytes().count(b"\n") - 1
    ended = cli.run("infer", *arguments, cwd=prepared)
    assert ended.returncode == 0, ended.stderr
    path = prepared / "killed" / "base_model_test_results.json"
    document = json.loads(path.read_text())
    assert document["summary"]["taken_over"] == kept >= 1
    assert len(document["results"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "--adapter-path", "nowhere"], "No adapter in nowhere"),
        (["infer", "--model", "nowhere/at/all"], "nowhere/at/all"),
        (["infer", "--num_examples", "0"], "--num_examples is 0"),
        (["train", "--data", "nowhere"], "No file nowhere/train.jsonl"),
        (["train", "--learning-rate", "0"], "--learning-rate is 0"),
        (["analyze", "--base-results", "nowhere.json"], "No results in nowhere.json"),
        (["prep", "--input_file", "nowhere"], "No file nowhere"),
        (["quickstart", "--recipe", "nothing"], "No recipe nothing"),
        (["prep", "--config", "nothing.toml"], "No recipe nothing.toml"),
    ],
)
def test_a_users_mistake_gets_one_line(prepared: Path, arguments: list[str], message: str) -> None:
    ended = cli.run(*arguments, cwd=prepared)
    assert ended.returncode == 1
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("calltune: ") and message in lines[0]


def test_an_adapter_of_another_model_is_refused(
    trained: Path, tiny_gemma: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(tiny_gemma, tmp_path / "wider")
    config = json.loads((tiny_gemma / "config.json").read_text())
    import mlx.core as mx
    from mlx.utils import tree_flatten

    config |= {"hidden_size": 48}
    (tmp_path / "wider" / "config.json").write_text(json.dumps(config))
    weights = dict(tree_flatten(tiny.make_model(config).parameters()))
    mx.save_safetensors(str(tmp_path / "wider" / "model.safetensors"), weights)
    ended = cli.run(
        "test", "--adapter-path", "adapters", "--model", tmp_path / "wider", cwd=trained
    )
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "was trained for" in ended.stderr


def test_a_loss_that_is_not_finite_stops_the_run_with_one_line(
    prepared: Path, tiny_gemma: Path
) -> None:
    arguments = ["--data", "data/training", "--iters", "6", "--num-layers", "2"]
    arguments += ["--learning-rate", "1e38", "--steps-per-report", "3", "--adapter-path", "lost"]
    ended = cli.run("train", "--model", tiny_gemma, *arguments, cwd=prepared)
    assert ended.returncode == 1
    assert "lower --learning-rate" in ended.stderr
    assert not (prepared / "lost" / "adapters.safetensors").exists()


def test_look_shows_special_tokens_and_where_training_starts(
    prepared: Path, tiny_gemma: Path
) -> None:
    ended = cli.run("look", "--model", tiny_gemma, "--num_examples", "1", cwd=prepared)
    assert ended.returncode == 0, ended.stderr
    prompt, _, trained_part = ended.stdout.partition("trained from here on")
    assert "<bos><start_of_turn>user" in prompt and "call_id_0" not in prompt
    assert "call_id_0" in trained_part and "<end_of_turn><eos>" in trained_part
    assert "0 rows dropped" in ended.stdout
