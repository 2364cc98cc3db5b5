"""The JSON of a results file, checked by pydantic and turned into typed records.

Keys that are not listed here are ignored, so files of later versions and of other programs read.
Types are strict: a number in quotes is no number. Imports pydantic, which is slow to import.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calltune.errors import DataError
from calltune.evaluation.records import Count, Judgement, Record
from calltune.types import (
    MAX_DEPTH,
    Answer,
    Json,
    ParsedOutput,
    ToolCall,
    answers_from_json,
    nesting,
)

LEVELS_AROUND = 10
"""How many levels a record adds around a value, and a few more."""


class _Schema(BaseModel):
    model_config = ConfigDict(strict=True)


class JudgementSchema(_Schema):
    """The key `verdict` of a record: the fields of `records.Judgement`."""

    is_exact: bool
    is_ast: bool
    has_right_names: bool
    is_parsed: bool
    is_valid: bool
    invents_function: bool
    invents_argument: bool
    functions: list[int] = Field(min_length=3, max_length=3)
    arguments: list[int] = Field(min_length=3, max_length=3)
    reason: str | None
    abstention: str | None


class RecordSchema(_Schema):
    """One item of `results`; keys with a default came later, or are for some runs only."""

    id: str
    query: str
    n_tools: int
    expected: list[Any]
    """As `types.answers_to_json` writes answers."""
    text: str
    calls: list[Any]
    """Objects with `name` and `arguments`."""
    problem: str | None
    verdict: JudgementSchema
    source: str | None = None
    unseen_tools: int | None = None
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    finish: str = "stop"
    seconds: float | None = None
    not_held: list[str] | None = None
    n_right: int | None = None
    n_samples: int | None = None


class TestSetSchema(_Schema):
    """Which test set was answered."""

    path: str
    sha256: str


class ResultsSchema(_Schema):
    """A results file."""

    model: str
    adapter: str | None
    format: str
    test_set: TestSetSchema
    results: list[RecordSchema]
    identity: dict[str, Any] = {}


def parse_results(document: Json, path: Path) -> ResultsSchema:
    """The document of a results file; `path` is for the error.

    Raises:
        DataError: a key is missing or holds another type; the first such key is named.
    """
    try:
        return ResultsSchema.model_validate(document)
    except ValidationError as error:
        raise broken(path, _explained(error)) from None


def to_records(parsed: ResultsSchema, document: Json, path: Path) -> dict[str, Record]:
    """The typed records by id, in their order; `document` is what `parsed` was made of.

    Raises:
        DataError: a record is nested too deep, its calls are none, or an id occurs twice.
    """
    found: dict[str, Record] = {}
    for number, record in enumerate(parsed.results):
        where = f"results[{number}]"
        if nesting(document["results"][number]) > MAX_DEPTH + LEVELS_AROUND:
            raise broken(path, f"{where} is nested too deep")
        try:
            made = _to_record(record)
        except (KeyError, TypeError, AttributeError):
            raise broken(path, f'"calls" or "expected" in {where} are not calls') from None
        if record.id in found:
            raise broken(path, f'{where}.id "{record.id}" occurs twice')
        found[record.id] = made
    return found


def broken(path: Path, what: str) -> DataError:
    """The one-line error for a file that is not a results file."""
    return DataError(f"{path} is not a results file ({what}); write it again with the test stage")


def _to_record(record: RecordSchema) -> Record:
    calls = tuple(ToolCall(call["name"], call["arguments"]) for call in record.calls)
    expected = answers_from_json(record.expected)
    both: list[ToolCall | Answer] = [*calls, *expected]
    if not all(isinstance(c.name, str) and isinstance(c.arguments, dict) for c in both):
        raise TypeError("a name or arguments of another type")
    verdict = dict(record.verdict)
    verdict |= {name: Count(*verdict[name]) for name in ("functions", "arguments")}
    return Record(
        id=record.id,
        source=record.source,
        query=record.query,
        n_tools=record.n_tools,
        unseen_tools=record.unseen_tools,
        expected=expected,
        prompt_tokens=record.prompt_tokens,
        generated_tokens=record.generated_tokens,
        text=record.text,
        finish=record.finish,
        seconds=record.seconds,
        parsed=ParsedOutput(calls, record.problem),
        judgement=Judgement(**verdict),
        unenforced=None if record.not_held is None else tuple(record.not_held),
        n_right=record.n_right,
        n_samples=record.n_samples,
    )


def _explained(error: ValidationError) -> str:
    """What is wrong first, in the words of a results file."""
    first = error.errors(include_url=False)[0]
    place = first["loc"]
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)[1:]
    if first["type"] == "missing":
        return f'the key "{where}" is missing'
    if place and isinstance(place[-1], str) and not first["type"].startswith("too_"):
        return f'the key "{where}" holds a {type(first["input"]).__name__}'
    if "verdict" in place:
        where = ".".join(map(str, place[3:4]))
        return f'the key "results[{place[1]}].verdict.{where}" does not hold three numbers'
    return f"{where or 'it'} is not an object"
