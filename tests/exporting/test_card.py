"""The model card tells what calltune's records say, and nothing that they do not."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from calltune.commands import infer, prep, test, train
from calltune.errors import OptionError
from calltune.exporting.card import Subject, card, copy_licence
from calltune.formats import FORMATS

from support import tiny


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tiny_gemma: Path) -> Path:
    """A tiny training with its rows in data/ and its tests in results/."""
    folder = tmp_path_factory.mktemp("run")
    rows = tiny.write_rows(folder / "bfcl-eval_simple_python_40examples", 40)
    data = prep.run(prep.PrepOptions(input_file=rows, output_dir=folder / "data"))
    model, results = str(tiny_gemma), folder / "results"
    adapter = folder / "adapter"
    few: dict[str, Any] = {"data": data, "num_examples": 3, "max_tokens": 4}
    options = {"iters": 2, "num_layers": 1, "val_batches": 1, "grad_checkpoint": False}
    train.run(train.TrainOptions(model=model, data=data, adapter_path=adapter, **options))
    infer.run(infer.InferOptions(model=model, results_dir=results, **few))
    test.run(test.TestOptions(adapter_path=adapter, results_dir=results, **few))
    return folder


def subject(adapter: Path, **more: Any) -> Subject:
    known: dict[str, Any] = {
        "to": "mlx",
        "name": "acme/caller",
        "reference": "org/base",
        "prompt_format": FORMATS["gemma"],
        "adapter": adapter,
        "data": None,
        "results": None,
        "kept": "",
    }
    return Subject(**(known | more))


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    return found


def test_a_card_tells_data_training_and_results(run_folder: Path) -> None:
    text = card(subject(run_folder / "adapter", results=run_folder / "results"))
    assert text.startswith("---\nbase_model: org/base\n")
    assert "32 examples of `bfcl-eval_simple_python_40examples`" in text
    assert "on the upper 1 layers: 2 steps of 2 rows" in text
    assert "| base | tuned |" in text and "0 of 3, 0 % (0 to 56 %)" in text
    assert "held out from training" in text
    assert "BFCL, Apache-2.0" in text and "see the base model" in text
    assert 'Caller("acme/caller")' in text


def test_the_best_adapter_has_the_records_of_its_run(run_folder: Path) -> None:
    assert "32 examples of" in card(subject(run_folder / "adapter" / "best"))


def test_the_front_matter_is_the_hubs(run_folder: Path) -> None:
    found = front(card(subject(run_folder / "adapter", to="peft")))
    assert found["library_name"] == "peft" and found["pipeline_tag"] == "text-generation"
    assert {"function-calling", "lora", "peft"} <= set(found["tags"])
    assert "license" not in found
    packaged = front(card(subject(run_folder / "adapter", reference="pip:smollm2-135m")))
    assert packaged["license"] == "apache-2.0" and "base_model" not in packaged


def test_records_of_other_rows_are_not_told(run_folder: Path, tmp_path: Path) -> None:
    prepared = json.loads((run_folder / "data" / "training" / "prep.json").read_text())
    prepared["sha256"]["train.jsonl"] = "0" * 64
    (tmp_path / "prep.json").write_text(json.dumps(prepared))
    text = card(subject(run_folder / "adapter", data=tmp_path))
    assert "no records of its training data" in text and "bfcl-eval" not in text


def test_results_of_another_adapter_are_refused(
    run_folder: Path, tmp_path: Path, tiny_gemma: Path
) -> None:
    other = tiny.write_adapter(tiny_gemma, tmp_path / "other")
    with pytest.raises(OptionError, match="of another adapter"):
        card(subject(other, results=run_folder / "results"))


def test_an_adapter_without_any_record_has_a_card(tmp_path: Path, tiny_gemma: Path) -> None:
    text = card(subject(tiny.write_adapter(tiny_gemma, tmp_path / "bare")))
    assert "no records of its training data" in text and "No test results were given" in text
    assert "None" not in text and "\n\n\n" not in text


@pytest.mark.parametrize("to", ["mlx", "peft", "adapter", "gguf"])
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_every_kind_of_export_says_how_to_call_it(
    run_folder: Path, to: str, prompt_format: str
) -> None:
    text = card(subject(run_folder / "adapter", to=to, prompt_format=FORMATS[prompt_format]))
    assert "```" in text.split("## How to call it")[1] or to == "gguf"
    if to == "mlx":
        assert ("no parser" in text) == (FORMATS[prompt_format].tool_parser is None)


def test_the_terms_of_the_base_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calltune.exporting.card.cache_folder", lambda: tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "GEMMA_TERMS.html").write_text("terms")
    for reference in ("pip:gemma3-270m", "pip:smollm2-135m", "gemma3-270m"):
        (tmp_path / reference).mkdir()
        copy_licence(reference, tmp_path / reference)
    gemma = tmp_path / "pip:gemma3-270m"
    assert (gemma / "GEMMA_TERMS.html").read_text() == "terms"
    assert "ai.google.dev/gemma/terms" in (gemma / "NOTICE").read_text()
    assert list((tmp_path / "pip:smollm2-135m").iterdir()) == []
    assert list((tmp_path / "gemma3-270m").iterdir()) == []


def test_gemmas_licence_is_named(run_folder: Path) -> None:
    text = card(subject(run_folder / "adapter", reference="pip:gemma3-270m"))
    assert front(text)["license"] == "gemma" and "ai.google.dev/gemma/terms" in text
