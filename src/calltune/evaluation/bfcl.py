"""BFCL's accuracies from our answers, and the result files that `bfcl evaluate` reads.

Source of the accuracies: `generate_leaderboard_csv` in bfcl_eval/eval_checker/eval_runner_helper.py
of bfcl-eval 2026.3.23. Non-Live AST is the plain mean of simple, multiple, parallel and
parallel_multiple, where simple is itself the plain mean of Python, Java and JavaScript; only Python
is run here, so simple is simple_python. Live AST weighs its four categories by their rows.
Irrelevance Detection is the plain mean of its two. BFCL's overall score weighs these three with
10 % each, multi-turn with 30 % and agentic with 40 %, so there is none here.

Source of the files: a model's folder is its registered name with `_` for `/`; in it are non_live/
and live/ (`get_directory_structure_by_category` in bfcl_eval/utils.py) with one file a category, a
JSON object a line with `id` and `result`. The model's handler decodes `result`. These files are for
a handler whose `decode_ast` takes a list of `{function: {argument: value}}` as it is, so that the
checker sees the calls that were parsed here, and nothing is parsed twice; text it refuses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from calltune.data.sources.bfcl import CATEGORIES, WITHOUT_CALLS
from calltune.evaluation.metrics import Rate, rate
from calltune.evaluation.records import Record
from calltune.files import write_rows
from calltune.types import Json

MODEL = "ibm-granite/granite-3.2-8b-instruct"
"""The `--model` to give to `bfcl evaluate`: the files are read as this registered model's."""


@dataclass(frozen=True, slots=True)
class MeanRate:
    """The plain mean of several rates, and its 95 % interval."""

    of: int
    """Answers behind all of them."""
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Section:
    """One of the leaderboard's accuracies and the categories that it is made of."""

    name: str
    total: Rate | MeanRate | None
    """None where a category of it was not run."""
    categories: dict[str, Rate]
    """The rates of those that were run."""


def sections(records: Sequence[Record]) -> list[Section]:
    """The accuracies by our judgement: AST match, and abstaining where no call is due."""
    return _sections(records, _is_right)


def bfcl_sections(records: Sequence[Record]) -> list[Section]:
    """The accuracies as BFCL counts: text that cannot be parsed makes no call, too.

    Source: `_evaluate_single_relevance_entry` in bfcl_eval/eval_checker/eval_runner.py.
    """
    return _sections(records, _is_right_for_bfcl)


def category_of(record: Record) -> str:
    """The BFCL category of a record, such as "live_simple"."""
    return str(record.source).removeprefix("bfcl/")


def mean(rates: Sequence[Rate]) -> MeanRate:
    """The plain mean of independent rates, its 95 % interval made of theirs.

    Each end is the root of the summed squares of their distances away. Source: MOVER, Zou and
    Donner, Statistics in Medicine 27 (2008).
    """
    middle = sum(each.rate for each in rates) / len(rates)
    below = sqrt(sum((each.low - each.rate) ** 2 for each in rates)) / len(rates)
    above = sqrt(sum((each.high - each.rate) ** 2 for each in rates)) / len(rates)
    return MeanRate(sum(each.of for each in rates), middle, middle - below, middle + above)


def pooled(rates: Sequence[Rate]) -> Rate:
    """The rate of all rows together: the mean weighed by rows."""
    return rate(sum(each.count for each in rates), sum(each.of for each in rates))


def write_bfcl_results(folder: Path, records: Sequence[Record]) -> Path:
    """Write one file a category into the model's folder in `folder`; the model's folder.

    Files of categories that are not among the records are removed.
    """
    by_category: dict[str, list[Record]] = {}
    for record in records:
        by_category.setdefault(category_of(record), []).append(record)
    model_folder = folder / MODEL.replace("/", "_")
    files = {model_folder / _place(name): group for name, group in by_category.items()}
    for file, group in files.items():
        write_rows(file, ({"id": r.id, "result": result(r)} for r in group))
    for file in model_folder.glob(f"*/{_file_name('*')}"):
        if file not in files:
            file.unlink()
    return model_folder


def result(record: Record) -> Json:
    """The calls that were parsed, none included; the text as it is where it was not parsed."""
    if record.parsed.problem is not None:
        return record.text
    return [{call.name: call.arguments} for call in record.parsed.calls]


_LIVE = tuple(name for name in CATEGORIES if name.startswith("live_"))
_NON_LIVE = tuple(name for name in CATEGORIES if name not in _LIVE)
_SECTIONS: dict[str, tuple[Sequence[str], Callable[[Sequence[Rate]], Rate | MeanRate]]] = {
    "Non-Live AST": (_NON_LIVE, mean),
    "Live AST": (_LIVE, pooled),
    "Irrelevance Detection": (WITHOUT_CALLS, mean),
}


def _sections(records: Sequence[Record], is_right: Callable[[Record], bool]) -> list[Section]:
    verdicts: dict[str, list[bool]] = {}
    for record in records:
        verdicts.setdefault(category_of(record), []).append(is_right(record))
    rates = {name: rate(sum(found), len(found)) for name, found in verdicts.items()}
    made = []
    for title, (names, combine) in _SECTIONS.items():
        found = {name: rates[name] for name in names if name in rates}
        total = combine(list(found.values())) if len(found) == len(names) else None
        made.append(Section(title, total, found))
    return [section for section in made if section.categories]


def _is_right(record: Record) -> bool:
    if category_of(record) in WITHOUT_CALLS:
        return record.judgement.abstention == "abstained"
    return record.judgement.is_ast


def _is_right_for_bfcl(record: Record) -> bool:
    if category_of(record) in WITHOUT_CALLS:
        return record.judgement.abstention != "called anyway"
    return _is_right(record)


def _place(category: str) -> Path:
    return Path("live" if category.startswith("live_") else "non_live") / _file_name(category)


def _file_name(category: str) -> str:
    return f"BFCL_v4_{category}_result.json"
