"""report.html: base against tuned on one page, which needs no network and nothing beside it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calltune import __version__
from calltune.calls import Json
from calltune.errors import DataError
from calltune.jsonl import read_lines, replacing
from calltune.pages.charts import Bars, bars, curves
from calltune.pages.examples import right_calls, wrongs
from calltune.pages.packed import packed
from calltune.pages.prompts import prompts_of
from calltune.pages.terminal import LETTERS_OF_A_NAME, LETTERS_OF_A_PATH
from calltune.pages.words import (
    CALLS_NAMES,
    CLAIM_NAMES,
    DETAIL_NAMES,
    EFFORT_NAMES,
    F1_NAMES,
    SEEN_NAMES,
    TOOLS_NAMES,
    chance_in_words,
    effort_in_words,
)
from calltune.score.compare import Comparison
from calltune.score.metrics import Record
from calltune.score.results import Results, reading_of
from calltune.score.strata import Group
from calltune.visible import in_one_line

MOST_BYTES = 4_750_000
"""Of the packed examples and prompts; what is around them leaves the page below 5 MB."""
MOST_BYTES_OF_EXAMPLES = 2_300_000
"""Prompts may have what these leave."""


def write_report(path: Path, comparison: Comparison, base: Results, tuned: Results) -> None:
    """Write the page, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(page(comparison, base, tuned).encode())


def page(comparison: Comparison, base: Results, tuned: Results) -> str:
    """The page as HTML. What models and datasets wrote stands in it as text, never as markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calltune.pages", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["percent"] = lambda share: f"{round(100 * share)} %"
    environment.filters["visible"] = lambda text: in_one_line(text, LETTERS_OF_A_PATH)
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.2f}"
    # A narrow screen may break the line before the bracket only.
    environment.filters["effort"] = lambda effort: effort_in_words(effort).replace(
        "(median ", "(median\N{NO-BREAK SPACE}"
    )
    listed = list(_examples(comparison, base, tuned))
    examples = packed(listed, MOST_BYTES_OF_EXAMPLES)
    prompts = prompts_of(tuned, [example["id"] for example in listed])
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        headline=_headline(comparison),
        chance=chance_in_words(comparison),
        sides=(("base", "Base", comparison.base), ("tuned", "Tuned", comparison.tuned)),
        claims=CLAIM_NAMES,
        details=DETAIL_NAMES,
        scores=F1_NAMES,
        efforts=EFFORT_NAMES,
        charts=list(_charts(comparison, tuned)),
        kinds=_kinds(comparison),
        examples=examples,
        prompts=prompts and packed(prompts, MOST_BYTES - len(examples.base64)),
        version=__version__,
    )


def _headline(comparison: Comparison) -> str:
    if comparison.p_value >= 0.05:
        return "No difference that chance would not explain."
    return "Tuning helped." if comparison.difference.value > 0 else "Tuning did harm."


def _charts(comparison: Comparison, tuned: Results) -> Iterator[dict[str, Any]]:
    strata = [
        _bars_of(group, names.get(group.name, group.name))
        for groups, names in (
            (comparison.by_tools, TOOLS_NAMES),
            (comparison.by_calls, CALLS_NAMES),
            (comparison.by_seen, SEEN_NAMES),
            (comparison.by_source, {}),
        )
        if len(groups) > 1
        for group in groups
    ]
    if strata:
        yield _chart("Every call right, by kind of example", bars("By kind", strata, "%"))
    if comparison.reasons:
        reasons = [Bars(tally.name, tally.base, tally.tuned) for tally in comparison.reasons]
        yield _chart("Why answers were not right", bars("Why not", reasons, "examples"))
    if (drawn := _training_curves(tuned.document["adapter"])) is not None:
        yield _chart("How the training went", drawn, has_legend=False)


def _chart(title: str, svg: str, has_legend: bool = True) -> dict[str, Any]:
    return {"title": title, "svg": svg, "has_legend": has_legend}


def _bars_of(group: Group, name: str) -> Bars:
    def ends(rate: dict[str, Json]) -> tuple[float, float]:
        return 100 * rate["low"], 100 * rate["high"]

    base, tuned = group.base["success"], group.tuned["success"]
    shares = (100 * base["rate"], 100 * tuned["rate"])
    return Bars(
        f"{in_one_line(name, LETTERS_OF_A_NAME)} ({base['of']:,})", *shares, ends(base), ends(tuned)
    )


def _training_curves(adapter: str | None) -> str | None:
    """The curves of the run that made the adapter, where its folder still has them."""
    file = Path(adapter or "") / "metrics.jsonl"
    if adapter is None or not os.path.isfile(file):
        return None
    try:
        return curves(line.row for line in read_lines(file))
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not what train writes ({error}); mend it or move it away"
        ) from None


def _kinds(comparison: Comparison) -> tuple[tuple[str, str, int], ...]:
    """The kinds of examples: a key, a name and how many there are."""
    return (
        ("all", "all", comparison.base.summary["examples"]),
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
        usual = "right" if record["verdict"]["is_exact"] else "wrong"
        yield {
            "id": id,
            "kind": changed.get(id, usual),
            "query": record["query"],
            "right": right_calls(record),
            "base": _written(record),
            "tuned": _written(after[id]),
        }


def _written(record: Record) -> dict[str, str]:
    is_exact = record["verdict"]["is_exact"]
    return {
        "text": record["text"],
        "reason": in_one_line(record["verdict"]["reason"] or "right", LETTERS_OF_A_NAME),
        "wrong": "" if is_exact else wrongs(reading_of(record), record),
    }
