"""What to change so that a run fits into memory, in the order of least harm."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from calltune.training.memory_plan import Choices, Plan, Planner, Rows

LENGTHS_TRIED = 16
"""Limits on the length of rows that are tried, at most."""


class Suggestion(NamedTuple):
    """A change of options, and the plan with it."""

    option: str
    cost: str
    plan: Plan


def suggest_changes(planner: Planner, rows: Rows, chosen: Choices, limit: int) -> list[Suggestion]:
    """Changes that need less than the run as it is, each on its own; `limit` in bytes.

    Of lengths, batch sizes and numbers of layers the mildest that fits is given, or the last one
    that can be tried.
    """
    peak = planner.plan(rows, chosen).peak
    tried = [
        *_recomputed(planner, rows, chosen),
        *_other_places(planner, rows, chosen),
        *_first_fitting(_shorter(planner, rows, chosen), limit),
        *_first_fitting(_smaller(planner, rows, chosen), limit),
        *_first_fitting(_shallower(planner, rows, chosen), limit),
        *_quantised(planner, rows, chosen),
    ]
    return [suggestion for suggestion in tried if suggestion.plan.peak < peak]


def _recomputed(planner: Planner, rows: Rows, chosen: Choices) -> Iterator[Suggestion]:
    if not chosen.grad_checkpoint:
        plan = planner.plan(rows, replace(chosen, grad_checkpoint=True))
        yield Suggestion("--grad-checkpoint", "more time a step", plan)


def _other_places(planner: Planner, rows: Rows, chosen: Choices) -> Iterator[Suggestion]:
    place = planner.plan(rows, chosen).place
    if place == "memory":
        plan = planner.plan(rows, replace(chosen, prefix_cache="disk"))
        yield Suggestion("--prefix-cache disk", "reads from the disk in every step", plan)
    if place != "off":
        plan = planner.plan(rows, replace(chosen, prefix_cache="off"))
        yield Suggestion("--prefix-cache off", "computes the frozen layers in every step", plan)


def _shorter(planner: Planner, rows: Rows, chosen: Choices) -> Iterator[Suggestion]:
    lengths = sorted({-(-len(row.tokens) // 32) * 32 for row in rows.train}, reverse=True)[1:]
    for length in lengths[:: -(-len(lengths) // LENGTHS_TRIED) or 1]:
        kept = Rows(*([row for row in part if len(row.tokens) <= length] for part in rows))
        if not kept.train:
            return
        lost = 1 - len(kept.train) / len(rows.train)
        cost = f"leaves out {len(rows.train) - len(kept.train)} rows ({lost:.0%})"
        yield Suggestion(f"--max-seq-length {length}", cost, planner.plan(kept, chosen))


def _smaller(planner: Planner, rows: Rows, chosen: Choices) -> Iterator[Suggestion]:
    size = chosen.batch_size
    while size > 1:
        size //= 2
        cost = "noisier steps, unless --grad-accumulation-steps makes up for it"
        plan = planner.plan(rows, replace(chosen, batch_size=size))
        yield Suggestion(f"--batch-size {size}", cost, plan)


def _shallower(planner: Planner, rows: Rows, chosen: Choices) -> Iterator[Suggestion]:
    count = chosen.n_trained
    while count > 1:
        count //= 2
        plan = planner.plan(rows, replace(chosen, n_trained=count))
        yield Suggestion(f"--num-layers {count}", "trains less of the model", plan)


def _quantised(planner: Planner, rows: Rows, chosen: Choices) -> Iterator[Suggestion]:
    if chosen.is_dense and planner.shape.is_quantised and chosen.kind != "full":
        plan = planner.plan(rows, replace(chosen, is_dense=False))
        yield Suggestion("--compute quantized", "slower, much so on a CPU", plan)


def _first_fitting(tried: Iterator[Suggestion], limit: int) -> Iterator[Suggestion]:
    last = None
    for last in tried:
        if last.plan.peak <= limit:
            break
    if last is not None:
        yield last
