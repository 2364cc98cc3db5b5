"""A model on a test set: generate, read, judge, and write results that survive a kill."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calltune.batches import PreparedRow, check_markers, prompt_tokens, read_prepared
from calltune.calls import Json, Tool
from calltune.decode.engine import Completion, Prompt, complete, default_batch_size, in_quick_order
from calltune.errors import DataError, OptionError
from calltune.formats import FORMATS
from calltune.journal import Journal
from calltune.jsonl import file_digest, write_json
from calltune.models.backend import Backend
from calltune.models.load import WEIGHTS, check_adapter, load
from calltune.runs import describe
from calltune.score.judgement import judgement
from calltune.score.metrics import Record, details, summarise
from calltune.score.results import answers_of, reading_of
from calltune.sources.rows import Unusable, read_tools


@dataclass(frozen=True, slots=True)
class Trial:
    """Which model answers which test rows, and where the results go."""

    model: str
    adapter: Path | None
    test_file: Path
    num_examples: int
    """The first so many rows; -1 is all."""
    max_tokens: int
    batch_size: int | None
    """None leaves it to the backend."""
    results_file: Path

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.num_examples == 0 or self.num_examples < -1:
            raise OptionError(
                f"--num_examples is {self.num_examples}; give 1 or more, or -1 for all"
            )
        for name in ("max_tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name} is {value}; it must be at least 1")


def run_trial(
    trial: Trial, backend: Backend, show: Callable[[Record, int, int], None]
) -> dict[str, Json]:
    """Answer every row that has no answer yet, and write the results file; its content.

    Each record is kept beside the results as soon as it is there; those of an earlier trial of the
    same model, adapter, rows, limit and backend are taken over. `show(record, done, of)` is
    called for each new one.

    Raises:
        DataError: no test rows.
        ModelNotFound: no such model, or no adapter in its folder.
    """
    rows = read_prepared(trial.test_file)
    rows = rows if trial.num_examples < 0 else rows[: trial.num_examples]
    identity = _identity(trial, backend)
    journal = Journal(trial.results_file.with_suffix(".records.jsonl"), identity)
    by_id = {row.id: row for row in rows}
    known = {
        record["id"]: _judged(by_id[record["id"]], record)
        for record in journal.records()
        if record["id"] in by_id
    }
    missing = [row for row in rows if row.id not in known]
    taken_over = len(rows) - len(missing)
    started = time.perf_counter()
    if missing:
        with journal.open() as file:
            for done, record in enumerate(_answers(trial, missing, backend), taken_over + 1):
                journal.append(file, record)
                known[record["id"]] = record
                show(record, done, len(rows))
    seconds = time.perf_counter() - started
    records = [known[row.id] for row in rows]
    document = _document(trial, identity, rows[0].format, records)
    document["summary"] |= {"seconds": round(seconds, 2), "taken_over": taken_over}
    write_json(trial.results_file, document)
    return document


def _identity(trial: Trial, backend: Backend) -> dict[str, Json]:
    """What must be equal for two trials to give the same record for a row."""
    return {
        "model": trial.model,
        "adapter_sha256": _adapter_digest(trial.adapter),
        "test_sha256": file_digest(trial.test_file),
        "max_tokens": trial.max_tokens,
        "backend": backend.describe(),
    }


def _adapter_digest(adapter: Path | None) -> str | None:
    if adapter is None:
        return None
    check_adapter(adapter)
    return file_digest(adapter / WEIGHTS)


def _answers(trial: Trial, rows: Sequence[PreparedRow], backend: Backend) -> Iterator[Record]:
    loaded = load(trial.model, backend, trial.adapter)
    by_id = {row.id: row for row in rows}
    prompts = _prompts(rows, loaded.tokenizer, trial.model)
    lengths = {prompt.id: len(prompt.tokens) for prompt in prompts}
    completions = complete(
        loaded.model,
        prompts,
        stop_tokens=_stop_tokens(loaded.tokenizer, rows),
        max_tokens=trial.max_tokens,
        batch_size=trial.batch_size or default_batch_size(backend.device),
    )
    for completion in completions:
        text = loaded.tokenizer.decode(completion.tokens)
        yield _record(by_id[completion.id], completion, text, lengths[completion.id])


def _prompts(rows: Sequence[PreparedRow], tokenizer: Any, model: str) -> list[Prompt]:
    """The rows' prompts in an order that is quick to decode: see `in_quick_order`."""
    for name in {row.format for row in rows}:
        check_markers(tokenizer, FORMATS[name], model)
    prompts = [
        Prompt(row.id, prompt_tokens(tokenizer, row.prompt, FORMATS[row.format])) for row in rows
    ]
    return in_quick_order(prompts)


def _stop_tokens(tokenizer: Any, rows: Sequence[PreparedRow]) -> list[int]:
    """The model's own end tokens and the format's: a base model may know only one kind."""
    stops = {stop for name in {row.format for row in rows} for stop in FORMATS[name].stops}
    encoded = [tokenizer.encode(stop, add_special_tokens=False) for stop in stops]
    return sorted({ids[0] for ids in encoded if len(ids) == 1} | set(tokenizer.eos_token_ids))


def _record(row: PreparedRow, completion: Completion, text: str, prompt_length: int) -> Record:
    reading = FORMATS[row.format].read(text)
    record = {
        "id": row.id,
        "source": row.data["source"],
        "query": row.data["query"],
        "n_tools": len(row.data["tools"]),
        "expected": row.data["answers"],
        "prompt_tokens": prompt_length,
        "generated_tokens": len(completion.tokens),
        "text": text,
        "calls": [{"name": call.name, "arguments": call.arguments} for call in reading.calls],
        "problem": reading.problem,
        "finish": completion.finish,
        "seconds": round(completion.seconds, 3),
    }
    return _judged(row, record)


def _judged(row: PreparedRow, record: Record) -> Record:
    """The record with its verdict; an earlier trial may have judged by other rules."""
    tools = _tools(row)
    found = judgement(reading_of(record), answers_of(record), tools, record["finish"])
    return record | {"verdict": asdict(found)}


def _tools(row: PreparedRow) -> dict[str, Tool]:
    try:
        return read_tools(row.data["tools"]).by_name
    except Unusable as error:
        raise DataError(
            f"The tools of test row {row.id} cannot be read ({error}); run prep again"
        ) from error


def _document(
    trial: Trial, identity: dict[str, Json], family: str, records: list[Record]
) -> dict[str, Json]:
    totals = {
        key: sum(record[key] for record in records) for key in ("prompt_tokens", "generated_tokens")
    }
    return {
        "model": trial.model,
        "adapter": None if trial.adapter is None else str(trial.adapter),
        "format": family,
        "test_set": {
            "path": str(trial.test_file),
            "sha256": identity["test_sha256"],
            "examples": len(records),
        },
        "identity": identity,
        **describe(),
        "summary": summarise(records) | totals,
        "details": details(records),
        "results": records,
    }
