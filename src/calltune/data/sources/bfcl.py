"""The Berkeley Function-Calling Leaderboard's questions, from the package bfcl-eval.

Each row is a question with its ground truth. Only single-turn categories for Python are offered; in
the two of irrelevant tools nothing is to be called, so their rows have no ground truth.

Source: the data files of the Python package bfcl-eval, `bfcl_eval/data`.
"""

import json
import zipfile
from collections.abc import Iterator

from calltune.downloads import fetch
from calltune.errors import DataError
from calltune.types import Json

CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)
"""The categories that the split `train` stands for."""
WITHOUT_CALLS = ("irrelevance", "live_irrelevance")


def rows(split: str, num_examples: int | None) -> Iterator[dict[str, Json]]:
    """The rows of the categories in `split`, such as `simple_python+live_simple`.

    Each of several categories gives its share of `num_examples`, from the top of its file.

    Raises:
        DataError: there is no such category.
        FetchError: the package could not be fetched.
    """
    categories = _categories(split)
    with zipfile.ZipFile(fetch("bfcl-eval")) as wheel:
        found = [_category_rows(wheel, category) for category in categories]
    lengths = [len(rows) for rows in found]
    wanted = lengths if num_examples is None else _shares(lengths, num_examples)
    for category_rows, count in zip(found, wanted, strict=True):
        yield from category_rows[:count]


def _categories(split: str) -> tuple[str, ...]:
    if split == "train":
        return CATEGORIES
    named = tuple(dict.fromkeys(split.split("+")))
    for name in named:
        if name not in CATEGORIES + WITHOUT_CALLS:
            raise DataError(
                f"bfcl-eval has no category {name}; use train (the first eight) or names joined "
                f"with +: {', '.join(CATEGORIES + WITHOUT_CALLS)}"
            )
    return named


def _category_rows(wheel: zipfile.ZipFile, category: str) -> list[dict[str, Json]]:
    name = f"BFCL_v4_{category}.json"
    questions = _members(wheel, f"bfcl_eval/data/{name}")
    if category in WITHOUT_CALLS:
        return questions
    golds = _members(wheel, f"bfcl_eval/data/possible_answer/{name}")
    by_id = {gold["id"]: gold["ground_truth"] for gold in golds}
    return [question | {"ground_truth": by_id[question["id"]]} for question in questions]


def _members(wheel: zipfile.ZipFile, name: str) -> list[dict[str, Json]]:
    return [json.loads(line) for line in wheel.read(name).splitlines() if line.strip()]


def _shares(lengths: list[int], wanted: int) -> list[int]:
    """`wanted` divided in proportion to `lengths`, the largest remainders rounded up."""
    total = sum(lengths)
    wanted = min(wanted, total)
    shares = [wanted * length // total for length in lengths]
    by_remainder = sorted(range(len(lengths)), key=lambda i: (-(wanted * lengths[i] % total), i))
    for i in by_remainder[: wanted - sum(shares)]:
        shares[i] += 1
    return shares
