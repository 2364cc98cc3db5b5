"""The bench bfcl command: a model on BFCL's single-turn Python categories."""

import shlex
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from calltune.errors import OptionError
from calltune.evaluation.options import AnswerOptions
from calltune.files import read_json, write_json, write_rows
from calltune.formats import FORMATS
from calltune.models.options import (
    DEFAULT_MODEL,
    BaseModelOption,
    OptionalAdapterOption,
    PreparedFormatOption,
)
from calltune.types import Json

if TYPE_CHECKING:
    from calltune.evaluation.run import Evaluation, EvaluationRun

_REPORT = "leaderboard.json"
_IDS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BfclOptions(AnswerOptions, PreparedFormatOption, OptionalAdapterOption, BaseModelOption):
    """Options of `calltune bench bfcl`."""

    model: str | None = None
    """Base model: a Hugging Face Hub id, a model folder, a .gguf file, or pip:NAME. By default the
    model that the adapter was trained on; without one, mlx-community/gemma-3-1b-it-4bit."""
    categories: str = "all"
    """Categories of BFCL, joined with +; all is the single-turn Python and irrelevance ones."""
    num_examples: int = -1
    """Number of rows of each category, from the top; -1 for all."""
    output_dir: Path = Path("data/bfcl")
    """Folder for the prompts, the answers and BFCL's result files; one a model."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        AnswerOptions.__post_init__(self)
        if self.format not in FORMATS:
            raise OptionError(f"No format {self.format}; choose one of {', '.join(FORMATS)}")


class _Prepared(NamedTuple):
    """Rows of BFCL, prepared for an evaluation."""

    by_category: dict[str, list[dict[str, Json]]]
    left_out: dict[str, list[str]]
    """The ids of the rows that could not be used, by the reason."""


def run(options: BfclOptions) -> Path:
    """Answer BFCL's prompts, print its accuracies and write its result files; leaderboard.json.

    Rows that were answered before keep their answers, also where --num_examples has been raised.

    Raises:
        DataError: no such category.
        FetchError: the package bfcl-eval could not be fetched.
        ModelNotFound: no such model, or no adapter in its folder.
        OptionError: the output folder holds answers to something else.
    """
    from calltune.evaluation.run import evaluate
    from calltune.models.backend import choose, print_backend
    from calltune.models.loading import base_model_of

    adapter = options.adapter_path
    model = options.model or (DEFAULT_MODEL if adapter is None else base_model_of(adapter))
    asked = {
        "model": model,
        "adapter": None if adapter is None else str(adapter),
        "format": options.format,
        "categories": options.categories,
        **options.to_identity(),
    }
    _refuse_another(options.output_dir / _REPORT, asked)
    prepared = _prepare(options)
    evaluation = _evaluation_run(options, model, list(prepared.by_category.values()))
    _print_left_out(prepared.left_out)

    backend = choose(options.device, is_step_small=True)
    print_backend(backend)

    from calltune.report.progress import progress_of

    with progress_of("BFCL", options.verbose) as show:
        document = evaluate(evaluation, backend, show)
    return _report(options.output_dir, document, asked | {"left_out": prepared.left_out})


def _evaluation_run(
    options: BfclOptions, model: str, groups: list[list[dict[str, Json]]]
) -> "EvaluationRun":
    """One evaluation over all categories; writes its test rows.

    The categories take turns, one row each, so that a later run with more rows of each appends
    to the same file, and earlier answers stay valid.
    """
    from calltune.evaluation.run import EvaluationRun

    most = None if options.num_examples < 0 else options.num_examples
    evaluation = EvaluationRun(
        model=model,
        adapter=options.adapter_path,
        test_file=options.output_dir / "test.jsonl",
        results_file=options.output_dir / "bfcl_test_results.json",
        options=replace(options, num_examples=sum(len(rows[:most]) for rows in groups)),
    )
    write_rows(evaluation.test_file, (row for turn in zip_longest(*groups) for row in turn if row))
    return evaluation


def _refuse_another(report: Path, asked: dict[str, Json]) -> None:
    """Refuse to replace the answers of another run, which may have taken hours."""
    if not report.exists():
        return
    before = read_json(report)
    before = before if isinstance(before, dict) else {}
    for name, value in asked.items():
        if before.get(name) != value:
            raise OptionError(
                f"{report} is of another {name} ({before.get(name)}, not {value}); give this run "
                "its own folder with --output_dir"
            )


def _prepare(options: BfclOptions) -> _Prepared:
    from calltune.data.prepared import check_row, prepare_example
    from calltune.data.readers.recognise import parse
    from calltune.data.sources import bfcl
    from calltune.schemas.tools import UnusableRow

    prompt_format = FORMATS[options.format]
    every = "+".join(bfcl.CATEGORIES + bfcl.WITHOUT_CALLS)
    prepared = _Prepared({}, {})
    for row in bfcl.rows(every if options.categories == "all" else options.categories, None):
        try:
            (example,) = parse(row, str(row["id"]), "bfcl").examples
            made = prepare_example(example, prompt_format, has_bos=True)
            check_row(made, example.messages, None, None)
        except UnusableRow as unusable:
            prepared.left_out.setdefault(unusable.reason, []).append(str(row["id"]))
        else:
            prepared.by_category.setdefault(example.source, []).append(made.to_json())
    return prepared


def _print_left_out(left_out: dict[str, list[str]]) -> None:
    for reason, ids in left_out.items():
        named = ", ".join(ids[:_IDS_SHOWN]) + (", …" if len(ids) > _IDS_SHOWN else "")
        print(f"Left out {len(ids)}: {reason} ({named})")


def _report(folder: Path, found: "Evaluation", asked: dict[str, Json]) -> Path:
    """Print the accuracies and write them with BFCL's result files; leaderboard.json."""
    from calltune.evaluation.bfcl import MODEL, bfcl_sections, sections, write_bfcl_results
    from calltune.report.leaderboard import print_leaderboard

    ours, theirs = sections(found.records), bfcl_sections(found.records)
    print_leaderboard(asked["model"], asked["adapter"], ours, theirs)
    write_bfcl_results(folder / "result", found.records)
    report = {
        "identity": found.identity,
        "sections": [asdict(section) for section in ours],
        "by_bfcls_count": [asdict(section) for section in theirs],
    }
    write_json(folder / _REPORT, asked | report)
    print(f"Wrote {folder / _REPORT} and {folder / 'result'}, which BFCL's own checker reads:")
    print(f"  {_evaluate_command(folder.resolve(), MODEL)}")
    return folder / _REPORT


def _evaluate_command(folder: Path, model: str) -> str:
    """The shell command; `folder` is absolute, as BFCL looks for others beside its package."""
    command = ["bfcl", "evaluate", "--model", model, "--test-category", "python", "--partial-eval"]
    folders = ["--result-dir", str(folder / "result"), "--score-dir", str(folder / "score")]
    return shlex.join(command + folders)
