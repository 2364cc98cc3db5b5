"""Whether an export still answers as the tuned model did, on the same test rows."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from calltune.evaluation.compare import compare
from calltune.evaluation.metrics import Rate
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.records import Record
from calltune.evaluation.results import TUNED_RESULTS, read_results
from calltune.evaluation.run import EvaluationRun, evaluate, records_beside
from calltune.exporting.targets import TunedModel
from calltune.models.backend import Backend
from calltune.types import Json

Show = Callable[[Record, int, int], None]
Progress = Callable[[str], AbstractContextManager[Show]]
"""Opens a progress display with this title."""


@dataclass(frozen=True, slots=True)
class Regression:
    """Two models on the same test rows, judged as `calltune test` judges."""

    before: Rate
    """Exact matches with the adapter on its base."""
    after: Rate
    """Exact matches of the exported model."""
    n_same: int
    """Answers that are the same, character for character."""
    p_value: float
    """Of McNemar's exact test: how often chance alone would part the two at least this far."""

    @property
    def is_worse(self) -> bool:
        """Whether the exported model has fewer exact matches."""
        return self.after.count < self.before.count

    def describe(self) -> str:
        """The result in a sentence."""
        before, after = self.before, self.after
        return (
            f"Exact match: {before.count} of {before.of} with the adapter, "
            f"{after.count} of {after.of} exported; {self.n_same} answers are the same."
        )

    def to_json(self) -> dict[str, Json]:
        """The result as export.json keeps it."""
        return asdict(self)


def measure_regression(
    tuned: TunedModel,
    exported: Path,
    test_file: Path,
    options: AnswerOptions,
    backend: Backend,
    progress: Progress,
    results: Path | None,
) -> Regression:
    """How the tuned model and its export answer the rows of `test_file`.

    Args:
        tuned: The model before the export.
        exported: The folder of the exported model.
        test_file: Prepared test rows.
        options: How they are answered.
        backend: Where to compute.
        progress: Opens a progress display.
        results: A folder of `calltune test`, whose answers are taken over where they fit.

    Raises:
        DataError: there are no test rows.
    """
    models = {"before": (tuned.model, tuned.adapter), "after": (str(exported), None)}
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / f"{name}.json" for name in models]
        _take_over(results, files[0])
        for file, (name, (model, adapter)) in zip(files, models.items(), strict=True):
            run = EvaluationRun(model, adapter, test_file, file, options)
            with progress(f"{name} the export") as show:
                evaluate(run, backend, show)
        return _regression(*files)


def _regression(before: Path, after: Path) -> Regression:
    one, other = read_results(before), read_results(after)
    found = compare(one, other)
    return Regression(
        before=found.base.summary.success,
        after=found.tuned.summary.success,
        n_same=sum(one.records[id].text == other.records[id].text for id in one.records),
        p_value=found.p_value,
    )


def _take_over(results: Path | None, file: Path) -> None:
    """Copy the answers of an earlier test to where a run with results in `file` looks for them."""
    kept = None if results is None else records_beside(results / TUNED_RESULTS)
    if kept is not None and kept.is_file():
        shutil.copyfile(kept, records_beside(file))
