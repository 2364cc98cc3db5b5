"""The test command: the tuned model on the test split, compared with the base model."""

from dataclasses import dataclass
from pathlib import Path

from calltune.errors import DataError
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.results import BASE_RESULTS, TUNED_RESULTS
from calltune.files import write_json
from calltune.models.options import (
    AdapterOption,
    BaseModelOption,
    DataOption,
    ResultsDirOption,
)
from calltune.terminal_text import escape_line


@dataclass(frozen=True, slots=True, kw_only=True)
class TestOptions(AnswerOptions, ResultsDirOption, DataOption, BaseModelOption, AdapterOption):
    """Options of `calltune test`."""

    __test__ = False  # pytest would take it for a test by its name


def run(options: TestOptions) -> Path:
    """Evaluate the tuned model; the results file. Answers of an earlier run are kept.

    Prints the comparison with base_model_test_results.json where that exists and is of the
    same test set.
    """
    from calltune.models.backend import choose, print_backend
    from calltune.models.loading import base_model_of

    model = options.model or base_model_of(options.adapter_path)
    backend = choose(options.device, is_step_small=True)
    print_backend(backend)

    from calltune.evaluation.run import EvaluationRun, evaluate
    from calltune.report.progress import progress_of
    from calltune.report.tables import print_summary

    evaluation = EvaluationRun(
        model=model,
        adapter=options.adapter_path,
        test_file=options.data / "test.jsonl",
        results_file=options.results_dir / TUNED_RESULTS,
        options=options,
    )
    with progress_of("tuned model", options.verbose) as show:
        document = evaluate(evaluation, backend, show)
    # The manual names both files.
    write_json(options.results_dir / "test_model_results.json", {"results_file": TUNED_RESULTS})
    print_summary(document)
    print(f"Wrote {evaluation.results_file}")
    _print_comparison(options.results_dir / BASE_RESULTS, evaluation.results_file)
    return evaluation.results_file


def _print_comparison(base_file: Path, tuned_file: Path) -> None:
    from calltune.evaluation.compare import compare
    from calltune.evaluation.results import read_results
    from calltune.report.tables import print_comparison

    if not base_file.exists():
        print("Test the base model with `calltune infer` to compare the two")
        return
    try:
        comparison = compare(read_results(base_file), read_results(tuned_file))
    except DataError as error:
        print(escape_line(f"No comparison: {error}"))
        return
    print_comparison(comparison)
