"""The gate command: fails where results are worse than a baseline's, for CI."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from calltune.errors import DataError, OptionError, WorseThanBaseline
from calltune.evaluation.compare import changes, mcnemar
from calltune.evaluation.metrics import SUMMARY_METRICS
from calltune.evaluation.results import read_results


@dataclass(frozen=True, slots=True)
class GateOptions:
    """Options of `calltune gate`."""

    results: Path
    """Results of the model in question."""

    baseline: Path = field(kw_only=True)
    """Results that they must not fall behind, of the same test set."""

    verdict: Literal["exact", "ast"] = field(default="exact", kw_only=True)
    """Which verdict counts: exact, or ast (BFCL's rules)."""

    level: float = field(default=0.05, kw_only=True)
    """How often a model that is just as good may be stopped: the level of McNemar's exact test."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not 0 < self.level < 1:
            raise OptionError(f"--level is {self.level}; it must lie between 0 and 1")


def run(options: GateOptions) -> Path:
    """Print how the results compare with the baseline; the results file.

    Raises:
        WorseThanBaseline: they are worse, and by more than chance would explain.
        DataError: a file is missing or broken, the two come from different test sets, or the
            results lack examples of the baseline.
    """
    baseline, results = read_results(options.baseline), read_results(options.results)
    metric = SUMMARY_METRICS["success" if options.verdict == "exact" else "ast"]
    found = changes(baseline, results, metric)
    if missing := len(baseline.records) - found.n_shared:
        raise DataError(
            f"{options.results} lacks {missing} of the baseline's {len(baseline.records)} "
            "examples; test the model on all of them"
        )
    n_fixed, n_broken = len(found.fixed), len(found.broken)
    p_value = mcnemar(n_fixed, n_broken)
    is_worse = n_broken > n_fixed and p_value < options.level
    counts = f"{n_broken:,} broken and {n_fixed:,} fixed of {found.n_shared:,} examples"
    chance = f"McNemar's exact test, p = {p_value:.2g}, level {options.level:g}"
    if is_worse:
        raise WorseThanBaseline(f"worse than {options.baseline}: {counts} ({chance})")
    if n_broken > n_fixed:
        verdict = "worse than the baseline, but not by more than chance"
    else:
        verdict = "better than the baseline" if n_fixed > n_broken else "level with the baseline"
    print(f"Passed: {verdict}: {counts} ({chance})")
    return options.results
