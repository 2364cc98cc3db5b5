"""A model on a test set: generate, read, judge, and write results that survive a kill."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from calltune.data.prepared import PreparedRow, read_prepared
from calltune.errors import DataError
from calltune.evaluation.judge import judge
from calltune.evaluation.metrics import Record, details, pass_at, summarise
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.prompts import PromptBuilder, RowSample, tools_of
from calltune.evaluation.results import answers_of
from calltune.files import Journal, file_digest, write_json
from calltune.formats import FORMATS
from calltune.generation.engine import Completion, complete, default_batch_size
from calltune.models.backend import Backend
from calltune.models.loading import WEIGHTS, check_adapter, load
from calltune.provenance import describe
from calltune.types import Json, answers_to_json


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """Which model answers which test rows and how, and where the results go."""

    model: str
    adapter: Path | None
    test_file: Path
    results_file: Path
    options: AnswerOptions


def evaluate(
    run: EvaluationRun, backend: Backend, show: Callable[[Record, int, int], None]
) -> dict[str, Json]:
    """Answer every row that has no answer yet, and write the results file; its content.

    Each record is kept beside the results as soon as it is there; those of an earlier run of the
    same model, adapter, rows, options and backend are taken over. `show(record, done, of)` is
    called for each new one.

    Raises:
        DataError: no test rows, or one that does not say which calls are right.
        ModelNotFound: no such model, or no adapter in its folder.
    """
    options = run.options
    rows = read_prepared(run.test_file)
    rows = rows if options.num_examples < 0 else rows[: options.num_examples]
    if (unlabelled := next((row for row in rows if row.answers is None), None)) is not None:
        raise DataError(
            f"{run.test_file}: row {unlabelled.id} has no answers to judge by; run prep again"
        )
    identity = _identity(run, backend)
    journal = Journal(records_beside(run.results_file), identity)
    samples = [RowSample(row, sample) for row in rows for sample in range(options.samples)]
    known = _taken_over(samples, journal)
    missing = [wanted for wanted in samples if wanted.key not in known]
    taken_over = len(known)
    started = time.perf_counter()
    if missing:
        with journal.open() as file:
            for key, record in _answers(run, missing, backend):
                journal.append(file, record)
                known[key] = record
                show(record, len(known), len(samples))
    seconds = time.perf_counter() - started
    answers = [known[wanted.key] for wanted in samples]
    document = _document(run, identity, rows[0].format, answers)
    document["summary"] |= {"seconds": round(seconds, 2), "taken_over": taken_over}
    write_json(run.results_file, document)
    return document


def records_beside(results_file: Path) -> Path:
    """Where the answers are kept that a results file is made of."""
    return results_file.with_suffix(".records.jsonl")


def _identity(run: EvaluationRun, backend: Backend) -> dict[str, Json]:
    """What must be equal for two trials to give the same record for a row."""
    return {
        "model": run.model,
        "adapter_sha256": _adapter_digest(run.adapter),
        "test_sha256": file_digest(run.test_file),
        **run.options.to_identity(),
        "backend": backend.describe(),
    }


def _adapter_digest(adapter: Path | None) -> str | None:
    if adapter is None:
        return None
    check_adapter(adapter)
    return file_digest(adapter / WEIGHTS)


def _taken_over(samples: Sequence[RowSample], journal: Journal) -> dict[str, Record]:
    """The answers that an earlier run kept, by their samples' keys."""
    by_name = {(wanted.row.id, wanted.sample): wanted for wanted in samples}
    known = {}
    for record in journal.records():
        wanted = by_name.get((record["id"], record.get("sample", 0)))
        if wanted is not None:
            known[wanted.key] = _judged(wanted.row, record)
    return known


def _answers(
    run: EvaluationRun, samples: Sequence[RowSample], backend: Backend
) -> Iterator[tuple[str, Record]]:
    """Each wanted's key and record, as the answers come."""
    loaded = load(run.model, backend, run.adapter)
    asked = PromptBuilder(samples, loaded, run.options)
    completions = complete(
        loaded.model,
        asked.prompts(),
        stop_tokens=asked.stops,
        max_tokens=run.options.max_tokens,
        batch_size=run.options.batch_size or default_batch_size(backend.device),
    )
    for completion in completions:
        text = loaded.tokenizer.decode(completion.tokens)
        record = _record(asked[completion.id], completion, text)
        if run.options.constrain:
            record["not_held"] = list(asked.notes[completion.id])
        yield completion.id, record


def _record(wanted: RowSample, completion: Completion, text: str) -> Record:
    row, sample = wanted
    record = {
        "id": row.id,
        "source": row.source,
        "query": row.query,
        "n_tools": len(row.tools),
        "unseen_tools": row.unseen_tools,
        "expected": answers_to_json(row.answers or ()),
        "prompt_tokens": completion.prompt_length,
        "generated_tokens": len(completion.tokens),
        "text": text,
        "finish": completion.finish_reason,
        "seconds": round(completion.seconds, 3),
    }
    return _judged(row, record | ({"sample": sample} if sample else {}))


def _judged(row: PreparedRow, record: Record) -> Record:
    """The record with what its text says and the verdict; an earlier run had other rules."""
    parsed = FORMATS[row.format].parse(record["text"])
    found = judge(parsed, answers_of(record), tools_of(row), record["finish"])
    return record | {
        "calls": [{"name": call.name, "arguments": call.arguments} for call in parsed.calls],
        "problem": parsed.problem,
        "verdict": asdict(found),
    }


def _of_rows(records: Sequence[Record], samples: int) -> list[Record]:
    """One record a row: its first answer, and of several how many are right."""
    if samples == 1:
        return list(records)
    groups = [records[at : at + samples] for at in range(0, len(records), samples)]
    return [
        group[0] | {"n_right": sum(r["verdict"]["is_exact"] for r in group), "n_samples": samples}
        for group in groups
    ]


def _document(
    run: EvaluationRun, identity: dict[str, Json], prompt_format: str, answers: list[Record]
) -> dict[str, Json]:
    records = _of_rows(answers, run.options.samples)
    totals = {
        key: sum(answer[key] for answer in answers) for key in ("prompt_tokens", "generated_tokens")
    }
    return {
        "model": run.model,
        "adapter": None if run.adapter is None else str(run.adapter),
        "format": prompt_format,
        "test_set": {
            "path": str(run.test_file),
            "sha256": identity["test_sha256"],
            "examples": len(records),
        },
        "identity": identity,
        **describe(),
        "summary": summarise(records) | totals,
        "details": details(records),
        **_further(records),
        "results": records,
    }


def _further(records: Sequence[Record]) -> dict[str, Json]:
    """What is said only of answers that were held to schemas, or of several answers to each row."""
    found: dict[str, Json] = {}
    if any("not_held" in record for record in records):
        notes = Counter(note for record in records for note in record.get("not_held", ()))
        found["not_held"] = dict(notes.most_common())
    if any("n_samples" in record for record in records):
        found["pass_at"] = pass_at([(r["n_right"], r["n_samples"]) for r in records])
    return found
