from dataclasses import replace

import pytest

from calltune.evaluation.bfcl import Section
from calltune.evaluation.metrics import rate
from calltune.report.leaderboard import print_leaderboard

LIVE = Section("Live AST", rate(3, 4), {"live_simple": rate(3, 4)})
IDLE = Section("Irrelevance Detection", None, {"irrelevance": rate(1, 4)})


def test_accuracies_counts_and_intervals_stand_in_a_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_leaderboard("m", "a", [LIVE, IDLE], [LIVE, IDLE])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "BFCL, single-turn Python: 8 answers" in lines and "m + a" in lines
    assert "live_simple 75.00 % 4 30 % to 95 %" in lines
    assert "Irrelevance Detection N/A" in lines
    assert any(line.startswith("No overall score") for line in lines)
    assert not any("BFCL's count" in line or "simple_python" in line for line in lines)


def test_bfcls_count_is_shown_where_it_is_another(capsys: pytest.CaptureFixture[str]) -> None:
    there = replace(IDLE, categories={"irrelevance": rate(2, 4)})
    print_leaderboard("m", None, [LIVE, IDLE], [LIVE, there])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "BFCL's count 50.00 % 4 15 % to 85 %" in lines
    assert any("counts text that does not parse as no call" in line for line in lines)
