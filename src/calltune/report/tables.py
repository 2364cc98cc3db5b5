"""Results as tables in the terminal; plain text when the output is not a terminal."""

from typing import TYPE_CHECKING

from calltune.evaluation.compare import Comparison, ModelResults
from calltune.report.labels import (
    CALLS_LABELS,
    COST_LABELS,
    DETAIL_LABELS,
    F1_LABELS,
    SEEN_LABELS,
    SUMMARY_LABELS,
    TOOLS_LABELS,
    describe_cost,
    describe_difference,
    describe_significance,
)
from calltune.report.terminal import (
    MAX_NAME_LENGTH,
    MAX_PATH_LENGTH,
    interval,
    model_name,
    open_console,
    percent,
    plain_table,
    print_table,
)
from calltune.terminal_text import escape_line
from calltune.types import Json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NOTES_SHOWN = 5


def print_summary(document: dict[str, Json]) -> None:
    """One model's results: counts, rates with their 95 % intervals, and the speed."""
    from rich.text import Text

    console = open_console()
    summary = document["summary"]
    console.print()
    console.print(Text(f"{summary['examples']:,} examples", "bold"))
    console.print(Text(model_name(document["model"], document["adapter"])), soft_wrap=True)
    table = plain_table("", "count", "rate", "95 % interval")
    for key, name in SUMMARY_LABELS.items():
        rate = summary[key]
        table.add_row(name, _count(rate), percent(rate["rate"]), interval(rate))
    print_table(console, table)
    for line in (*_of_several(document), *_not_held(document), _speed(summary)):
        console.print(Text(line), soft_wrap=True)
    console.print()


def print_comparison(comparison: Comparison) -> None:
    """Base and tuned side by side: all examples, then by kind, then what changed sides."""
    from rich.text import Text

    console = open_console()
    base, tuned = comparison.base, comparison.tuned
    n = base.summary["examples"]
    console.print()
    console.print(Text(f"Base against tuned on the same {n:,} examples", "bold"))
    _print_sides(console, base, tuned)
    table = plain_table("", "base", "tuned", "change")
    for key, name in SUMMARY_LABELS.items():
        _add_change(table, name, base.summary[key], tuned.summary[key])
    _add_groups(table, comparison)
    print_table(console, table)
    console.print(
        Text.assemble(
            "Tuning fixed ",
            (f"{len(comparison.fixed):,}", "bold green"),
            " and broke ",
            (f"{len(comparison.broken):,}", "bold red" if comparison.broken else "bold"),
            f"; {comparison.n_both_right:,} were right both times, "
            f"{comparison.n_both_wrong:,} wrong both times.",
        )
    )
    console.print(Text(f"{describe_difference(comparison)} {describe_significance(comparison)}"))
    console.print()


def print_details(comparison: Comparison) -> None:
    """What else base and tuned do: further rates, scores, costs, sources, why answers failed."""
    console = open_console()
    base, tuned = comparison.base.details, comparison.tuned.details
    table = plain_table("", "base", "tuned")
    for key, name in DETAIL_LABELS.items():
        if base[key]["of"]:
            table.add_row(name, _count_and_percent(base[key]), _count_and_percent(tuned[key]))
    for key, name in F1_LABELS.items():
        table.add_row(name, _score(base[key]), _score(tuned[key]))
    for key, name in COST_LABELS.items():
        if base[key] or tuned[key]:
            table.add_row(name, describe_cost(base[key]), describe_cost(tuned[key]))
    print_table(console, table)
    if len(comparison.by_source) > 1:
        table = plain_table(SUMMARY_LABELS["success"], "base", "tuned", "change")
        for group in comparison.by_source:
            name = escape_line(group.name, MAX_NAME_LENGTH)
            _add_change(table, name, group.base["success"], group.tuned["success"])
        print_table(console, table)
    _print_reasons(console, comparison)


def _print_reasons(console: "Console", comparison: Comparison) -> None:
    for heading, pairs in (
        ("not right, because", comparison.reasons),
        ("no call to make", comparison.abstentions),
    ):
        if not pairs:
            continue
        table = plain_table(heading, "base", "tuned")
        for pair in pairs:
            table.add_row(pair.name, f"{pair.base:,}", f"{pair.tuned:,}")
        print_table(console, table)


def _print_sides(console: "Console", base: ModelResults, tuned: ModelResults) -> None:
    from rich.text import Text

    for label, side in (("base ", base), ("tuned", tuned)):
        name = model_name(side.model, side.adapter)
        console.print(Text(f"{label}  {name}"), soft_wrap=True)
    if base.format != tuned.format:
        names = escape_line(f"{base.format}, {tuned.format}", MAX_PATH_LENGTH)
        console.print(Text(f"The prompt formats differ: {names}.", "yellow"))
    for label, side in (("base", base), ("tuned", tuned)):
        if side.n_left_out:
            is_are = "example is" if side.n_left_out == 1 else "examples are"
            console.print(
                Text(f"{side.n_left_out:,} {is_are} in the {label} results only: left out.")
            )


def _add_groups(table: "Table", comparison: Comparison) -> None:
    for groups, names in (
        (comparison.by_tools, TOOLS_LABELS),
        (comparison.by_calls, CALLS_LABELS),
        (comparison.by_seen, SEEN_LABELS),
    ):
        if len(groups) < 2:
            continue
        table.add_section()
        table.add_row(SUMMARY_LABELS["success"])
        for group in groups:
            name = f"  {names[group.name]}"
            _add_change(table, name, group.base["success"], group.tuned["success"])


def _add_change(table: "Table", name: str, base: dict[str, Json], tuned: dict[str, Json]) -> None:
    from rich.text import Text

    # As text: in a plain string, brackets would be taken for styles.
    cells = (_count_and_percent(base), _count_and_percent(tuned), _change(base, tuned))
    table.add_row(Text(name), *cells)


def _change(base: dict[str, Json], tuned: dict[str, Json]) -> "Text":
    from rich.text import Text

    points = round(100 * tuned["rate"]) - round(100 * base["rate"])
    if tuned["count"] == base["count"]:
        return Text("same", "dim")
    return Text(f"{points:+d} points", "bold green" if tuned["count"] > base["count"] else "red")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _count(rate: dict[str, Json]) -> str:
    return f"{rate['count']:,} of {rate['of']:,}"


def _count_and_percent(rate: dict[str, Json]) -> str:
    return f"{_count(rate)} {percent(rate['rate']):>5}"


def _of_several(document: dict[str, Json]) -> list[str]:
    """How likely one of several answers is right; the rates above are of the first answers."""
    if "pass_at" not in document:
        return []
    shares = document["pass_at"]
    some = [k for k in shares if int(k) & (int(k) - 1) == 0 or k == list(shares)[-1]]
    return ["Every call right in " + ", ".join(f"pass@{k} {percent(shares[k])}" for k in some)]


def _not_held(document: dict[str, Json]) -> list[str]:
    """What of the tools' schemas the answers were not held to."""
    notes = document.get("not_held", {})
    lines = [f"Not held to in {count:,} answers: {note}" for note, count in notes.items()]
    more = len(lines) - NOTES_SHOWN
    return [
        *(escape_line(line, MAX_PATH_LENGTH) for line in lines[:NOTES_SHOWN]),
        *([f"and {more:,} more, in the results file"] if more > 0 else []),
    ]


def _speed(summary: dict[str, Json]) -> str:
    seconds, tokens = summary["seconds"], summary["generated_tokens"]
    if taken_over := summary.get("taken_over", 0):
        # The seconds are those of this run, the tokens those of every example.
        return f"{taken_over:,} of the answers were there from an earlier run."
    per_second = f", {tokens / seconds:,.0f} a second" if seconds > 0 else ""
    return (
        f"{tokens:,} tokens written in {seconds:,.1f} s{per_second}, "
        f"after {summary['prompt_tokens']:,} prompt tokens."
    )
