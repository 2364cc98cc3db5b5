"""Changes of options that make a run fit into memory, in the order of least harm."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from calltune.data.batching import Splits, TokenRow
from calltune.training.memory_plan import Plan, Planner
from calltune.training.options import TrainOptions

Rows = Splits[TokenRow]

MAX_LENGTHS_TRIED = 16
"""Limits on the length of rows that are tried, at most."""


class Suggestion(NamedTuple):
    """A change of one option, what it costs, and the plan of the run with it."""

    option: str
    cost: str
    plan: Plan


def suggest_changes(
    planner: Planner, rows: Rows, options: TrainOptions, limit: int
) -> list[Suggestion]:
    """Changes that need less memory than the run as it is, each of them alone.

    `limit` is the memory of the machine in bytes. Of shorter rows, smaller batches and fewer layers
    the mildest one that fits is given, or the last one where none fits.
    """
    run = _PlannedRun(planner, rows, options, planner.plan(rows, options))
    tried = [
        *_checkpointing(run),
        *_other_caches(run),
        *_first_fitting(_shorter_rows(run), limit),
        *_first_fitting(_smaller_batches(run), limit),
        *_first_fitting(_fewer_layers(run), limit),
        *_quantized_weights(run),
    ]
    return [suggestion for suggestion in tried if suggestion.plan.peak < run.plan.peak]


class _PlannedRun(NamedTuple):
    """A run as it is, and its plan."""

    planner: Planner
    rows: Rows
    options: TrainOptions
    plan: Plan

    def changed(self, **changes: Any) -> Plan:
        """The plan with other options."""
        return self.planner.plan(self.rows, replace(self.options, **changes))


def _checkpointing(run: _PlannedRun) -> Iterator[Suggestion]:
    if not run.options.grad_checkpoint:
        plan = run.changed(grad_checkpoint=True)
        yield Suggestion("--grad-checkpoint", "more time a step", plan)


def _other_caches(run: _PlannedRun) -> Iterator[Suggestion]:
    place = run.plan.run.cache.mode
    if place == "memory":
        plan = run.changed(prefix_cache="disk")
        yield Suggestion("--prefix-cache disk", "reads from the disk in every step", plan)
    if place != "off":
        plan = run.changed(prefix_cache="off")
        yield Suggestion("--prefix-cache off", "computes the frozen layers in every step", plan)


def _shorter_rows(run: _PlannedRun) -> Iterator[Suggestion]:
    rows = run.rows
    lengths = sorted({-(-len(row.tokens) // 32) * 32 for row in rows.train}, reverse=True)[1:]
    for length in lengths[:: -(-len(lengths) // MAX_LENGTHS_TRIED) or 1]:
        kept = Splits(*([row for row in part if len(row.tokens) <= length] for part in rows))
        if not kept.train:
            return
        lost = 1 - len(kept.train) / len(rows.train)
        cost = f"leaves out {len(rows.train) - len(kept.train)} rows ({lost:.0%})"
        yield Suggestion(f"--max-seq-length {length}", cost, run.planner.plan(kept, run.options))


def _smaller_batches(run: _PlannedRun) -> Iterator[Suggestion]:
    size = run.options.batch_size
    while size > 1:
        size //= 2
        cost = "noisier steps, unless --grad-accumulation-steps makes up for it"
        yield Suggestion(f"--batch-size {size}", cost, run.changed(batch_size=size))


def _fewer_layers(run: _PlannedRun) -> Iterator[Suggestion]:
    count = run.plan.run.n_trained
    while count > 1:
        count //= 2
        plan = run.changed(num_layers=count)
        yield Suggestion(f"--num-layers {count}", "trains less of the model", plan)


def _quantized_weights(run: _PlannedRun) -> Iterator[Suggestion]:
    if run.plan.is_dense and run.planner.shape.is_quantized:
        plan = run.changed(compute="quantized")
        yield Suggestion("--compute quantized", "slower, much so on a CPU", plan)


def _first_fitting(tried: Iterator[Suggestion], limit: int) -> Iterator[Suggestion]:
    last = None
    for last in tried:
        if last.plan.peak <= limit:
            break
    if last is not None:
        yield last
