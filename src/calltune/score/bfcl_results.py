"""Answers as the result files that `bfcl evaluate` reads.

Source: bfcl-eval 2026.3.23. A model's folder is its registered name with `_` for `/`; in it lie
non_live/ and live/ (`get_directory_structure_by_category` in bfcl_eval/utils.py) with one file a
category, a JSON object a line with `id` and `result`. The model's handler decodes `result`. These
files are for one whose `decode_ast` takes a list of `{function: {argument: value}}` as it is, so
that the checker sees the calls that were read here, and nothing is parsed twice; text it refuses.
"""

from collections.abc import Sequence
from pathlib import Path

from calltune.calls import Json
from calltune.jsonl import write_rows
from calltune.score.leaderboard import category_of
from calltune.score.metrics import Record

MODEL = "ibm-granite/granite-3.2-8b-instruct"
"""The `--model` to give to `bfcl evaluate`: the files are read as this registered model's."""


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
        write_rows(file, ({"id": r["id"], "result": result(r)} for r in group))
    for file in model_folder.glob(f"*/{_file_name('*')}"):
        if file not in files:
            file.unlink()
    return model_folder


def result(record: Record) -> Json:
    """The calls that were read, none included; the text as it is where it could not be read."""
    if record["problem"] is not None:
        return record["text"]
    return [{call["name"]: call["arguments"]} for call in record["calls"]]


def _place(category: str) -> Path:
    return Path("live" if category.startswith("live_") else "non_live") / _file_name(category)


def _file_name(category: str) -> str:
    return f"BFCL_v4_{category}_result.json"
