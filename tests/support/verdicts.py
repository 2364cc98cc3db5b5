"""Judgements, records and results files, as JSON and as typed records."""

from pathlib import Path

from calltune.evaluation.records import Count, Judgement, Record
from calltune.evaluation.results import Results
from calltune.types import AcceptableArgument, Answer, Json, ParsedOutput, answers_to_json

ANSWER = Answer("f", {"x": AcceptableArgument((1,))})
TEST_SET = {"path": "data/training/test.jsonl", "sha256": "aa" * 32}


def verdict(is_exact: bool, **changes: Json) -> dict[str, Json]:
    """One on an example that needs one call of one argument; parsed unless it says otherwise."""
    right = int(is_exact)
    usual = {
        "is_exact": is_exact,
        "is_ast": is_exact,
        "has_right_names": is_exact,
        "is_parsed": True,
        "is_valid": True,
        "invents_function": False,
        "invents_argument": False,
        "functions": [1, 1, 1],
        "arguments": [right, 1, 1],
        "reason": None if is_exact else "wrong value",
        "abstention": None,
    }
    return usual | changes


def judgement(is_exact: bool, **changes: Json) -> Judgement:
    """The same as a record."""
    found = verdict(is_exact, **changes)
    return Judgement(**found | {key: Count(*found[key]) for key in ("functions", "arguments")})


def record(is_exact: bool, *, id: str = "e1", verdict: Json = None, **changes: Json) -> Record:
    """The record of an answer; `verdict` has what its judgement changes."""
    usual = {
        "id": id,
        "query": "Call f.",
        "n_tools": 1,
        "expected": (ANSWER,),
        "text": "f",
        "parsed": ParsedOutput(()),
        "judgement": judgement(is_exact, **(verdict or {})),
    }
    return Record(**usual | changes)


def record_json(is_exact: bool, id: str = "e1", **changes: Json) -> dict[str, Json]:
    """A record as a results file keeps it."""
    usual = {
        "id": id,
        "query": "Call f.",
        "n_tools": 1,
        "expected": answers_to_json((ANSWER,)),
        "text": "f",
        "calls": [],
        "problem": None,
        "verdict": verdict(is_exact),
    }
    return usual | changes


def results(name: str | Path, *records: dict[str, Json], **changes: Json) -> Results:
    """A results file with these records, read."""
    usual = {"model": "m", "adapter": None, "format": "gemma", "test_set": TEST_SET}
    return Results.from_json(Path(name), usual | {"results": list(records)} | changes)
