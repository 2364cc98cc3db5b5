"""The way from rows to a tested adapter with real weights, in few steps."""

import json
from pathlib import Path

import pytest

from support import cli

CITIES = ["Rome", "Oslo", "Lima", "Cairo", "Quito", "Paris", "Delhi", "Seoul", "Accra", "Hanoi"]
TOOL = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {"city": {"type": "str", "description": "The name of the city."}},
}
MODEL = ("--model", "pip:smollm2-135m", "--device", "cpu")
FEW = ("--num_examples", "1", "--max_tokens", "40", "--constrain")


@pytest.mark.real
def test_a_real_model_is_trained_and_tested(tmp_path: Path) -> None:
    rows = [
        {
            "query": f"What is the weather in {city}?",
            "tools": json.dumps([TOOL]),
            "answers": json.dumps([{"name": "get_weather", "arguments": {"city": city}}]),
        }
        for city in CITIES
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*arguments: str) -> None:
        ended = cli.run(*arguments, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr

    run("prep", "--input_file", "rows.jsonl", "--format", "chatml")
    steps = ("--iters", "4", "--batch-size", "2", "--num-layers", "2", "--learning-rate", "1e-3")
    run("train", *MODEL, *steps, "--no-grad-checkpoint", "--adapter-path", "adapter")
    run("test", "--adapter-path", "adapter", "--device", "cpu", *FEW)

    metrics = (tmp_path / "adapter" / "metrics.jsonl").read_text().splitlines()
    losses = [line["val_loss"] for line in map(json.loads, metrics) if "val_loss" in line]
    assert losses[-1] < losses[0]
    results = tmp_path / "data" / "results"
    (answer,) = json.loads((results / "finetuned_model_test_results.json").read_text())["results"]
    assert answer["text"].startswith("<tool_call>") and '"get_weather"' in answer["text"]
