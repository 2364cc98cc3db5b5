"""The options for answering, through the command line and a tiny model of random weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.errors import OptionError
from calltune.evaluation.options import AnswerOptions

from support import cli, tiny


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answering")
    rows = tiny.write_rows(folder / "rows.jsonl", 20)
    ended = cli.run("prep", "--input-file", rows, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def answered(folder: Path, model: Path, *more: str) -> dict[str, Any]:
    arguments = ["--device", "cpu", *more]
    ended = cli.run("infer", "--model", model, *arguments, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(
        (folder / "data/results/base_model_test_results.json").read_text()
    )
    return found | {"shown": ended.stdout}


def test_answers_that_are_held_keep_to_the_schemas(prepared: Path, tiny_gemma: Path) -> None:
    free = answered(prepared, tiny_gemma, "--max-tokens", "20")
    # Drawn, as the likeliest letter of a random model is the same digit for ever.
    drawn = ("--temperature", "1.5", "--max-tokens", "400")
    held = answered(prepared, tiny_gemma, "--constrain", *drawn)
    assert free["details"]["schema_valid"]["count"] == 0 and "not_held" not in free
    ended = [record for record in held["results"] if record["finish"] == "stop"]
    assert ended and all(record["verdict"]["is_valid"] for record in ended)
    assert held["not_held"] == {} and held["identity"]["constrain"] is True


def test_several_answers_are_drawn_and_more_are_added(prepared: Path, tiny_gemma: Path) -> None:
    options = ("--constrain", "--temperature", "1.5", "--max-tokens", "60")
    two = answered(prepared, tiny_gemma, *options, "--samples", "2")
    three = answered(prepared, tiny_gemma, *options, "--samples", "3")
    assert three["summary"]["taken_over"] == 4
    assert list(three["pass_at"]) == ["1", "2", "3"]
    assert "pass@3" in three["shown"]
    assert [r["text"] for r in two["results"]] == [r["text"] for r in three["results"]]
    other = answered(prepared, tiny_gemma, *options, "--samples", "2", "--seed", "1")
    assert other["summary"]["taken_over"] == 0
    assert "Replacing the answers in" in other["shown"] and "(seed 42, now 1)" in other["shown"]
    assert "Replacing" not in three["shown"]
    assert [r["text"] for r in other["results"]] != [r["text"] for r in two["results"]]
    assert {r["n_samples"] for r in three["results"]} == {3}
    # Of every answer, not of the first to each row alone.
    first = sum(r["generated_tokens"] for r in three["results"])
    assert three["summary"]["generated_tokens"] > 2 * first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": 3}, "--samples 3 would give the same answer each time"),
        ({"samples": 0}, "--samples is 0"),
        ({"temperature": -0.1}, "--temperature is -0.1"),
        ({"temperature": float("nan")}, "--temperature is nan"),
        ({"top_p": 0.0}, "--top_p is 0.0"),
        ({"top_p": 1.5}, "--top_p is 1.5"),
        ({"batch_size": 0}, "--batch_size is 0"),
    ],
)
def test_impossible_options_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        AnswerOptions(**given)
