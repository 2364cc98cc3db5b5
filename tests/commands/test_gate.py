import json
from pathlib import Path

import pytest

from calltune.cli import main
from calltune.commands.gate import GateOptions, run
from calltune.errors import DataError, OptionError, WorseThanBaseline

from support.verdicts import verdict


def write(path: Path, right: str, ast: str | None = None, digest: str = "aa") -> Path:
    """Results of as many examples as there are letters; x is right."""
    records = [
        {
            "id": str(number),
            "query": "",
            "n_tools": 1,
            "expected": [],
            "text": "",
            "calls": [],
            "problem": None,
            "verdict": verdict(letter == "x", is_ast=(ast or right)[number] == "x"),
        }
        for number, letter in enumerate(right)
    ]
    document = {
        "model": "m",
        "adapter": None,
        "format": "gemma",
        "test_set": {"path": "test.jsonl", "sha256": digest},
        "results": records,
    }
    path.write_text(json.dumps(document), "utf-8")
    return path


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return write(tmp_path / "a.json", "xxxxxxxx..")


def test_results_that_are_worse_beyond_chance_fail(tmp_path: Path, baseline: Path) -> None:
    # Six broken and none fixed: 2 / 2 ** 6 = 0.031.
    worse = write(tmp_path / "b.json", "......xx..")
    with pytest.raises(WorseThanBaseline, match=r"6 broken and 0 fixed of 10 .*p = 0.031"):
        run(GateOptions(worse, baseline=baseline))
    run(GateOptions(worse, baseline=baseline, level=0.03))


@pytest.mark.parametrize(
    ("letters", "said"),
    [
        (".....xxx..", "worse than the baseline, but not by more than chance: 5 broken"),
        ("xxxxxxxx..", "level with the baseline: 0 broken"),
        ("xxxxxxxxxx", "better than the baseline: 0 broken and 2 fixed"),
    ],
)
def test_others_pass(
    tmp_path: Path, baseline: Path, letters: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "b.json", letters)
    assert run(GateOptions(other, baseline=baseline)) == other
    assert f"Passed: {said}" in capsys.readouterr().out


def test_the_verdict_that_counts_can_be_chosen(tmp_path: Path, baseline: Path) -> None:
    other = write(tmp_path / "b.json", "......xx..", ast="xxxxxxxx..")
    run(GateOptions(other, baseline=baseline, verdict="ast"))


def test_a_baseline_is_not_passed_by_leaving_examples_out(tmp_path: Path, baseline: Path) -> None:
    fewer = write(tmp_path / "b.json", "xxxx")
    with pytest.raises(DataError, match="lacks 6 of the baseline's 10"):
        run(GateOptions(fewer, baseline=baseline))
    with pytest.raises(DataError, match="different test sets"):
        run(GateOptions(write(tmp_path / "c.json", "x", digest="bb"), baseline=baseline))


def test_the_command_ends_with_1_and_one_line(
    tmp_path: Path, baseline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = write(tmp_path / "b.json", "......xx..")
    with pytest.raises(SystemExit) as ended:
        main(["gate", "--baseline", str(baseline), str(worse)])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"calltune: worse than {baseline}: 6 broken")
    with pytest.raises(SystemExit) as ended:
        main(["gate", str(baseline), "--baseline", str(baseline)])
    assert ended.value.code == 0


def test_an_impossible_level_is_refused(baseline: Path) -> None:
    with pytest.raises(OptionError, match="--level is 1"):
        GateOptions(baseline, baseline=baseline, level=1)
