from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calltune.evaluation.compare import Comparison, compare
from calltune.evaluation.metrics import summarise
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.results import Results
from calltune.evaluation.run import Evaluation, EvaluationRun
from calltune.report.labels import describe_significance
from calltune.report.tables import print_comparison, print_details, print_summary
from calltune.types import Json

from support.verdicts import record, record_json, results


def records(exact: list[bool], n_tools: int = 1) -> list[dict[str, Json]]:
    expected = [{"name": "f", "arguments": {}}]
    return [
        record_json(is_exact, f"e{i}", n_tools=n_tools if i else 1, expected=expected)
        for i, is_exact in enumerate(exact)
    ]


def named(name: str, adapter: str | None, made: list[dict[str, Json]]) -> Results:
    return results(name, *made, model="pip:gemma3-270m", adapter=adapter)


def comparison(before: list[bool], after: list[bool], n_tools: int = 1) -> Comparison:
    return compare(
        named("base.json", None, records(before, n_tools)),
        named("tuned.json", "my-adapter", records(after, n_tools)),
    )


def evaluation(exact: list[bool], **changes: Any) -> Evaluation:
    found = tuple(record(is_exact, id=f"e{i}") for i, is_exact in enumerate(exact))
    files = (Path("test.jsonl"), Path("results.json"))
    run = EvaluationRun("pip:gemma3-270m", Path("my-adapter"), *files, AnswerOptions())
    usual = Evaluation(
        run=run,
        prompt_format="gemma",
        identity={"test_sha256": "ab"},
        records=found,
        summary=summarise(found),
        prompt_tokens=12_000,
        generated_tokens=1500,
        seconds=20.0,
        n_taken_over=0,
    )
    return replace(usual, **changes)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was printed, without the spaces that only align it."""
    out = capsys.readouterr().out
    assert "\x1b" not in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    return [" ".join(line.split()) for line in lines]


@pytest.fixture(autouse=True)
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def test_a_summary_shows_counts_rates_intervals_and_speed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_summary(evaluation([True] * 12 + [False] * 28))
    lines = shown(capsys)
    assert "pip:gemma3-270m + my-adapter" in lines
    assert "exact match 12 of 40 30 % 18 % to 45 %" in lines
    assert "parses 40 of 40 100 % 91 % to 100 %" in lines
    assert "1,500 tokens generated in 20.0 s (75 tokens/s), after 12,000 prompt tokens." in lines


def test_no_speed_is_told_of_answers_from_an_earlier_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_summary(evaluation([True] * 3, seconds=0.0, n_taken_over=2))
    lines = shown(capsys)
    assert "2 of the answers are from an earlier run." in lines
    assert not any("tokens/s" in line for line in lines)


def test_what_was_not_enforced_and_how_several_answers_do_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    note = "f: uniqueItems\x1b[31m"
    first = (note, *(f"g: keyword{i}" for i in range(6)))
    made = (
        record(True, id="e0", unenforced=first, n_right=5, n_samples=5),
        record(False, id="e1", unenforced=(note,), n_right=1, n_samples=5),
    )
    print_summary(evaluation([True, False], records=made))
    lines = shown(capsys)
    assert "Exact match: pass@1 60 %, pass@2 70 %, pass@4 90 %, pass@5 100 %" in lines
    assert "Not enforced in 2 answers: f: uniqueItems\\x1b[31m" in lines
    assert "and 2 more, in the results file" in lines


def test_notes_of_one_kind_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    long = tuple(f"g{i}: maxLength" for i in range(1223))
    made = (
        record(True, id="e0", unenforced=(*long, "f: not")),
        record(True, id="e1", unenforced=long[5:]),
        record(True, id="e2", unenforced=()),
    )
    print_summary(evaluation([True] * 3, records=made))
    assert [line for line in shown(capsys) if "enforced" in line] == [
        "Not enforced in 2 answers: maxLength, of 1,223 tools, such as g5",
        "Not enforced in 1 answers: f: not",
    ]


def test_a_comparison_shows_both_sides_and_the_change(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(comparison([False] * 40, [True] * 12 + [False] * 28, n_tools=5))
    lines = shown(capsys)
    assert "Base against tuned on the same 40 examples" in lines
    assert "tuned pip:gemma3-270m + my-adapter" in lines
    assert "exact match 0 of 40 0 % 12 of 40 30 % +30 points" in lines
    assert "parses 40 of 40 100 % 40 of 40 100 % same" in lines
    assert "1 tool offered 0 of 1 0 % 1 of 1 100 % +100 points" in lines
    assert "4+ tools offered 0 of 39 0 % 11 of 39 28 % +28 points" in lines
    assert "Tuning fixed 12 and broke 0; 0 were right both times, 28 wrong both times." in lines


def seen_and_unseen(name: str, exact: list[bool], unseen: list[int]) -> Results:
    made = records(exact)
    for one, n in zip(made, unseen, strict=True):
        one["unseen_tools"] = n
    return results(name, *made)


def test_tools_that_training_has_seen_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    unseen = [0, 1, 0, 2, 0]
    base = seen_and_unseen("a", [False] * 5, unseen)
    print_comparison(compare(base, seen_and_unseen("b", [True] * 4 + [False], unseen)))
    lines = shown(capsys)
    assert "seen tools 0 of 3 0 % 2 of 3 67 % +67 points" in lines
    assert "unseen tools 0 of 2 0 % 2 of 2 100 % +100 points" in lines


def test_examples_of_one_size_are_not_split_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(comparison([False, True], [True, True]))
    assert not any("tool offered" in line or "to make" in line for line in shown(capsys))


def test_examples_left_out_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(comparison([False] * 3, [True] * 2))
    assert "1 example is in the base results only: left out." in shown(capsys)


def test_a_source_that_looks_like_markup_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`[/x]` once ended the command with an error, and `[red]` was lost."""
    made = [
        record_json(True, id=f"e{i}", source=source)
        for i, source in enumerate(("a[red]b", "[/x]", ":smile:"))
    ]
    print_details(compare(results("a", *made), results("b", *made)))
    shown = capsys.readouterr().out
    assert all(source in shown for source in ("a[red]b", "[/x]", ":smile:"))


@pytest.mark.slow
def test_large_counts_fit_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(comparison([False] * 12_345, [True] * 12_345, n_tools=3))
    assert any("12,345 of 12,345 100 % +100 points" in line for line in shown(capsys))
    unseen = [0] + [1] * 12_345
    base = seen_and_unseen("a", [False] * 12_346, unseen)
    print_comparison(compare(base, seen_and_unseen("b", [True] * 12_346, unseen)))
    assert "unseen tools 0 of 12,345 0 % 12,345 of 12,345 100 % +100 points" in shown(capsys)


def test_chance_is_told_in_plain_words() -> None:
    def words(before: str, after: str) -> str:
        return describe_significance(
            comparison([c == "r" for c in before], [c == "r" for c in after])
        )

    assert words("rw", "rw").startswith("Both models are right on the same examples")
    assert words("www", "rrw").startswith("The difference may be chance")
    assert words("w" * 9, "r" * 9).startswith("The difference is unlikely to be chance")
    assert "in 0.4 % of such tests" in words("w" * 9, "r" * 9)
    assert "in less than 0.1 % of such tests" in words("w" * 20, "r" * 20)


def test_the_breakdown_counts_reasons_for_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    print_details(comparison([False, False, True], [False, True, True]))
    lines = shown(capsys)
    assert "wrong value 2 1" in lines
    assert "arguments, F1 0.33 0.67" in lines and "functions, F1 1.00 1.00" in lines
    assert "satisfies the tools' schemas 3 of 3 100 % 3 of 3 100 %" in lines
    # Of nothing, nothing is told.
    assert not any("none is due" in line or "exact match" in line for line in lines)
    print_details(comparison([True], [True]))
    assert not any("reason for failure" in line for line in shown(capsys))


def test_the_breakdown_tells_how_long_answers_are_and_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def costing(name: str, tokens: list[int], seconds: list[float]) -> Results:
        made = records([True] * len(tokens))
        for one, count, duration in zip(made, tokens, seconds, strict=True):
            one |= {"generated_tokens": count, "seconds": duration}
        return results(name, *made)

    base = costing("a", [512, 512, 20, 512], [40.0, 30.0, 2.0, 8.0])
    print_details(compare(base, costing("b", [30, 31, 33, 1_030], [0.5, 1.25, 1.5, 2.0])))
    lines = shown(capsys)
    assert "tokens per answer 389 (median 512) 281 (median 32)" in lines
    assert "seconds per answer 20 (median 19) 1.3 (median 1.4)" in lines
    # Results from before records had them.
    print_details(comparison([True], [True]))
    assert not any("per answer" in line for line in shown(capsys))


def test_the_breakdown_tells_sources_apart_where_there_are_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def several(name: str, exact: list[bool]) -> Results:
        made = records(exact)
        for number, one in enumerate(made):
            one["source"] = f"source/{number}"
        return results(name, *made)

    print_details(compare(several("a", [False, True]), several("b", [True, True])))
    lines = shown(capsys)
    assert "source/0 0 of 1 0 % 1 of 1 100 % +100 points" in lines
    assert "source/1 1 of 1 100 % 1 of 1 100 % same" in lines


def test_what_came_of_rows_without_a_call_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    def idle(outcome: str) -> Results:
        made = records([False])
        made[0]["verdict"] |= {"reason": None, "abstention": outcome}
        return results(f"{outcome}.json", *made)

    print_details(compare(idle("called anyway"), idle("abstained")))
    lines = shown(capsys)
    assert "abstained 0 1" in lines and "called anyway 1 0" in lines
    assert "makes no call where none is due 0 of 1 0 % 1 of 1 100 %" in lines
