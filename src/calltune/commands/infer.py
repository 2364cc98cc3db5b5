"""The infer command: the base model on the test split."""

from dataclasses import dataclass
from pathlib import Path

from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.results import BASE_RESULTS
from calltune.models.options import DataOption, ModelOption, ResultsDirOption


@dataclass(frozen=True, slots=True, kw_only=True)
class InferOptions(AnswerOptions, ResultsDirOption, DataOption, ModelOption):
    """Options of `calltune infer`."""


def run(options: InferOptions) -> Path:
    """Evaluate the base model; the results file. Answers of an earlier run are kept."""
    from calltune.models.backend import choose, print_backend

    backend = choose(options.device, is_step_small=True)
    print_backend(backend)

    from calltune.evaluation.run import EvaluationRun, evaluate
    from calltune.report.progress import progress_of
    from calltune.report.tables import print_summary

    evaluation = EvaluationRun(
        model=options.model,
        adapter=None,
        test_file=options.data / "test.jsonl",
        results_file=options.results_dir / BASE_RESULTS,
        options=options,
    )
    with progress_of("base model", options.verbose) as show:
        document = evaluate(evaluation, backend, show)
    print_summary(document)
    print(f"Wrote {evaluation.results_file}")
    return evaluation.results_file
