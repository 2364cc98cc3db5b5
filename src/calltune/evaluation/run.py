"""A model on a test set: generate, read, judge, and write results that survive a kill."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from calltune.data.batching import PreparedRow, read_prepared
from calltune.evaluation.judge import judgement
from calltune.evaluation.metrics import Record, details, pass_at, summarise
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.prompts import Question, Questions, tools_of
from calltune.evaluation.results import answers_of
from calltune.files import Journal, file_digest, write_json
from calltune.formats import FORMATS
from calltune.generation.engine import Completion, complete, default_batch_size
from calltune.models.backend import Backend
from calltune.models.loading import WEIGHTS, check_adapter, load
from calltune.provenance import describe
from calltune.types import Json


@dataclass(frozen=True, slots=True)
class Trial:
    """Which model answers which test rows and how, and where the results go."""

    model: str
    adapter: Path | None
    test_file: Path
    results_file: Path
    options: AnswerOptions


def run_trial(
    trial: Trial, backend: Backend, show: Callable[[Record, int, int], None]
) -> dict[str, Json]:
    """Answer every row that has no answer yet, and write the results file; its content.

    Each record is kept beside the results as soon as it is there; those of an earlier trial of the
    same model, adapter, rows, options and backend are taken over. `show(record, done, of)` is
    called for each new one.

    Raises:
        DataError: no test rows.
        ModelNotFound: no such model, or no adapter in its folder.
    """
    options = trial.options
    rows = read_prepared(trial.test_file)
    rows = rows if options.num_examples < 0 else rows[: options.num_examples]
    identity = _identity(trial, backend)
    journal = Journal(records_beside(trial.results_file), identity)
    questions = [Question(row, sample) for row in rows for sample in range(options.samples)]
    known = _taken_over(questions, journal)
    missing = [question for question in questions if question.key not in known]
    taken_over = len(known)
    started = time.perf_counter()
    if missing:
        with journal.open() as file:
            for key, record in _answers(trial, missing, backend):
                journal.append(file, record)
                known[key] = record
                show(record, len(known), len(questions))
    seconds = time.perf_counter() - started
    answers = [known[question.key] for question in questions]
    document = _document(trial, identity, rows[0].format, answers)
    document["summary"] |= {"seconds": round(seconds, 2), "taken_over": taken_over}
    write_json(trial.results_file, document)
    return document


def records_beside(results_file: Path) -> Path:
    """Where the answers are kept that a results file is made of."""
    return results_file.with_suffix(".records.jsonl")


def _identity(trial: Trial, backend: Backend) -> dict[str, Json]:
    """What must be equal for two trials to give the same record for a row."""
    return {
        "model": trial.model,
        "adapter_sha256": _adapter_digest(trial.adapter),
        "test_sha256": file_digest(trial.test_file),
        **trial.options.to_identity(),
        "backend": backend.describe(),
    }


def _adapter_digest(adapter: Path | None) -> str | None:
    if adapter is None:
        return None
    check_adapter(adapter)
    return file_digest(adapter / WEIGHTS)


def _taken_over(questions: Sequence[Question], journal: Journal) -> dict[str, Record]:
    """The answers that an earlier trial kept, by their questions' keys."""
    by_name = {(question.row.id, question.sample): question for question in questions}
    known = {}
    for record in journal.records():
        question = by_name.get((record["id"], record.get("sample", 0)))
        if question is not None:
            known[question.key] = _judged(question.row, record)
    return known


def _answers(
    trial: Trial, questions: Sequence[Question], backend: Backend
) -> Iterator[tuple[str, Record]]:
    """Each question's key and record, as the answers come."""
    loaded = load(trial.model, backend, trial.adapter)
    asked = Questions(questions, loaded, trial.options)
    completions = complete(
        loaded.model,
        asked.prompts(),
        stop_tokens=asked.stops,
        max_tokens=trial.options.max_tokens,
        batch_size=trial.options.batch_size or default_batch_size(backend.device),
    )
    for completion in completions:
        text = loaded.tokenizer.decode(completion.tokens)
        record = _record(asked[completion.id], completion, text)
        if trial.options.constrain:
            record["not_held"] = list(asked.notes[completion.id])
        yield completion.id, record


def _record(question: Question, completion: Completion, text: str) -> Record:
    row, sample = question
    record = {
        "id": row.id,
        "source": row.data["source"],
        "query": row.data["query"],
        "n_tools": len(row.data["tools"]),
        "unseen_tools": row.data.get("unseen_tools"),
        "expected": row.data["answers"],
        "prompt_tokens": completion.prompt_length,
        "generated_tokens": len(completion.tokens),
        "text": text,
        "finish": completion.finish,
        "seconds": round(completion.seconds, 3),
    }
    return _judged(row, record | ({"sample": sample} if sample else {}))


def _judged(row: PreparedRow, record: Record) -> Record:
    """The record with what its text says and the verdict; an earlier trial had other rules."""
    reading = FORMATS[row.format].read(record["text"])
    found = judgement(reading, answers_of(record), tools_of(row), record["finish"])
    return record | {
        "calls": [{"name": call.name, "arguments": call.arguments} for call in reading.calls],
        "problem": reading.problem,
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
    trial: Trial, identity: dict[str, Json], prompt_format: str, answers: list[Record]
) -> dict[str, Json]:
    records = _of_rows(answers, trial.options.samples)
    totals = {
        key: sum(answer[key] for answer in answers) for key in ("prompt_tokens", "generated_tokens")
    }
    return {
        "model": trial.model,
        "adapter": None if trial.adapter is None else str(trial.adapter),
        "format": prompt_format,
        "test_set": {
            "path": str(trial.test_file),
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
