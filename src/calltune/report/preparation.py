"""The report of prep in the terminal: what it kept, dropped and noted, as in prep.json."""

from calltune.terminal_text import escape_line
from calltune.types import Json

MAX_NOTHING = 0.5
"""Training rows of which a larger share calls nothing teach a model not to call."""
MAX_LOST = 0.05
"""The share of the calling rows that may be dropped before the rest counts as another dataset."""
_VALUES_SHOWN = 2
"""How many of the values at fault are printed for each reason; prep.json has five."""


def print_preparation(report: dict[str, Json]) -> None:
    """Print the report of one preparation: splits, drops, notes, a table by format, warnings.

    Args:
        report: as in prep.json.
    """
    counts = report["counts"]
    splits = ", ".join(f"{name} {counts[name]}" for name in ("train", "valid", "test"))
    print(f"Kept {counts['kept']} examples of {counts['read']} rows: {splits}")
    if report["made"]:
        made = ", ".join(f"{count} {how}" for how, count in report["made"].items())
        print(f"  made from them: {made}")
    unseen = report["with_unseen_tools"]
    if any(unseen.values()):
        told = ", ".join(f"{name} {count}" for name, count in unseen.items())
        print(f"  rows with a tool not seen in training: {told}")
    print_labels(report)


def print_labels(report: dict[str, Json]) -> None:
    """Print what was dropped and noted, the table by format, and the warnings.

    Args:
        report: as in prep.json, or its parts `dropped`, `answers_break_schema`, `notes` and
            `by_format` alone.
    """
    print_drops(report)
    _print_counts(report["by_format"])


def print_drops(report: dict[str, Json]) -> None:
    """Print which rows prep dropped, for what reason and value, and what it noted.

    Args:
        report: as in prep.json; those of earlier versions have no values.
    """
    for reason, drop in report.get("dropped", {}).items():
        _print_faults(f"dropped {drop['count']}: {reason}", drop)
    broken = report.get("answers_break_schema", {"count": 0})
    if broken["count"]:
        _print_faults(f"kept {broken['count']} whose answer breaks its own schema", broken)
    for note, count in report.get("notes", {}).items():
        print(escape_line(f"  note, {'once' if count == 1 else f'{count} times'}: {note}"))


def warnings(by_format: dict[str, dict[str, int]]) -> list[str]:
    """What the counts by format say against training on these rows, one sentence each."""
    total = _total(by_format)
    found = []
    if total["kept"] and total["calling_nothing"] > MAX_NOTHING * total["kept"]:
        found.append(
            f"{total['calling_nothing']} of {total['kept']} examples call nothing; a model that is "
            "trained on them learns not to call"
        )
    n_calling = total["calling"] + total["dropped_calls"]
    if total["calling_nothing"] and total["dropped_calls"] > MAX_LOST * n_calling:
        found.append(
            f"rows dropped that call something: {total['dropped_calls']}, examples kept that call "
            f"nothing: {total['calling_nothing']}; mend the dropped rows, or a model that is "
            "trained on the rest learns not to call"
        )
    return found


def _print_faults(told: str, faults: dict[str, Json]) -> None:
    places = ", ".join(faults["first"]) + (", …" if faults["count"] > len(faults["first"]) else "")
    values = list(dict.fromkeys(value for value in faults.get("values", []) if value))
    shown = "; ".join(values[:_VALUES_SHOWN])
    print(escape_line(f"  {told} ({places}){': ' if shown else ''}{shown}"))


def _print_counts(by_format: dict[str, dict[str, int]]) -> None:
    rows = list(by_format.items())
    if len(rows) > 1:
        rows.append(("all", _total(by_format)))
    lines = [["format", "rows in", "kept", "calling", "calling nothing", "several calls"]]
    keys = ("rows", "kept", "calling", "calling_nothing", "several_calls")
    lines += [[name, *(str(counts[key]) for key in keys)] for name, counts in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *numbers in lines:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        print("  " + "  ".join([name.ljust(widths[0]), *cells]))
    for warning in warnings(by_format):
        print(f"Warning: {warning}")


def _total(by_format: dict[str, dict[str, int]]) -> dict[str, int]:
    keys = ("rows", "kept", "calling", "calling_nothing", "several_calls", "dropped_calls")
    return {key: sum(counts[key] for counts in by_format.values()) for key in keys}
