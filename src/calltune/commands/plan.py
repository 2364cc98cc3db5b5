"""plan: how much memory a training would take, before anyone waits for it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from calltune.errors import DataError, ModelNotFound, OptionError

PROGRAM_BYTES = 4 * 10**8
"""Python, MLX and the tokenizer on a CPU, beside MLX's arrays."""
DOUBT = 0.15
"""The part of a prediction by which it may be wrong."""


def run(options: Any) -> Path:
    """Print what `calltune train` with these options would take; the data's folder.

    `options` are those of train, and `memory_gb`, the memory of another machine, or None. No
    weights are read and nothing is computed.

    Raises:
        OptionError: a model that is not understood, or options that contradict each other.
        DataError: the rows are missing, or too long.
    """
    from calltune.data.batching import check_control_tokens
    from calltune.data.prepared import read_prepared
    from calltune.formats import FORMATS

    if options.memory_gb is not None and not options.memory_gb > 0:
        raise OptionError(f"--memory-gb is {options.memory_gb}; give more than 0")
    prepared = read_prepared(options.data / "train.jsonl")
    device, memory = _device(options)

    from transformers import AutoTokenizer

    from calltune.models.resolve import resolve
    from calltune.training.memory_plan import Rows

    folder = resolve(options.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_control_tokens(tokenizer, FORMATS[prepared[0].format], options.model)
    train = _tokens(prepared, tokenizer, options, "train")
    valid = _valid(options, tokenizer)
    planner, is_dense = _planner(folder, device, memory, options)
    chosen = _choices(options, planner.shape.n_layers, len(train), is_dense)
    _show(planner, Rows(train, valid), chosen, folder)
    return Path(options.data)


def _device(options: Any) -> tuple[str, int]:
    """Metal, cuda or cpu, and the bytes that a run may use there."""
    from calltune.models.backend import choose
    from calltune.models.memory import device_bytes

    given = None if options.memory_gb is None else int(options.memory_gb * 1e9)
    if given is not None and options.device == "gpu":
        # Another machine's: there need be no GPU here.
        return ("metal" if sys.platform == "darwin" else "cuda"), given
    backend = choose(options.device)
    return backend.device, device_bytes(backend) if given is None else given


def _tokens(prepared: Sequence[Any], tokenizer: Any, options: Any, name: str) -> list[Any]:
    from calltune.data.batching import tokenize

    found = tokenize(prepared, tokenizer, options.max_seq_length)
    if found.too_long:
        print(
            f"Left out {len(found.too_long)} of {len(prepared)} {name} rows, longer than "
            f"{options.max_seq_length} tokens"
        )
    if not found.rows and name == "train":
        raise DataError(
            f"Every row of {options.data / 'train.jsonl'} is longer than "
            f"{options.max_seq_length} tokens; raise --max-seq-length"
        )
    return found.rows


def _valid(options: Any, tokenizer: Any) -> list[Any]:
    """The validation rows that a run could use; the longest, where it takes some of them."""
    from calltune.data.prepared import read_prepared
    from calltune.files import read_lines

    path = options.data / "valid.jsonl"
    if not (path.exists() and any(read_lines(path))):
        return []
    rows = _tokens(read_prepared(path), tokenizer, options, "valid")
    rows.sort(key=lambda row: len(row.tokens), reverse=True)
    most = options.val_batches * options.batch_size
    return rows if options.val_batches < 0 else rows[:most]


def _planner(folder: Path, device: str, memory: int, options: Any) -> tuple[Any, bool]:
    """The planner for the model in `folder`, and whether its weights are dense in a run."""
    from calltune.data.batching import COARSE, FINE
    from calltune.files import read_json
    from calltune.training import activation_cache, loss, run
    from calltune.training.memory_plan import Limits, Machine, Planner
    from calltune.training.model_shape import float_bytes, shape_of
    from calltune.training.packed_lora import SHARED_INPUT_GROUPS

    is_cpu = device == "cpu"
    model = _unread(folder)
    number_bytes = 4 if is_cpu else float_bytes(model)
    shape = shape_of(model, read_json(folder / "config.json"), SHARED_INPUT_GROUPS, number_bytes)
    limits = Limits(
        kept_positions=run.KEPT_POSITIONS,
        valid_positions=run.VALID_POSITIONS,
        bulk_positions=activation_cache.MAX_BATCH_POSITIONS,
        chunk_logits=loss.CHUNK_LOGITS,
        fill_bytes=run.FILL_BYTES,
        cache_share=activation_cache.MAX_MEMORY_SHARE,
    )
    is_lora = options.fine_tune_type in ("lora", "rslora") and not options.modules
    machine = Machine(
        is_eager=is_cpu,
        number_bytes=number_bytes,
        memory=memory,
        is_fused=device == "cuda" and is_lora and not options.dropout,
    )
    planner = Planner(shape, machine, limits, FINE if is_cpu else COARSE)
    if options.compute != "auto":
        return planner, options.compute == "dense"
    stored = shape.n_layers * shape.layer_bytes + shape.outside_bytes
    return planner, is_cpu or (device == "cuda" and 4 * stored <= memory / 2)


def _unread(folder: Path) -> Any:
    """The model with its weights' names and shapes; the weights are not read."""
    from mlx_lm.utils import load_model

    try:
        return load_model(folder, lazy=True)[0]
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ModelNotFound(
            f"The model in {folder} cannot be loaded ({str(error).splitlines()[0][:200]}); check "
            "that its files are whole and that mlx_lm knows its model_type"
        ) from error


def _choices(options: Any, n_layers: int, n_rows: int, is_dense: bool) -> Any:
    from calltune.training.memory_plan import Choices

    if options.num_layers > n_layers:
        raise OptionError(
            f"--num-layers is {options.num_layers}, but the model has {n_layers} layers; "
            "give that many or fewer, or -1 for all"
        )
    steps = options.iters
    if options.epochs is not None:
        steps = options.epochs * -(-n_rows // options.batch_size)
    return Choices(
        batch_size=options.batch_size,
        n_trained=n_layers if options.num_layers == -1 else options.num_layers,
        rank=options.rank,
        kind=options.fine_tune_type,
        modules=options.modules,
        has_dropout=options.dropout > 0,
        grad_checkpoint=options.grad_checkpoint,
        prefix_cache=options.prefix_cache,
        is_dense=is_dense,
        iters=steps,
        seed=options.seed,
    )


def _show(planner: Any, rows: Any, chosen: Any, folder: Path) -> None:
    from calltune.training.suggestions import suggest_changes

    plan = planner.plan(rows, chosen)
    print(f"{folder.name}: predicted peak {_gb(plan.peak)}, while {plan.largest.name}\n")
    for phase in plan.phases:
        print(f"{phase.name:<44}{_gb(phase.n_bytes):>10}")
        for part in phase.parts:
            if part.n_bytes and len(phase.parts) > 1:
                print(f"  {part.name:<42}{_gb(part.n_bytes):>10}")
    limit = planner.machine.memory - (PROGRAM_BYTES if planner.machine.is_eager else 0)
    print(f"\nA run may use {_gb(limit)}: {_verdict(plan.peak, limit)}")
    if plan.peak > limit:
        for found in suggest_changes(planner, rows, chosen, limit):
            fits = "fits" if found.plan.peak <= limit else "does not fit"
            print(f"  {found.option:<26}{_gb(found.plan.peak):>9}, {fits}; {found.cost}")


def _verdict(peak: int, limit: int) -> str:
    if peak > limit:
        return "it does not fit. Each of these alone would need"
    is_close = peak * (1 + DOUBT) > limit
    return "it just fits; the prediction may be 15 % off" if is_close else "it fits"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
