"""What tables and the report say, in plain words."""

from calltune.evaluation.compare import Comparison
from calltune.types import Json

SUMMARY_LABELS = {
    "success": "every call right",
    "ast": "by BFCL's rules",
    "function_names": "right functions",
    "parsed": "readable",
}
"""The rates of a summary in plain words, best first."""

TOOLS_LABELS = {
    "0": "no tools offered",
    "1": "1 tool offered",
    "2-3": "2-3 tools offered",
    "4+": "4+ tools offered",
}
CALLS_LABELS = {"0": "no call to make", "1": "1 call to make", "2+": "2+ calls to make"}
SEEN_LABELS = {"seen": "tools trained on", "unseen": "other tools"}
"""The names of a comparison's groups in plain words."""

DETAIL_LABELS = {
    "schema_valid": "keeps to the tools' schemas",
    "invented_function": "invents a function",
    "invented_argument": "invents an argument",
    "false_refusal": "makes no call where one is due",
    "abstained": "makes none where none is due",
    "malformed": "unreadable where none is due",
}
"""The further rates in plain words."""
F1_LABELS = {"function_f1": "functions, F1", "argument_f1": "arguments, F1"}
COST_LABELS = {"answer_tokens": "tokens an answer", "answer_seconds": "seconds an answer"}


def describe_difference(comparison: Comparison) -> str:
    """How large the difference may be, in a sentence."""
    value, low, high = (
        round(100 * share)
        for share in (
            comparison.difference.value,
            comparison.difference.low,
            comparison.difference.high,
        )
    )
    return f"Success changed by {value:+d} points (95 % of resamples: {low:+d} to {high:+d})."


def describe_cost(effort: dict[str, Json] | None) -> str:
    """What an answer costs, the mean and in brackets the median; a dash where it is not known."""
    if effort is None:
        return "-"
    return f"{_short(effort['mean'])} (median {_short(effort['median'])})"


def describe_significance(comparison: Comparison) -> str:
    """What McNemar's test says of the difference, in a sentence."""
    if not comparison.fixed and not comparison.broken:
        return "No example changed sides, so the two are equal here."
    p = comparison.p_value
    share = "less than 0.1 %" if p < 0.001 else f"{100 * p:.1f} %"
    test = f"(McNemar's exact test, p {'< 0.001' if p < 0.001 else f'= {p:.2g}'})"
    if p < 0.05:
        return (
            f"The difference is unlikely to be chance: two equally good models would part "
            f"this far in {share} of such tests {test}."
        )
    return (
        f"The difference may be chance: two equally good models would part this far in "
        f"{share} of such tests {test}. Test more examples to know."
    )


def _short(value: float) -> str:
    digits = 0 if value >= 10 else 1 if value >= 1 else 2
    return f"{value:,.{digits}f}"
