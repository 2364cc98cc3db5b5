"""The analyze command: compares the results of the base and the tuned model."""

from dataclasses import dataclass
from pathlib import Path

from calltune.errors import DataError, OptionError
from calltune.evaluation.compare import compare
from calltune.evaluation.results import (
    BASE_RESULTS,
    TUNED_RESULTS,
    Results,
    read_results,
)
from calltune.files import write_json

BASE_WRITERS = "`python src/inference.py` or `calltune infer`"
TUNED_WRITERS = "`python src/test_model.py` or `calltune test`"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeOptions:
    """Options of `calltune analyze`."""

    base_results: Path = Path("data/results", BASE_RESULTS)
    """Results of the base model."""

    finetuned_results: Path = Path("data/results", TUNED_RESULTS)
    """Results of the fine-tuned model, or the `test_model_results.json` that names them."""

    output: Path = Path("data/results/comparison.json")
    """Where the comparison is written, as JSON."""

    report: Path | None = None
    """The report, one HTML file; report.html beside --output unless given."""

    verbose: bool = False
    """Show the examples that tuning fixed or broke, and count why answers were not right."""

    def __post_init__(self) -> None:
        if self.base_results.resolve() == self.finetuned_results.resolve():
            raise OptionError(
                f"--base-results and --finetuned-results are both {self.base_results}; "
                "name two results files"
            )
        if self.output.resolve() == self.report_file.resolve():
            raise OptionError(
                f"The comparison and the report would both be {self.output}; name two files with "
                "--output and --report"
            )
        _refuse_to_overwrite(self, self.base_results, self.finetuned_results)

    @property
    def report_file(self) -> Path:
        """Where the report is written."""
        return self.report or self.output.parent / "report.html"


def run(options: AnalyzeOptions) -> Path:
    """Compare two results files, print the comparison and write it; the file written.

    Raises:
        DataError: a file is missing or broken, or the two come from different test sets.
    """
    from calltune.report.examples import print_changed
    from calltune.report.html import write_report
    from calltune.report.tables import print_comparison, print_details

    base = _read(options.base_results, BASE_WRITERS)
    tuned = _read(options.finetuned_results, TUNED_WRITERS)
    _refuse_to_overwrite(options, base.path, tuned.path)
    comparison = compare(base, tuned)
    write_json(options.output, comparison.to_json())
    write_report(options.report_file, comparison, base, tuned)
    if options.verbose:
        print_changed(comparison, base, tuned)
    print_comparison(comparison)
    if options.verbose:
        print_details(comparison)
    print(f"Report: {options.report_file}")
    return options.output


def _refuse_to_overwrite(options: AnalyzeOptions, *results: Path) -> None:
    taken = {path.resolve() for path in results}
    for name, path in (("--output", options.output), ("--report", options.report_file)):
        if path.resolve() in taken:
            raise OptionError(f"{name} {path} would overwrite results; name another file for it")


def _read(path: Path, writers: str) -> Results:
    if not path.is_file():
        raise DataError(f"No results in {path}; write them with {writers}, or check the path")
    return read_results(path)
