"""Evaluation of a model on a test set: generate, parse, judge, and keep results through a kill."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from calltune.data.prepared import read_prepared
from calltune.errors import DataError
from calltune.evaluation.judge import judge
from calltune.evaluation.metrics import Summary, details, pass_at, summarise
from calltune.evaluation.options import AnswerOptions
from calltune.evaluation.prompts import PromptBuilder, RowSample, tools_of
from calltune.evaluation.records import Record
from calltune.evaluation.results import SCHEMA_VERSION
from calltune.files import RecordLog, file_digest, write_json
from calltune.formats import FORMATS
from calltune.generation.engine import complete, default_batch_size
from calltune.models.backend import Backend
from calltune.models.loading import WEIGHTS, check_adapter, load
from calltune.provenance import describe, describe_changes
from calltune.types import Json


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """Which model answers which test rows and how, and where the results go."""

    model: str
    adapter: Path | None
    test_file: Path
    results_file: Path
    options: AnswerOptions


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of a run; `to_json` is the results file."""

    run: EvaluationRun
    prompt_format: str
    identity: dict[str, Json]
    """What two runs must have in common for the one to take over answers of the other."""
    records: tuple[Record, ...]
    """One an example; of several answers to one, the first."""
    summary: Summary
    prompt_tokens: int
    """Of all answers, as are the following."""
    generated_tokens: int
    seconds: float
    """Of this run, without what earlier runs took for the answers that were taken over."""
    n_taken_over: int
    """Answers of an earlier run."""

    @property
    def unenforced(self) -> dict[str, int] | None:
        """What of the tools' schemas could not be enforced, with the number of answers.

        The most frequent first; None where decoding was not constrained.
        """
        notes = [record.unenforced for record in self.records if record.unenforced is not None]
        return dict(Counter(n for each in notes for n in each).most_common()) if notes else None

    @property
    def pass_at(self) -> dict[str, float] | None:
        """pass@k by k as text; None where there is one answer to each example."""
        counts = [(r.n_right or 0, r.n_samples) for r in self.records if r.n_samples is not None]
        return pass_at(counts) if counts else None

    def to_json(self) -> dict[str, Json]:
        """The document of the results file."""
        adapter = self.run.adapter
        more = {"not_held": self.unenforced, "pass_at": self.pass_at}
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.run.model,
            "adapter": None if adapter is None else str(adapter),
            "format": self.prompt_format,
            "test_set": {
                "path": str(self.run.test_file),
                "sha256": self.identity["test_sha256"],
                "examples": len(self.records),
            },
            "identity": self.identity,
            **describe(),
            "summary": {
                **asdict(self.summary),
                "prompt_tokens": self.prompt_tokens,
                "generated_tokens": self.generated_tokens,
                "seconds": round(self.seconds, 2),
                "taken_over": self.n_taken_over,
            },
            "details": asdict(details(self.records)),
            **{key: value for key, value in more.items() if value is not None},
            "results": [record.to_json() for record in self.records],
        }


def evaluate(
    run: EvaluationRun, backend: Backend, show: Callable[[Record, int, int], None]
) -> Evaluation:
    """Answer every row that has no answer yet, and write the results file.

    Each record is appended to a file beside the results as soon as it is there; those of an
    earlier run of the same model, adapter, rows, options and backend are taken over.

    Args:
        run: What to evaluate.
        backend: Where to compute.
        show: Called as `show(record, done, of)` for each new record.

    Raises:
        DataError: there are no test rows, one does not say which calls are right, or its tools
            cannot be read.
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
    log = RecordLog(records_beside(run.results_file), identity)
    if (before := log.other_identity()) is not None:
        print(f"Replacing the answers in {log.path} ({describe_changes(before, identity)})")
    samples = [RowSample(row, sample) for row in rows for sample in range(options.samples)]
    known = _taken_over(samples, log)
    missing = [sample for sample in samples if sample.key not in known]
    n_taken_over = len(known)
    started = time.perf_counter()
    if missing:
        with log.open() as file:
            for key, record in _answers(run, missing, backend):
                log.append(file, record.to_json())
                known[key] = record
                show(record, len(known), len(samples))
    seconds = time.perf_counter() - started
    answers = [known[sample.key] for sample in samples]
    records = _one_a_row(answers, options.samples)
    found = Evaluation(
        run=run,
        prompt_format=rows[0].format,
        identity=identity,
        records=records,
        summary=summarise(records),
        prompt_tokens=sum(answer.prompt_tokens or 0 for answer in answers),
        generated_tokens=sum(answer.generated_tokens or 0 for answer in answers),
        seconds=seconds,
        n_taken_over=n_taken_over,
    )
    write_json(run.results_file, found.to_json())
    return found


def records_beside(results_file: Path) -> Path:
    """The file of single answers that a results file is made of."""
    return results_file.with_suffix(".records.jsonl")


class _Answer(NamedTuple):
    """What a model wrote for a prompt, and what it took."""

    text: str
    finish: str
    prompt_tokens: int
    generated_tokens: int
    seconds: float | None
    unenforced: tuple[str, ...] | None


def _identity(run: EvaluationRun, backend: Backend) -> dict[str, Json]:
    """What must be equal for two runs to give the same record for a row."""
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


def _taken_over(samples: Sequence[RowSample], log: RecordLog) -> dict[str, Record]:
    """The answers that an earlier run kept, by the keys of their samples.

    They are parsed and judged again, as an earlier version may have had other rules.
    """
    by_name = {(sample.row.id, sample.sample): sample for sample in samples}
    known = {}
    for line in log.records():
        sample = by_name.get((line["id"], line.get("sample", 0)))
        if sample is not None:
            notes = line.get("not_held")
            answer = _Answer(
                text=line["text"],
                finish=line["finish"],
                prompt_tokens=line["prompt_tokens"],
                generated_tokens=line["generated_tokens"],
                seconds=line.get("seconds"),
                unenforced=None if notes is None else tuple(notes),
            )
            known[sample.key] = _record(sample, answer)
    return known


def _answers(
    run: EvaluationRun, samples: Sequence[RowSample], backend: Backend
) -> Iterator[tuple[str, Record]]:
    """Each sample's key and record, as the answers come."""
    loaded = load(run.model, backend, run.adapter)
    builder = PromptBuilder(samples, loaded, run.options)
    completions = complete(
        loaded.model,
        builder.prompts(),
        stop_tokens=builder.stops,
        max_tokens=run.options.max_tokens,
        batch_size=run.options.batch_size or default_batch_size(backend.device),
    )
    for completion in completions:
        answer = _Answer(
            text=loaded.tokenizer.decode(completion.tokens),
            finish=completion.finish_reason,
            prompt_tokens=completion.prompt_length,
            generated_tokens=len(completion.tokens),
            seconds=round(completion.seconds, 3),
            unenforced=builder.notes[completion.id] if run.options.constrain else None,
        )
        yield completion.id, _record(builder[completion.id], answer)


def _record(sample: RowSample, answer: _Answer) -> Record:
    """The record of an answer, parsed and judged."""
    row = sample.row
    parsed = FORMATS[row.format].parse(answer.text)
    expected = row.answers or ()
    return Record(
        id=row.id,
        source=row.source,
        query=row.query,
        n_tools=len(row.tools),
        unseen_tools=row.unseen_tools,
        expected=expected,
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=answer.generated_tokens,
        text=answer.text,
        finish=answer.finish,
        seconds=answer.seconds,
        sample=sample.sample,
        parsed=parsed,
        judgement=judge(parsed, expected, tools_of(row), answer.finish),
        unenforced=answer.unenforced,
    )


def _one_a_row(answers: Sequence[Record], n_samples: int) -> tuple[Record, ...]:
    """One record a row: its first answer, and of several how many are right."""
    if n_samples == 1:
        return tuple(answers)
    groups = [answers[at : at + n_samples] for at in range(0, len(answers), n_samples)]
    return tuple(
        replace(
            group[0],
            n_right=sum(record.judgement.is_exact for record in group),
            n_samples=n_samples,
        )
        for group in groups
    )
