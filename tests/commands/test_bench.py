"""calltune bench bfcl, on rows made here and, marked real, on those of the wheel."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calltune.commands.bench import BfclOptions, run
from calltune.data.sources import bfcl
from calltune.errors import DataError, ModelNotFound, OptionError
from calltune.evaluation.bfcl import MODEL
from calltune.types import Json

from support import cli


def row(row_id: str, **more: Json) -> dict[str, Json]:
    properties = {"x": {"type": "integer", "description": "A number."}}
    parameters = {"type": "dict", "properties": properties, "required": ["x"]}
    function = {"name": "add", "description": "Add.", "parameters": parameters}
    question = [[{"role": "user", "content": f"Do {row_id}."}]]
    return {"id": row_id, "question": question, "function": [function]} | more


ROWS = [
    *(row(f"simple_python_{n}", ground_truth=[{"add": {"x": [n]}}]) for n in range(3)),
    row("simple_python_3", ground_truth=[{"add": {"y": [1]}}]),
    row("irrelevance_0"),
]


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(split: str, num_examples: int | None) -> Iterator[dict[str, Json]]:
        yield from ROWS

    monkeypatch.setattr(bfcl, "rows", given)


def options(folder: Path, model: Path, **more: Any) -> BfclOptions:
    given = {"model": str(model), "output_dir": folder, "max_tokens": 4, "device": "cpu"}
    return BfclOptions(**given | more)


@pytest.mark.usefixtures("few_rows")
def test_answers_are_kept_and_more_rows_ask_only_what_is_new(
    tmp_path: Path, tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run(options(tmp_path, tiny_gemma, num_examples=1))
    out = capsys.readouterr().out
    assert "Left out 1: argument the tool does not have (simple_python_3)" in out
    assert "simple_python" in out and "No overall score" in out
    assert f"bfcl evaluate --model {MODEL}" in out
    assert len((tmp_path / "test.jsonl").read_text().splitlines()) == 4
    results = tmp_path / "bfcl_test_results.json"
    answered = json.loads(results.read_text())
    assert [r["id"] for r in answered["results"]] == ["simple_python_0", "irrelevance_0"]
    found = json.loads(file.read_text())
    assert [section["name"] for section in found["sections"]] == [
        "Non-Live AST",
        "Irrelevance Detection",
    ]
    assert found["left_out"] == {"argument the tool does not have": ["simple_python_3"]}
    run(options(tmp_path, tiny_gemma))
    again = json.loads(results.read_text())
    assert again["summary"]["taken_over"] == 2 and len(again["results"]) == 4
    folder = tmp_path / "result" / MODEL.replace("/", "_") / "non_live"
    lines = (folder / "BFCL_v4_simple_python_result.json").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"simple_python_{n}" for n in range(3)]


@pytest.mark.usefixtures("few_rows")
def test_answers_to_something_else_are_not_overwritten(tmp_path: Path, tiny_gemma: Path) -> None:
    run(options(tmp_path, tiny_gemma, num_examples=1))
    kept = (tmp_path / "test.jsonl").read_bytes()
    for name, other in (
        ("model", options(tmp_path, tmp_path / "other")),
        ("format", options(tmp_path, tiny_gemma, format="chatml")),
        ("categories", options(tmp_path, tiny_gemma, categories="parallel")),
        ("max_tokens", options(tmp_path, tiny_gemma, max_tokens=5)),
    ):
        with pytest.raises(OptionError, match=f"another {name} .*--output_dir"):
            run(other)
    assert (tmp_path / "test.jsonl").read_bytes() == kept


def test_without_a_model_it_is_the_adapters(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="No adapter in nowhere"):
        run(BfclOptions(adapter_path=Path("nowhere"), output_dir=tmp_path))
    (tmp_path / "adapter_config.json").write_text('{"lora": 8}')
    with pytest.raises(ModelNotFound, match="names no model"):
        run(BfclOptions(adapter_path=tmp_path, output_dir=tmp_path))


@pytest.mark.usefixtures("few_rows")
def test_a_format_that_the_model_does_not_have_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(OptionError, match="another --format"):
        run(options(tmp_path, tiny_llama))


@pytest.mark.usefixtures("few_rows")
def test_impossible_options_are_refused(tmp_path: Path) -> None:
    for more in ({"num_examples": 0}, {"num_examples": -2}, {"format": "nothing"}):
        with pytest.raises(OptionError):
            options(tmp_path, tmp_path, **more)
    for name in ("max_tokens", "batch_size"):
        with pytest.raises(OptionError, match=name):
            run(options(tmp_path, tmp_path, **{name: 0}))


@pytest.mark.real
def test_a_category_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no category nothing"):
        run(options(tmp_path, tmp_path, categories="parallel+nothing"))


@pytest.mark.real
@pytest.mark.slow
def test_every_category_is_asked_and_reported(tmp_path: Path, tiny_llama: Path) -> None:
    arguments = ["--model", str(tiny_llama), "--format", "chatml", "--max-tokens", "4"]
    ended = cli.run("bench", "bfcl", *arguments, "--num_examples", "2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    categories = (*bfcl.CATEGORIES, *bfcl.WITHOUT_CALLS)
    for name in (*categories, "Non-Live AST", "Live AST", "Irrelevance Detection"):
        assert name in ended.stdout
    found = list((tmp_path / "data" / "bfcl" / "result").rglob("BFCL_v4_*_result.json"))
    assert len(found) == len(categories)
    answers = [line for file in found for line in file.read_text().splitlines()]
    assert len(answers) == 2 * len(categories)
