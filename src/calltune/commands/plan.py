"""plan: how much memory a training would take, before anyone waits for it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calltune.errors import OptionError
from calltune.terminal_text import Heartbeat
from calltune.training.options import TrainOptions

PROGRAM_BYTES = 4 * 10**8
"""Python, MLX and the tokenizer on a CPU, beside MLX's arrays."""
UNCERTAINTY = 0.15
"""The part of a prediction by which it may be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions(TrainOptions):
    """Options of `calltune plan`: those of train, and another machine's memory."""

    memory_gb: float | None = None
    """Plan for a machine with so many GB, 10⁹ bytes each; with --device gpu, of a GPU."""


def run(options: PlanOptions) -> Path:
    """Print what `calltune train` with these options would take; the data's folder.

    The run itself is asked, dry: no weights are read and nothing is computed.

    Raises:
        OptionError: a model that is not understood, or options that do not fit it.
        DataError: the rows are missing, or too long.
        ModelNotFound: the model is missing or broken.
    """
    from calltune.data.batching import check_control_tokens, read_splits, tokenize_splits
    from calltune.formats import FORMATS

    if options.memory_gb is not None and not options.memory_gb > 0:
        raise OptionError(f"--memory-gb is {options.memory_gb}; give more than 0")
    prepared = read_splits(options.data)
    machine = _machine(options)

    from transformers import AutoTokenizer

    from calltune.models.resolve import resolve
    from calltune.training.adapter import check_trainable
    from calltune.training.dry_run import adapter_shape
    from calltune.training.memory_plan import planner_for

    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_control_tokens(tokenizer, FORMATS[prepared.train[0].format], options.model)
    with Heartbeat("tokenizing the rows"):
        rows = tokenize_splits(prepared, tokenizer, options.max_seq_length, options.data)
    check_trainable(adapter_shape(options), folder, options.model)
    _show(planner_for(folder, machine), rows, options, folder)
    return options.data


def _machine(options: PlanOptions) -> Any:
    """This machine, or another one with as much memory as the options say."""
    from dataclasses import replace

    from calltune.models.backend import choose

    memory = None if options.memory_gb is None else int(options.memory_gb * 1e9)
    if memory is not None and options.device == "gpu":
        from calltune.training.activation_cache import free_on_disk
        from calltune.training.dry_run import Machine, activations_folder

        # Another machine's GPU: there need be none here.
        free_disk = free_on_disk(activations_folder())
        if sys.platform == "darwin":
            return Machine("metal", "as stored", memory, free_disk)
        return Machine("cuda", "as stored", memory, free_disk)
    backend = choose(options.device)

    from calltune.training.dry_run import measure

    machine = measure(backend)
    return machine if memory is None else replace(machine, memory=memory)


def _show(planner: Any, rows: Any, options: PlanOptions, folder: Path) -> None:
    from calltune.training.suggestions import suggest_changes

    plan = planner.plan(rows, options)
    print(f"{folder.name}: predicted peak {_gb(plan.peak)}, while {plan.largest.name}\n")
    for phase in plan.phases:
        print(f"{phase.name:<44}{_gb(phase.n_bytes):>10}")
        for part in phase.parts:
            if part.n_bytes and len(phase.parts) > 1:
                print(f"  {part.name:<42}{_gb(part.n_bytes):>10}")
    limit = planner.machine.memory - (PROGRAM_BYTES if planner.machine.is_cpu else 0)
    print(f"\nA run may use {_gb(limit)}: {_verdict(plan.peak, limit)}")
    if plan.peak > limit:
        for found in suggest_changes(planner, rows, options, limit):
            fits = "fits" if found.plan.peak <= limit else "does not fit"
            print(f"  {found.option:<26}{_gb(found.plan.peak):>9}, {fits}; {found.cost}")


def _verdict(peak: int, limit: int) -> str:
    if peak > limit:
        return "it does not fit. Each of these alone would need"
    is_close = peak * (1 + UNCERTAINTY) > limit
    return "it just fits; the prediction may be 15 % off" if is_close else "it fits"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
