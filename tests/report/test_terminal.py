"""Nothing that a model or a dataset wrote is obeyed by the terminal."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from calltune.data.batching import TokenRow
from calltune.evaluation.compare import compare
from calltune.evaluation.metrics import summarise
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.results import Results, read_results
from calltune.evaluation.run import Evaluation, EvaluationRun
from calltune.report.examples import print_changed, print_record
from calltune.report.rows import print_lengths, print_row
from calltune.report.tables import print_comparison, print_details, print_summary
from calltune.types import Json

from support.hostile import HOSTILE, obeyed
from support.verdicts import verdict


def record(number: int, is_exact: bool) -> dict[str, Json]:
    return {
        "id": f"{HOSTILE}\n{number}",
        "source": f"{number % 2} {HOSTILE}",
        "query": HOSTILE,
        "n_tools": 1,
        "expected": [{"name": HOSTILE, "arguments": {HOSTILE: {"values": [HOSTILE]}}}],
        "text": HOSTILE,
        "calls": [{"name": HOSTILE, "arguments": {HOSTILE: number}}],
        "problem": None if is_exact else f"arguments of {HOSTILE} are not an object",
        "verdict": verdict(is_exact),
    }


def results(file: Path, right: str) -> Results:
    document = {
        "model": HOSTILE,
        "adapter": HOSTILE,
        "format": f"{file.stem} {HOSTILE}",
        "test_set": {"path": HOSTILE, "sha256": HOSTILE},
        "results": [record(number, letter == "r") for number, letter in enumerate(right)],
    }
    file.write_text(json.dumps(document))
    return read_results(file)


def evaluation(found: Results) -> Evaluation:
    records = tuple(replace(one, unenforced=(HOSTILE,)) for one in found.records.values())
    paths = (Path(HOSTILE), Path(HOSTILE), Path(HOSTILE))
    return Evaluation(
        run=EvaluationRun(HOSTILE, *paths, AnswerOptions()),
        prompt_format=HOSTILE,
        identity={},
        records=records,
        summary=summarise(records),
        prompt_tokens=1,
        generated_tokens=1,
        seconds=1.0,
        n_taken_over=0,
    )


def test_hostile_results_are_shown_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned = results(tmp_path / "a.json", "rwwr"), results(tmp_path / "b.json", "wrwr")
    comparison = compare(base, tuned)
    print_changed(comparison, base, tuned)
    print_comparison(comparison)
    print_details(comparison)
    print_summary(evaluation(base))
    print_record(Console(highlight=False), next(iter(tuned.records.values())))
    out = capsys.readouterr().out
    assert not obeyed(out)
    assert r"\x1b[31m" in out and "[bold]x[/bold]" in out
    # An id is in one line.
    assert "Fixed 1 of 1: </script>" in out and "\n1\n" not in out


class Tokenizer:
    """One token a letter."""

    all_special_ids = (0,)
    added_tokens_decoder: dict[int, Any] = {}

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def test_a_hostile_row_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_row(TokenRow(HOSTILE, tuple(map(ord, HOSTILE)), 20), Tokenizer())
    print_lengths([], [HOSTILE, "other"], 100)
    out = capsys.readouterr().out
    assert not obeyed(out)
    assert "[bold]x[/bold][/nothing]" in out
