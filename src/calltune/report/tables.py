"""Tables of results in the terminal; plain text where the output is not a terminal."""

from typing import TYPE_CHECKING

from calltune.evaluation.compare import Comparison, ModelResults
from calltune.evaluation.metrics import Rate
from calltune.evaluation.run import Evaluation
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

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NOTES_SHOWN = 5


def print_summary(found: Evaluation) -> None:
    """Print one model's results: counts, rates with their 95 % intervals, and the speed."""
    from rich.text import Text

    console = open_console()
    adapter = None if found.run.adapter is None else str(found.run.adapter)
    console.print()
    console.print(Text(f"{found.summary.examples:,} examples", "bold"))
    console.print(Text(model_name(found.run.model, adapter)), soft_wrap=True)
    table = plain_table("", "count", "rate", "95 % interval")
    for key, name in SUMMARY_LABELS.items():
        rate: Rate = getattr(found.summary, key)
        table.add_row(name, _count(rate), percent(rate.rate), interval(rate))
    print_table(console, table)
    for line in (*_pass_at(found), *_unenforced(found), _speed(found)):
        console.print(Text(line), soft_wrap=True)
    console.print()


def print_comparison(comparison: Comparison) -> None:
    """Print base and tuned side by side: all examples, then by kind, then what changed."""
    from rich.text import Text

    console = open_console()
    base, tuned = comparison.base, comparison.tuned
    n = base.summary.examples
    console.print()
    console.print(Text(f"Base against tuned on the same {n:,} examples", "bold"))
    _print_sides(console, base, tuned)
    table = plain_table("", "base", "tuned", "change")
    for key, name in SUMMARY_LABELS.items():
        _add_change(table, name, getattr(base.summary, key), getattr(tuned.summary, key))
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
    """Print further rates, F1 scores, costs, rates by source, and why answers failed."""
    console = open_console()
    base, tuned = comparison.base.details, comparison.tuned.details
    table = plain_table("", "base", "tuned")
    for key, name in DETAIL_LABELS.items():
        before, after = getattr(base, key), getattr(tuned, key)
        if before.of:
            table.add_row(name, _count_and_percent(before), _count_and_percent(after))
    for key, name in F1_LABELS.items():
        table.add_row(name, _score(getattr(base, key)), _score(getattr(tuned, key)))
    for key, name in COST_LABELS.items():
        costs = getattr(base, key), getattr(tuned, key)
        if any(costs):
            table.add_row(name, *map(describe_cost, costs))
    print_table(console, table)
    if len(comparison.by_source) > 1:
        table = plain_table(SUMMARY_LABELS["success"], "base", "tuned", "change")
        for group in comparison.by_source:
            name = escape_line(group.name, MAX_NAME_LENGTH)
            _add_change(table, name, group.base.success, group.tuned.success)
        print_table(console, table)
    _print_reasons(console, comparison)


def _print_reasons(console: "Console", comparison: Comparison) -> None:
    for heading, pairs in (
        ("reason for failure", comparison.reasons),
        ("no call to make", comparison.abstentions),
    ):
        if not pairs:
            continue
        table = plain_table(heading, "base", "tuned")
        for pair in pairs:
            table.add_row(
                REASON_LABELS.get(pair.name, pair.name), f"{pair.base:,}", f"{pair.tuned:,}"
            )
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
            _add_change(table, name, group.base.success, group.tuned.success)


def _add_change(table: "Table", name: str, base: Rate, tuned: Rate) -> None:
    from rich.text import Text

    # As text: in a plain string, brackets would be taken for styles.
    cells = (_count_and_percent(base), _count_and_percent(tuned), _change(base, tuned))
    table.add_row(Text(name), *cells)


def _change(base: Rate, tuned: Rate) -> "Text":
    from rich.text import Text

    points = round(100 * tuned.rate) - round(100 * base.rate)
    if tuned.count == base.count:
        return Text("same", "dim")
    return Text(f"{points:+d} points", "bold green" if tuned.count > base.count else "red")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _count(rate: Rate) -> str:
    return f"{rate.count:,} of {rate.of:,}"


def _count_and_percent(rate: Rate) -> str:
    return f"{_count(rate)} {percent(rate.rate):>5}"


def _pass_at(found: Evaluation) -> list[str]:
    """pass@k of several answers to each example; the rates above are of the first answers."""
    shares = found.pass_at
    if shares is None:
        return []
    some = [k for k in shares if int(k) & (int(k) - 1) == 0 or k == list(shares)[-1]]
    return ["Exact match: " + ", ".join(f"pass@{k} {percent(shares[k])}" for k in some)]


def _unenforced(found: Evaluation) -> list[str]:
    """What of the tools' schemas constrained decoding could not enforce, one line a kind."""
    kinds: dict[str, list[str]] = {}
    for note in found.unenforced or {}:
        kinds.setdefault(note.partition(": ")[2] or note, []).append(note)
    lines = []
    for kind, notes in kinds.items():
        alike = set(notes)
        count = sum(not alike.isdisjoint(record.unenforced or ()) for record in found.records)
        such_as = notes[0].partition(": ")[0]
        told = f"{kind}, of {len(notes):,} tools, such as {such_as}" if notes[1:] else notes[0]
        lines.append(f"Not enforced in {count:,} answers: {told}")
    more = len(lines) - NOTES_SHOWN
    return [
        *(escape_line(line, MAX_PATH_LENGTH) for line in lines[:NOTES_SHOWN]),
        *([f"and {more:,} more, in the results file"] if more > 0 else []),
    ]


def _speed(found: Evaluation) -> str:
    seconds, tokens = found.seconds, found.generated_tokens
    if found.n_taken_over:
        # The seconds are those of this run, the tokens those of every example.
        return f"{found.n_taken_over:,} of the answers are from an earlier run."
    per_second = f" ({tokens / seconds:,.0f} tokens/s)" if seconds > 0 else ""
    return (
        f"{tokens:,} tokens generated in {seconds:,.1f} s{per_second}, "
        f"after {found.prompt_tokens:,} prompt tokens."
    )
