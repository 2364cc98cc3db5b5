"""Labels and sentences of tables and the report, in plain words."""

from calltune.evaluation.compare import Comparison
from calltune.evaluation.metrics import Cost

SUMMARY_LABELS = {
    "success": "exact match",
    "ast": "AST match (BFCL)",
    "function_names": "correct functions",
    "parsed": "parses",
}
"""The rates of `metrics.Summary`, the strictest first."""

TOOLS_LABELS = {
    "0": "no tools offered",
    "1": "1 tool offered",
    "2-3": "2-3 tools offered",
    "4+": "4+ tools offered",
}
CALLS_LABELS = {"0": "no call to make", "1": "1 call to make", "2+": "2+ calls to make"}
SEEN_LABELS = {"seen": "seen tools", "unseen": "unseen tools"}
"""The groups of a `compare.Comparison`."""

DETAIL_LABELS = {
    "schema_valid": "satisfies the tools' schemas",
    "invented_function": "invents a function",
    "invented_argument": "invents an argument",
    "false_refusal": "makes no call where one is due",
    "abstained": "makes no call where none is due",
    "malformed": "does not parse where none is due",
}
"""The rates of `metrics.Details`."""
REASON_LABELS = {"not readable": "does not parse"}
"""The `failure_reasons.REASONS` whose name in results files is not what tables say."""
F1_LABELS = {"function_f1": "functions, F1", "argument_f1": "arguments, F1"}
COST_LABELS = {"answer_tokens": "tokens per answer", "answer_seconds": "seconds per answer"}


def describe_difference(comparison: Comparison) -> str:
    """How large the difference of the two exact match rates is, in one sentence."""
    found = comparison.difference
    value, low, high = (round(100 * share) for share in (found.value, found.low, found.high))
    return f"Exact match changed by {value:+d} points (95 % interval: {low:+d} to {high:+d})."


def describe_significance(comparison: Comparison) -> str:
    """What McNemar's test says about the difference, in one or two sentences."""
    if not comparison.fixed and not comparison.broken:
        return "Both models are right on the same examples, so they are equal here."
    p = comparison.p_value
    share = "less than 0.1 %" if p < 0.001 else f"{100 * p:.1f} %"
    test = f"(McNemar's exact test, p {'< 0.001' if p < 0.001 else f'= {p:.2g}'})"
    if p < 0.05:
        return (
            "The difference is unlikely to be chance: two equally good models would differ "
            f"this much in {share} of such tests {test}."
        )
    return (
        f"The difference may be chance: two equally good models would differ this much in "
        f"{share} of such tests {test}. Test more examples to know."
    )


def describe_cost(cost: Cost | None) -> str:
    """What an answer costs: the mean, and in brackets the median; a dash where it is unknown."""
    if cost is None:
        return "-"
    return f"{_short(cost.mean)} (median {_short(cost.median)})"


def _short(value: float) -> str:
    digits = 0 if value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}"
