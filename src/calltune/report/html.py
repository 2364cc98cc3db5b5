"""The HTML report: base against tuned on one page, which needs no network and no other file."""

import base64
import os
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from calltune import __version__
from calltune.data.prepared import PreparedRow, read_prepared
from calltune.errors import DataError
from calltune.evaluation.compare import Comparison, Group
from calltune.evaluation.metrics import Rate
from calltune.evaluation.records import Record
from calltune.evaluation.results import Results
from calltune.files import atomic_write, dumps, file_digest, read_lines
from calltune.report import charts
from calltune.report.charts import BarChart, Bars, LineChart, curves
from calltune.report.examples import right_calls, wrongs
from calltune.report.labels import (
    CALLS_LABELS,
    COST_LABELS,
    DETAIL_LABELS,
    F1_LABELS,
    REASON_LABELS,
    SEEN_LABELS,
    SUMMARY_LABELS,
    TOOLS_LABELS,
    describe_cost,
    describe_significance,
)
from calltune.report.terminal import MAX_NAME_LENGTH, MAX_PATH_LENGTH
from calltune.terminal_text import escape_for_terminal, escape_line
from calltune.types import Json

LENGTHS = (20_000, 5_000, 2_400, 1_200, 800, 600, 450, 350, 250, 180, 120)
"""What texts may be truncated to, in characters."""


MAX_BYTES = 4_750_000
"""Of the packed examples and prompts, which keeps the whole page below 5 MB."""
MAX_BYTES_OF_EXAMPLES = 2_300_000
"""Prompts may take what these leave."""


def write_report(path: Path, comparison: Comparison, base: Results, tuned: Results) -> None:
    """Write the report to `path`, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as file:
        file.write(page(comparison, base, tuned).encode())


def page(comparison: Comparison, base: Results, tuned: Results) -> str:
    """The report as HTML. What models and datasets wrote is in it as text, never as markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calltune.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = lambda share: f"{round(100 * share)} %"
    environment.filters["visible"] = lambda text: escape_line(text, MAX_PATH_LENGTH)
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.2f}"
    # A narrow screen may break the line before the bracket only.
    environment.filters["cost"] = lambda cost: describe_cost(cost).replace(
        "(median ", "(median\N{NO-BREAK SPACE}"
    )
    listed = list(_examples(comparison, base, tuned))
    examples = packed(listed, MAX_BYTES_OF_EXAMPLES)
    prompts = prompts_of(tuned, [example["id"] for example in listed])
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        headline=_headline(comparison),
        chance=describe_significance(comparison),
        sides=(("base", "Base", comparison.base), ("tuned", "Tuned", comparison.tuned)),
        summary_labels=SUMMARY_LABELS,
        detail_labels=DETAIL_LABELS,
        f1_labels=F1_LABELS,
        cost_labels=COST_LABELS,
        bar_charts=list(_bar_charts(comparison)),
        curves=_training_curves(tuned.adapter),
        chart=charts,
        kinds=_kinds(comparison),
        examples=examples,
        prompts=prompts and packed(prompts, MAX_BYTES - len(examples.base64)),
        version=__version__,
    )


class Packed(NamedTuple):
    """Data for the page's script: JSON, compressed, as base64."""

    base64: str
    """Of the JSON, compressed with zlib."""
    cut_after: int | None
    """The characters that longer texts were truncated to; None where every text is whole."""


def packed(data: Json, max_bytes: int) -> Packed:
    """`data` for the page, long texts truncated with a mark until it takes at most `max_bytes`.

    Control characters are escaped. No text is truncated below the least of `LENGTHS`, even where
    the data do not fit then.
    """

    def text(place: int) -> str:
        return _deflated(_cut(data, LENGTHS[place]))

    # The first length that fits; past the last but one, the last.
    place = bisect_left(
        range(len(LENGTHS) - 1), True, key=lambda place: len(text(place)) <= max_bytes
    )
    characters = LENGTHS[place]
    return Packed(text(place), characters if characters < _longest(data) else None)


def _longest(data: Json) -> int:
    if isinstance(data, str):
        return len(data)
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return max(map(_longest, parts), default=0)


def _cut(data: Json, characters: int) -> Json:
    if isinstance(data, str):
        return escape_for_terminal(data, characters)
    if isinstance(data, list):
        return [_cut(part, characters) for part in data]
    return (
        {key: _cut(part, characters) for key, part in data.items()}
        if isinstance(data, dict)
        else data
    )


def _deflated(data: Json) -> str:
    return base64.b64encode(zlib.compress(dumps(data).encode())).decode()


def prompts_of(results: Results, ids: Sequence[str]) -> dict[str, Json] | None:
    """The prompts of these examples, read from the test set.

    Returns:
        "pieces", the different texts that prompts are made of, so that what prompts share is kept
        once; and "rows", for each id the indices of its prompt's pieces, every second of which is
        a tool. None where the test set is not at its original path with its original SHA-256.
    """
    rows = _test_rows(results)
    if rows is None or not rows.keys() >= set(ids):
        return None
    places: dict[str, int] = {}
    made_of = [[places.setdefault(piece, len(places)) for piece in _pieces(rows[id])] for id in ids]
    return {"pieces": list(places), "rows": made_of}


def _test_rows(results: Results) -> dict[str, PreparedRow] | None:
    path = Path(results.test_path)
    try:
        if not os.path.isfile(path) or file_digest(path) != results.test_digest:
            return None
    except OSError:
        return None
    return {row.id: row for row in read_prepared(path)}


def _pieces(row: PreparedRow) -> Iterator[str]:
    """The text before the first tool, the tool, the text before the next tool, and so on.

    Every prompt format shows a tool as its dataset wrote it; one that did not would have one piece.
    """
    rest = row.prompt
    for tool in row.tools:
        before, shown, after = rest.partition(dumps(tool))
        if shown:
            yield before
            yield shown
            rest = after
    yield rest


def _headline(comparison: Comparison) -> str:
    if comparison.p_value >= 0.05:
        return "No difference beyond chance."
    return "Tuning helped." if comparison.difference.value > 0 else "Tuning made it worse."


def _bar_charts(comparison: Comparison) -> Iterator[BarChart]:
    breakdown = [
        _bars_of(group, labels.get(group.name, group.name))
        for groups, labels in (
            (comparison.by_tools, TOOLS_LABELS),
            (comparison.by_calls, CALLS_LABELS),
            (comparison.by_seen, SEEN_LABELS),
            (comparison.by_source, {}),
        )
        if len(groups) > 1
        for group in groups
    ]
    if breakdown:
        yield BarChart("Exact match, by kind of example", breakdown, "%")
    if comparison.reasons:
        reasons = [
            Bars(REASON_LABELS.get(pair.name, pair.name), pair.base, pair.tuned)
            for pair in comparison.reasons
        ]
        yield BarChart("Why answers were wrong", reasons, "examples")


def _bars_of(group: Group, name: str) -> Bars:
    def ends(rate: Rate) -> tuple[float, float]:
        return 100 * rate.low, 100 * rate.high

    base, tuned = group.base.success, group.tuned.success
    label = f"{escape_line(name, MAX_NAME_LENGTH)} ({base.of:,})"
    return Bars(label, 100 * base.rate, 100 * tuned.rate, ends(base), ends(tuned))


def _training_curves(adapter: str | None) -> LineChart | None:
    """The curves of the run that made the adapter, where its folder still has them."""
    file = Path(adapter or "") / "metrics.jsonl"
    if adapter is None or not os.path.isfile(file):
        return None
    try:
        return curves("How the training went", (line.row for line in read_lines(file)))
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not what calltune train writes ({error}); repair it or move it away"
        ) from None


def _kinds(comparison: Comparison) -> tuple[tuple[str, str, int], ...]:
    """The kinds of examples: a key, a label and how many there are."""
    return (
        ("all", "all", comparison.base.summary.examples),
        ("fixed", "fixed", len(comparison.fixed)),
        ("broken", "broken", len(comparison.broken)),
        ("wrong", "still wrong", comparison.n_both_wrong),
        ("right", "right both times", comparison.n_both_right),
    )


def _examples(comparison: Comparison, base: Results, tuned: Results) -> Iterator[dict[str, Any]]:
    before, after = base.records, tuned.records
    changed = dict.fromkeys(comparison.fixed, "fixed") | dict.fromkeys(comparison.broken, "broken")
    for id in (id for id in before if id in after):
        record = before[id]
        usual = "right" if record.judgement.is_exact else "wrong"
        yield {
            "id": id,
            "kind": changed.get(id, usual),
            "query": record.query,
            "right": right_calls(record),
            "base": _written(record),
            "tuned": _written(after[id]),
        }


def _written(record: Record) -> dict[str, str]:
    found = record.judgement
    reason = found.reason or "right"
    return {
        "text": record.text,
        "reason": escape_line(REASON_LABELS.get(reason, reason), MAX_NAME_LENGTH),
        "wrong": "" if found.is_exact else wrongs(record),
    }
