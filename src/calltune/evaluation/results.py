"""Results files: what testing one model wrote, read back and checked."""

from dataclasses import dataclass
from pathlib import Path

from calltune.errors import DataError
from calltune.evaluation.metrics import DETAIL_METRICS, F1_METRICS, SUMMARY_METRICS, Record
from calltune.files import read_json
from calltune.types import (
    MAX_DEPTH,
    Answer,
    Json,
    ParsedOutput,
    ToolCall,
    answers_from_json,
    nesting,
)

BASE_RESULTS = "base_model_test_results.json"
TUNED_RESULTS = "finetuned_model_test_results.json"
"""How the manual calls the files of the two models."""
DOCUMENT_KEYS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "adapter": (str, type(None)),
    "format": str,
    "test_set": dict,
    "results": list,
}
RECORD_KEYS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "query": str,
    "n_tools": int,
    "expected": list,
    "text": str,
    "calls": list,
    "problem": (str, type(None)),
    "verdict": dict,
}
LATER_RECORD_KEYS: dict[str, type | tuple[type, ...]] = {
    "unseen_tools": (int, type(None)),
    "generated_tokens": int,
    "seconds": (int, float),
}
"""Those that records of earlier versions, or of other programs, may lack."""
VERDICT_KEYS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys((*SUMMARY_METRICS.values(), *DETAIL_METRICS.values()), bool),
    **dict.fromkeys(F1_METRICS.values(), list),
    **dict.fromkeys(("reason", "abstention"), (str, type(None))),
}
"""What `judgement.Judgement` says, as JSON."""
LEVELS_AROUND = 10
"""How deep a value stands in a record, and a few levels more."""


@dataclass(frozen=True, slots=True)
class Results:
    """One results file."""

    path: Path
    document: dict[str, Json]

    @property
    def records(self) -> dict[str, Record]:
        """The records by example id."""
        return {record["id"]: record for record in self.document["results"]}

    @property
    def test_digest(self) -> str:
        """The SHA-256 of the test set."""
        return str(self.document["test_set"]["sha256"])

    @property
    def test_path(self) -> str:
        """Where the test set lay."""
        return str(self.document["test_set"]["path"])


def read_results(path: Path) -> Results:
    """The results in `path`, or in the file beside it that `path` names as `results_file`.

    Raises:
        DataError: the file is missing or is not a results file.
    """
    document = read_json(path)
    if isinstance(document, dict) and isinstance(document.get("results_file"), str):
        path = path.parent / document["results_file"]
        document = read_json(path)
    _check(document, DOCUMENT_KEYS, path, "")
    _check(document["test_set"], {"path": str, "sha256": str}, path, "test_set.")
    seen: set[str] = set()
    for number, record in enumerate(document["results"]):
        _check_record(record, path, f"results[{number}].")
        if record["id"] in seen:
            raise _broken(path, f'results[{number}].id "{record["id"]}" occurs twice')
        seen.add(record["id"])
    return Results(path, document)


def parsed_of(record: Record) -> ParsedOutput:
    """What was read in the text of this record."""
    calls = tuple(ToolCall(call["name"], call["arguments"]) for call in record["calls"])
    return ParsedOutput(calls, record["problem"])


def answers_of(record: Record) -> tuple[Answer, ...]:
    """What was right for the example of this record."""
    return answers_from_json(record["expected"])


def _check_record(record: Json, path: Path, where: str) -> None:
    _check(record, RECORD_KEYS, path, where)
    later = {key: kind for key, kind in LATER_RECORD_KEYS.items() if key in record}
    _check(record, later, path, where)
    _check(record["verdict"], VERDICT_KEYS, path, f"{where}verdict.")
    if nesting(record) > MAX_DEPTH + LEVELS_AROUND:
        raise _broken(path, f"{where[:-1]} is nested too deep")
    if not _has_calls(record):
        raise _broken(path, f'"calls" or "expected" in {where[:-1]} are not calls')
    for key in F1_METRICS.values():
        counted = record["verdict"][key]
        if len(counted) != 3 or not all(isinstance(number, int) for number in counted):
            raise _broken(path, f'the key "{where}verdict.{key}" does not hold three numbers')


def _has_calls(record: Record) -> bool:
    try:
        calls: list[ToolCall | Answer] = [*parsed_of(record).calls, *answers_of(record)]
    except (KeyError, TypeError, AttributeError):
        return False
    return all(isinstance(c.name, str) and isinstance(c.arguments, dict) for c in calls)


def _check(data: Json, keys: dict[str, type | tuple[type, ...]], path: Path, where: str) -> None:
    if not isinstance(data, dict):
        raise _broken(path, f"{where.rstrip('.') or 'it'} is not an object")
    for key, kind in keys.items():
        if key not in data:
            raise _broken(path, f'the key "{where}{key}" is missing')
        if not isinstance(data[key], kind):
            raise _broken(path, f'the key "{where}{key}" holds a {type(data[key]).__name__}')


def _broken(path: Path, what: str) -> DataError:
    return DataError(f"{path} is not a results file ({what}); write it again with the test stage")
