"""calltune export, on two-layer models."""

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.commands import prep
from calltune.commands.export import ExportOptions, run
from calltune.data.prepared import prepare_example
from calltune.errors import OptionError
from calltune.exporting import targets
from calltune.files import write_rows
from calltune.formats import FORMATS

from support import tiny


@pytest.fixture
def adapter(tiny_gemma: Path, tmp_path: Path) -> Path:
    return tiny.write_adapter(tiny_gemma, tmp_path / "adapter")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = tiny.write_rows(folder / "rows", 40)
    return prep.run(prep.PrepOptions(input_file=rows, output_dir=folder))


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return found


def test_an_export_says_what_it_was_made_of(
    adapter: Path, tmp_path: Path, tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = run(ExportOptions(adapter_path=adapter, output=tmp_path / "out"))
    found = about(written)
    assert found["options"]["adapter_path"] == str(adapter)
    assert (found["model"], found["format"]) == (str(tiny_gemma), "gemma")
    assert found["survival"]["kept"] == pytest.approx(1)
    assert {"versions", "commit", "machine", "created"} <= found.keys()
    assert "Rounding keeps 100.0% of the adapter's change" in capsys.readouterr().out


def test_test_rows_are_answered_before_and_after(
    adapter: Path, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ExportOptions(
        adapter_path=adapter,
        output=tmp_path / "out",
        data=data,
        num_examples=3,
        max_tokens=8,
    )
    found = about(run(options))["success"]
    assert (found["before"]["of"], found["after"]["of"], found["n_same"]) == (3, 3, 3)
    assert "0 of 3 with the adapter, 0 of 3 exported; 3 answers" in capsys.readouterr().out


def test_answers_of_an_earlier_test_are_taken_over(
    adapter: Path, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calltune.commands import test
    from calltune.evaluation import run as evaluation_run

    results = tmp_path / "results"
    few: dict[str, Any] = {"num_examples": 2, "max_tokens": 4}
    test.run(test.TestOptions(adapter_path=adapter, data=data, results_dir=results, **few))
    loaded: list[str] = []
    load = evaluation_run.load
    monkeypatch.setattr(
        evaluation_run, "load", lambda *given: loaded.append(given[0]) or load(*given)
    )
    output = tmp_path / "out"
    run(ExportOptions(adapter_path=adapter, output=output, data=data, results=results, **few))
    assert len(loaded) == 1 and Path(loaded[0]).parent == tmp_path


def test_a_broken_export_leaves_nothing(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(targets.WRITERS, "mlx", break_off)
    with pytest.raises(KeyboardInterrupt):
        run(ExportOptions(adapter_path=adapter, output=tmp_path / "there" / "out"))
    assert list((tmp_path / "there").iterdir()) == []


def test_a_folder_that_is_there_is_kept(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OptionError, match="exists already"):
        run(ExportOptions(adapter_path=adapter, output=tmp_path / "out"))


def test_without_output_the_folder_is_named_after_the_adapter(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(adapter)
    assert run(ExportOptions(adapter_path=Path("."), bits="8")) == Path("exports/adapter-mlx-8")
    (adapter / "best").mkdir()
    for name in ("adapters.safetensors", "adapter_config.json"):
        (adapter / "best" / name).write_bytes((adapter / name).read_bytes())
    assert run(ExportOptions(adapter_path=Path("best"))) == Path("exports/adapter-best-mlx")


@pytest.mark.parametrize("trained_with", [None, "gemma", "chatml"])
def test_the_format_is_the_adapters_or_what_the_tokens_say(
    adapter: Path, tmp_path: Path, trained_with: str | None
) -> None:
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | ({"format": trained_with} if trained_with else {})))
    options = ExportOptions(adapter_path=adapter, output=tmp_path / "out")
    if trained_with == "chatml":
        with pytest.raises(OptionError, match="chatml"):
            run(options)
    else:
        assert about(run(options))["format"] == "gemma"


def test_a_model_that_loses_what_it_learnt_is_told_what_helps(
    tmp_path: Path, tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = tiny.write_adapter(tiny_gemma, tmp_path / "weak", size=0.003)
    run(ExportOptions(adapter_path=weak, output=tmp_path / "four", bits="4"))
    assert "--bits 8 or --bits dense" in capsys.readouterr().out
    run(ExportOptions(adapter_path=weak, output=tmp_path / "dense", bits="dense"))
    assert "--bits" not in capsys.readouterr().out


def test_an_export_keeps_what_was_learnt_and_says_how(
    tmp_path: Path, tiny_gemma: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    four = run(
        ExportOptions(
            adapter_path=weak(tiny_gemma, tmp_path / "any"), output=tmp_path / "q", bits="4"
        )
    )
    adapter = weak(four, tmp_path / "weak")
    capsys.readouterr()
    chosen = run(ExportOptions(adapter_path=adapter, output=tmp_path / "chosen"))
    out = capsys.readouterr().out
    assert "The layers that the adapter changes are in 8 bits: as the base model has them," in out
    assert "To lose less" not in out
    assert about(chosen)["bits"] == "8"
    assert about(chosen)["in_words"][0] in (chosen / "README.md").read_text()
    asked = run(ExportOptions(adapter_path=adapter, output=tmp_path / "asked", bits="base"))
    out = capsys.readouterr().out
    assert "The layers" not in out and "export with --bits 8 or --bits dense" in out
    assert about(asked)["bits"] == "base"
    assert about(asked)["survival"]["kept"] < 0.95 < about(chosen)["survival"]["kept"]


def weak(model: Path, folder: Path) -> Path:
    """An adapter whose change is small beside the steps of four bits."""
    return tiny.write_adapter(model, folder, size=0.003)


def test_an_adapter_goes_to_peft_and_back(adapter: Path, tmp_path: Path, tiny_gemma: Path) -> None:
    there = run(ExportOptions(to="peft", adapter_path=adapter, output=tmp_path / "peft"))
    assert about(there)["model"] == str(tiny_gemma)
    assert "## Instructions" in (there / "chat_template.jinja").read_text()
    back = run(ExportOptions(to="adapter", adapter_path=there, output=tmp_path / "back"))
    names = ("adapters.safetensors",)
    assert [(back / n).read_bytes() for n in names] == [(adapter / n).read_bytes() for n in names]
    assert json.loads((back / "adapter_config.json").read_text())["format"] == "gemma"


def test_an_adapter_of_peft_is_fused_as_it_is(adapter: Path, tmp_path: Path) -> None:
    there = run(ExportOptions(to="peft", adapter_path=adapter, output=tmp_path / "peft"))
    folders = [
        run(ExportOptions(adapter_path=source, output=tmp_path / f"out-{source.name}"))
        for source in (adapter, there)
    ]
    one, other = ((folder / "model.safetensors").read_bytes() for folder in folders)
    assert one == other


def test_an_adapter_that_is_none_of_peft_needs_no_way_back(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="already"):
        run(ExportOptions(to="adapter", adapter_path=adapter, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "impossible",
    [
        {"num_examples": 0},
        {"max_tokens": 0},
        {"format": "x"},
        {"to": "gguf", "bits": "4"},
        {"to": "gguf", "bits": "base"},
    ],
)
def test_impossible_options_are_refused(impossible: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        ExportOptions(**impossible)


def test_no_test_rows_is_one_line_and_no_folder(adapter: Path, tmp_path: Path) -> None:
    from calltune.errors import DataError

    write_rows(tmp_path / "test.jsonl", [])
    with pytest.raises(DataError, match="no rows"):
        run(ExportOptions(adapter_path=adapter, output=tmp_path / "out", data=tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.real
@pytest.mark.slow
def test_by_default_answers_are_those_of_the_adapter(tuned_adapter: Path, tmp_path: Path) -> None:
    """In the 4 bits of the base model, rounding changes answers."""
    from calltune.commands import test

    from support import tuned

    rows = [prepare_example(each, FORMATS["chatml"], True).to_json() for each in tuned.examples()]
    write_rows(tmp_path / "test.jsonl", rows[::4])
    results = tmp_path / "results"
    few: dict[str, Any] = {"adapter_path": tuned_adapter, "data": tmp_path, "max_tokens": 48}
    test.run(test.TestOptions(results_dir=results, **few))
    found = {}
    for bits in ("auto", "base"):
        more: dict[str, Any] = {"output": tmp_path / bits, "bits": bits, "results": results}
        found[bits] = about(run(ExportOptions(**few, **more)))
    assert found["auto"]["bits"] == "8"
    assert found["auto"]["success"]["n_same"] == 10 > found["base"]["success"]["n_same"]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("bits", "kind"), [("auto", "f16"), ("8", "q8_0")])
def test_a_gguf_file_comes_with_its_modelfile_and_is_the_tuned_model(
    tmp_path: Path, bits: Any, kind: str
) -> None:
    import mlx.core as mx

    from calltune.models.backend import Backend
    from calltune.models.loading import load
    from calltune.models.resolve import resolve

    cpu = Backend("cpu", "float32", None, "", "")
    base = resolve("pip:smollm2-135m")
    adapter = tiny.write_adapter(base, tmp_path / "mine", size=0.05)
    options = ExportOptions(
        to="gguf", adapter_path=adapter, model="pip:smollm2-135m", output=tmp_path / "g", bits=bits
    )
    written = run(options)
    assert sorted(path.name for path in written.iterdir()) == [
        "Modelfile",
        "README.md",
        "export.json",
        f"mine-{kind}.gguf",
    ]
    assert about(written)["stored"] == kind
    assert f"FROM ./mine-{kind}.gguf" in (written / "Modelfile").read_text()
    if kind == "q8_0":
        return  # What its rounding leaves is looked at weight by weight in tests/exporting.
    tokens = mx.array([[1, 504, 3575, 282, 4649, 314]])
    tuned = load(str(base), cpu, adapter).model(tokens)
    plain = load(str(base), cpu).model(tokens)
    read = load(str(written / f"mine-{kind}.gguf"), cpu).model(tokens)
    changed, lost = (float(mx.abs(tuned - other).max()) for other in (plain, read))
    assert lost < 0.1 * changed
