import json
from dataclasses import replace
from pathlib import Path

import pytest

from calltune.commands.analyze import AnalyzeOptions, run
from calltune.errors import DataError, OptionError, OutputError
from calltune.types import AcceptableArgument, Answer, Json, answers_to_json

from support.verdicts import verdict

ANSWER = Answer("area", {"unit": AcceptableArgument(("m",))})


def record(id: str, unit: str | None) -> dict[str, Json]:
    """A record whose model wrote `unit`, or nothing that can be read."""
    is_exact = unit == "m"
    return {
        "id": id,
        "query": "The area in [b]metres[/b]?",
        "n_tools": 1,
        "expected": answers_to_json((ANSWER,)),
        "text": f"area {unit} \x1b[31m" if unit else "I cannot.",
        "calls": [{"name": "area", "arguments": {"unit": unit}}] if unit else [],
        "problem": None if unit else "no call found",
        "verdict": verdict(is_exact, has_right_names=unit is not None, is_parsed=unit is not None),
    }


def write_results(path: Path, digest: str, **units: str | None) -> None:
    data = {
        "model": "m",
        "adapter": None,
        "format": "gemma",
        "test_set": {"path": "test.jsonl", "sha256": digest},
        "results": [record(id, unit) for id, unit in units.items()],
    }
    path.write_text(json.dumps(data), "utf-8")


@pytest.fixture
def options(tmp_path: Path) -> AnalyzeOptions:
    base, tuned = tmp_path / "base.json", tmp_path / "tuned.json"
    write_results(base, "aa", fixed="cm", broken="m", unread=None)
    write_results(tuned, "aa", fixed="m", broken="km", unread=None)
    return AnalyzeOptions(
        base_results=base, finetuned_results=tuned, output=tmp_path / "out" / "comparison.json"
    )


def test_the_comparison_is_written_and_printed(
    options: AnalyzeOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    written = json.loads(run(options).read_text("utf-8"))
    assert written["fixed"] == ["fixed"]
    assert written["broken"] == ["broken"]
    assert written["tuned"]["summary"]["success"]["count"] == 1
    assert written["p_value"] == 1.0
    out = capsys.readouterr().out
    assert "on the same 3 examples" in out
    assert "Tuning fixed 1 and broke 1" in out
    assert "cm" not in out


def test_verbose_shows_the_changed_examples_and_what_was_wrong(
    options: AnalyzeOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(options, verbose=True))
    out = capsys.readouterr().out
    for part in (
        "Fixed 1 of 1: fixed",
        "Broken 1 of 1: broken",
        "The area in [b]metres[/b]?",
        'area {"unit": "m"}',
        'area.unit: "cm" where "m" was right',
        'area.unit: "km" where "m" was right',
    ):
        assert part in out
    assert "I cannot." not in out


def test_control_characters_of_a_model_do_not_reach_the_terminal(
    options: AnalyzeOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(options, verbose=True))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"area cm \x1b[31m" in out


def test_the_manuals_pointer_file_is_followed(options: AnalyzeOptions) -> None:
    pointer = options.finetuned_results.with_name("test_model_results.json")
    pointer.write_text(json.dumps({"results_file": options.finetuned_results.name}))
    written = json.loads(run(replace(options, finetuned_results=pointer)).read_text())
    assert written["tuned"]["path"] == str(options.finetuned_results)


def test_missing_results_are_told_with_the_stage_that_writes_them(options: AnalyzeOptions) -> None:
    options.finetuned_results.unlink()
    with pytest.raises(DataError, match=r"tuned\.json; .*src/test_model\.py.*calltune test"):
        run(options)
    options.base_results.unlink()
    with pytest.raises(DataError, match=r"base\.json; .*src/inference\.py.*calltune infer"):
        run(options)


def test_different_test_sets_are_refused_and_the_old_comparison_stays(
    options: AnalyzeOptions,
) -> None:
    before = run(options).read_bytes()
    write_results(options.finetuned_results, "bb", fixed="m")
    with pytest.raises(DataError, match="different test sets"):
        run(options)
    assert options.output.read_bytes() == before


def test_results_are_never_overwritten(options: AnalyzeOptions, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="would overwrite results"):
        replace(options, output=options.base_results)
    pointer = tmp_path / "test_model_results.json"
    pointer.write_text(json.dumps({"results_file": "tuned.json"}))
    behind = replace(options, finetuned_results=pointer, output=options.finetuned_results)
    before = options.finetuned_results.read_bytes()
    with pytest.raises(OptionError, match="would overwrite results"):
        run(behind)
    assert options.finetuned_results.read_bytes() == before


def test_a_report_never_overwrites_results_or_the_comparison(
    options: AnalyzeOptions, tmp_path: Path
) -> None:
    for report in (options.base_results, tmp_path / "out" / ".." / "tuned.json"):
        with pytest.raises(OptionError, match="--report .* would overwrite results"):
            replace(options, report=report)
    with pytest.raises(OptionError, match="would both be"):
        replace(options, report=options.output)
    with pytest.raises(OptionError, match="would both be"):
        replace(options, output=tmp_path / "report.html")
    results = tmp_path / "report.html"
    results.write_bytes(options.base_results.read_bytes())
    with pytest.raises(OptionError, match=r"--report .*report\.html would overwrite results"):
        replace(options, base_results=results, output=tmp_path / "comparison.json")
    pointer = tmp_path / "test_model_results.json"
    pointer.write_text(json.dumps({"results_file": "tuned.json"}))
    before = options.finetuned_results.read_bytes()
    with pytest.raises(OptionError, match="--report .* would overwrite results"):
        run(replace(options, finetuned_results=pointer, report=options.finetuned_results))
    assert options.finetuned_results.read_bytes() == before
    assert not options.output.exists()


def test_results_of_another_format_are_compared_and_told(
    options: AnalyzeOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    text = options.finetuned_results.read_text()
    options.finetuned_results.write_text(text.replace('"gemma"', '"chatml"'))
    run(options)
    assert "The prompt formats differ: gemma, chatml." in capsys.readouterr().out


def test_results_of_an_earlier_version_are_refused_by_what_they_lack(
    options: AnalyzeOptions,
) -> None:
    text = options.finetuned_results.read_text()
    options.finetuned_results.write_text(text.replace('"is_ast"', '"is_lenient"'))
    with pytest.raises(DataError, match=r'tuned\.json .*is_ast" is missing.*the test stage'):
        run(options)


def test_an_answer_of_100_kb_is_shown_from_its_beginning(
    options: AnalyzeOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    text = options.finetuned_results.read_text()
    options.finetuned_results.write_text(text.replace("area m ", "area m " + "x" * 100_000))
    run(replace(options, verbose=True))
    out = capsys.readouterr().out
    assert len(out) < 10_000 and "more characters)" in " ".join(out.split())


def test_one_file_against_itself_is_refused(options: AnalyzeOptions) -> None:
    with pytest.raises(OptionError, match="are both"):
        replace(options, finetuned_results=options.base_results)


def test_an_output_that_cannot_be_written_is_told(options: AnalyzeOptions, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"):
        run(replace(options, output=tmp_path))
