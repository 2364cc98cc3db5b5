"""The result files, read and judged by BFCL's own `evaluate`."""

import csv
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from calltune.data.readers.recognise import parse
from calltune.data.sources import bfcl
from calltune.downloads import fetch
from calltune.evaluation.bfcl import (
    MODEL,
    Section,
    bfcl_sections,
    category_of,
    result,
    sections,
    write_bfcl_results,
)
from calltune.evaluation.judge import judge
from calltune.evaluation.records import Record
from calltune.formats import FORMATS
from calltune.types import Example, Json, ParsedOutput, ToolCall

from support import bfcl_evaluate, verdicts
from support.bfcl_checker import Call, gold

PER_CATEGORY = 12
UNREADABLE = "[calls: none that can be read"


def record(example: Example, parsed: ParsedOutput, text: str = "") -> Record:
    tools = {tool.name: tool for tool in example.tools}
    return Record(
        id=example.id,
        source=example.source,
        query=example.query,
        n_tools=len(tools),
        expected=example.answers,
        text=text,
        parsed=parsed,
        judgement=judge(parsed, example.answers, tools),
    )


def answers(row: dict[str, Json], example: Example, number: int) -> ParsedOutput:
    """Right for two rows of six, else wrong in one of four ways."""
    rng = random.Random(row["id"])
    golden: list[Call] = gold(row.get("ground_truth", []), rng)
    calls = [ToolCall(*pair) for call in golden for pair in call.items()]
    if number % 6 == 0:
        return ParsedOutput((), "no call can be read")
    if number % 6 == 1:
        return ParsedOutput((ToolCall(example.tools[0].name, {"no_such": [1, None]}),))
    if number % 6 == 2:
        return ParsedOutput(tuple(calls[1:]))
    if number % 6 == 3 and calls:
        return ParsedOutput((*calls[:-1], ToolCall(f"{calls[-1].name}_2", calls[-1].arguments)))
    return ParsedOutput(tuple(calls))


def answered() -> Iterator[Record]:
    for category in (*bfcl.CATEGORIES, *bfcl.WITHOUT_CALLS):
        for number, row in enumerate(bfcl.rows(category, PER_CATEGORY)):
            (example,) = parse(row, "row").examples
            yield record(example, answers(row, example, number), UNREADABLE)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(answered())


@pytest.fixture(scope="module")
def scores(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that BFCL wrote its scores to."""
    folder = tmp_path_factory.mktemp("bfcl")
    with zipfile.ZipFile(fetch("bfcl-eval")) as wheel:
        wheel.extractall(folder / "wheel")
    write_bfcl_results(folder / "result", records)
    ended = subprocess.run(
        [sys.executable, bfcl_evaluate.__file__, *("wheel", "result", "score")],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return folder / "score"


def cells(scores: Path, name: str) -> dict[str, str]:
    (row,) = csv.DictReader((scores / f"data_{name}.csv").read_text().splitlines())
    return row


def totals(found: Sequence[Section]) -> dict[str, Any]:
    return {section.name: section.total for section in found}


@pytest.mark.real
@pytest.mark.slow
def test_bfcl_reads_every_answer_and_its_verdicts_are_ours(
    scores: Path, records: list[Record]
) -> None:
    categories = [name for section in sections(records) for name in section.categories]
    assert len(categories) == 10
    for category in categories:
        (file,) = scores.rglob(f"BFCL_v4_{category}_score.json")
        head, *wrong = [json.loads(line) for line in file.read_text().splitlines()]
        mine = {r.id: r.judgement for r in records if category_of(r) == category}
        assert head["total_count"] == len(mine) == PER_CATEGORY
        if category in bfcl.WITHOUT_CALLS:
            # Two unreadable answers are no calls there, and no abstaining here.
            found = [found.abstention for found in mine.values()]
            assert found.count("malformed") == found.count("called anyway") == 2
            assert [v["id"] for v in wrong] == [
                i for i, v in mine.items() if v.abstention == "called anyway"
            ]
        else:
            assert {v["id"] for v in wrong} == {i for i, v in mine.items() if not v.is_ast}
            assert 0 < head["correct_count"] < PER_CATEGORY


@pytest.mark.real
@pytest.mark.slow
def test_bfcl_adds_up_to_the_same_accuracies(scores: Path, records: list[Record]) -> None:
    there = totals(bfcl_sections(records))
    overall, non_live = cells(scores, "overall"), cells(scores, "non_live")
    assert overall["Live Acc"] == f"{100 * there['Live AST'].rate:.2f}%"
    irrelevance = there["Irrelevance Detection"].rate
    assert overall["Irrelevance Detection"] == f"{100 * irrelevance:.2f}%"
    assert totals(sections(records))["Irrelevance Detection"].rate < irrelevance
    # Java and JavaScript were not run: BFCL shows no summary, and counts them as nothing right.
    assert non_live["AST Summary"] == "N/A"
    simple = sections(records)[0].categories["simple_python"].rate
    expected = there["Non-Live AST"].rate - (simple - simple / 3) / 4
    assert non_live["Non-Live Overall Acc"] == f"{100 * expected:.2f}%"


def test_files_lie_where_bfcl_looks_and_none_is_left_from_before(tmp_path: Path) -> None:
    def answer(category: str) -> Record:
        return verdicts.record(False, id=f"{category}_0", source=f"bfcl/{category}")

    first = write_bfcl_results(tmp_path, [answer("parallel"), answer("live_simple")])
    assert first.name == MODEL.replace("/", "_")
    (first / "non_live" / "mine.json").write_text("kept")
    assert write_bfcl_results(tmp_path, [answer("live_simple")]) == first
    files = sorted(str(path.relative_to(first)) for path in first.rglob("*.json"))
    assert files == ["live/BFCL_v4_live_simple_result.json", "non_live/mine.json"]


def test_calls_are_written_as_bfcls_checker_takes_them_and_the_unreadable_as_text() -> None:
    prompt_format = FORMATS["chatml"]
    calls = (ToolCall("f", {"x": [{"y": None}]}), ToolCall("f", {}))
    found = verdicts.record(
        True, parsed=ParsedOutput(calls), text=prompt_format.render_calls(calls)
    )
    assert result(found) == [{"f": {"x": [{"y": None}]}}, {"f": {}}]
    assert result(verdicts.record(True, parsed=ParsedOutput(()), text="[]")) == []
    broken = verdicts.record(False, parsed=ParsedOutput((), "no"), text="I would call f")
    assert result(broken) == "I would call f"
