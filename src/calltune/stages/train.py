"""train: train.jsonl and valid.jsonl -> an adapter."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calltune.calls import Json
from calltune.errors import DataError, OptionError
from calltune.jsonl import file_digest, output_error, read_json, write_json
from calltune.runs import describe, options_to_json

RUN_FILE = "run.json"
"""Written last, so that it speaks for a whole adapter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Options of `calltune train`: those of `mlx_lm lora`, with the manual's values."""

    model: str = "mlx-community/gemma-3-1b-it-4bit"
    """Hub id, folder, .gguf file or pip:NAME of the base model."""
    train: bool = True
    """Taken for mlx_lm's sake: this command always trains."""
    data: Path = Path("data/training")
    """Folder with the train.jsonl and valid.jsonl that prep wrote."""
    iters: int = 500
    """Number of training steps."""
    val_batches: int = 20
    """Validation batches, always the same rows; -1 uses them all."""
    learning_rate: float = 1e-4
    """Adam's learning rate."""
    batch_size: int = 2
    """Rows in a step."""
    num_layers: int = 8
    """Layers that get LoRA, counted from the top; -1 is all."""
    save_every: int = 100
    """Save a checkpoint every so many steps."""
    adapter_path: Path = Path("gemma-3-1b-function-calling-4bit")
    """Folder for the adapter."""
    resume_adapter_file: Path | None = None
    """Start from the weights in this adapters.safetensors."""
    grad_checkpoint: bool = True
    """Recompute activations in the backward pass: less memory, more time."""
    seed: int = 42
    """Random seed of the adapter's first weights and of the order of the rows."""
    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    """What is trained."""
    rank: int = 8
    """LoRA rank."""
    scale: float = 20.0
    """LoRA scale, as mlx_lm means it."""
    dropout: float = 0.0
    """LoRA dropout."""
    steps_per_report: int = 10
    """Report the training loss every so many steps."""
    steps_per_eval: int = 200
    """Validate every so many steps, and at the first and last."""
    max_seq_length: int = 2048
    """Rows longer than this many tokens are left out and counted, never cut."""
    grad_accumulation_steps: int = 1
    """Steps whose gradients make one update."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        least = {"iters": 1, "batch_size": 1, "save_every": 1, "rank": 1, "max_seq_length": 2}
        least |= {"steps_per_report": 1, "steps_per_eval": 1, "grad_accumulation_steps": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise OptionError(f"--{name} is {getattr(self, name)}; it must be at least {value}")
        if self.num_layers == 0 or self.num_layers < -1:
            raise OptionError(f"--num-layers is {self.num_layers}; give 1 or more, or -1 for all")
        if not self.learning_rate > 0:
            raise OptionError(f"--learning-rate is {self.learning_rate}; it must be above 0")


def run(options: TrainOptions) -> Path:
    """Train, and write the adapter; its folder.

    The folder gets adapters.safetensors and adapter_config.json as mlx_lm writes them, numbered
    checkpoints, metrics.jsonl and run.json. An adapter that was made with the same options from
    the same rows is kept as it is. An earlier adapter stays until the first save.
    """
    from calltune.batches import read_prepared

    rows = read_prepared(options.data / "train.jsonl")
    valid_file = options.data / "valid.jsonl"
    valid = read_prepared(valid_file) if valid_file.exists() else []
    made_from = _made_from(options)
    if _is_done(options.adapter_path, made_from):
        print(
            f"{options.adapter_path} was trained with these options on these rows; "
            "delete it to train again"
        )
        return options.adapter_path
    started = time.perf_counter()
    _train(rows, valid, options)
    run_record = made_from | describe() | {"seconds": time.perf_counter() - started}
    write_json(options.adapter_path / RUN_FILE, run_record)
    print(f"Saved the adapter to {options.adapter_path}")
    return options.adapter_path


def _made_from(options: TrainOptions) -> dict[str, Json]:
    files = [options.data / "train.jsonl", options.data / "valid.jsonl"]
    digests = {file.name: file_digest(file) for file in files if file.exists()}
    return {"options": options_to_json(options), "data_sha256": digests}


def _is_done(adapter_path: Path, made_from: dict[str, Json]) -> bool:
    record = adapter_path / RUN_FILE
    if not record.exists():
        return False
    recorded = read_json(record)
    return all(recorded.get(key) == value for key, value in made_from.items())


def _train(rows: list[Any], valid: list[Any], options: TrainOptions) -> None:
    from calltune.models.backend import announce, choose

    backend = choose(options.device)
    announce(backend)

    from calltune.batches import check_markers
    from calltune.formats import FORMATS
    from calltune.models.load import load

    loaded = load(options.model, backend)
    family = FORMATS[rows[0].format]
    check_markers(loaded.tokenizer, family, options.model)
    train_rows = _fitting(rows, loaded.tokenizer, options, "train")
    valid_rows = _fitting(valid, loaded.tokenizer, options, "valid")
    if not train_rows:
        raise DataError(
            f"Every row of {options.data / 'train.jsonl'} is longer than "
            f"{options.max_seq_length} tokens; raise --max-seq-length"
        )
    _print_rows(train_rows, valid_rows)
    _fit(loaded.model, train_rows, valid_rows, options, family.name)


def _fitting(rows: Sequence[Any], tokenizer: Any, options: TrainOptions, name: str) -> list[Any]:
    from calltune.batches import tokenize

    tokenized = tokenize(rows, tokenizer, options.max_seq_length)
    if tokenized.too_long:
        print(
            f"Left out {len(tokenized.too_long)} of {len(rows)} {name} rows, longer than "
            f"{options.max_seq_length} tokens (first: {tokenized.too_long[0]})"
        )
    return tokenized.rows


def _print_rows(rows: Sequence[Any], valid: Sequence[Any]) -> None:
    n_tokens = sum(len(row.tokens) for row in rows)
    n_trained = sum(len(row.tokens) - row.completion_start for row in rows)
    print(
        f"Training on {len(rows)} rows of {n_tokens / len(rows):.0f} tokens on average, "
        f"{n_trained / n_tokens:.0%} of them trained on; {len(valid)} rows to validate on"
    )


def _fit(model: Any, rows: list[Any], valid: list[Any], options: TrainOptions, family: str) -> None:
    from calltune.tune import adapter
    from calltune.tune.loop import train
    from calltune.tune.progress import Progress

    shape = adapter.AdapterShape(
        options.fine_tune_type, options.num_layers, options.rank, options.scale, options.dropout
    )
    adapter.attach(model, shape, options.seed)
    if options.resume_adapter_file is not None:
        adapter.resume(model, options.resume_adapter_file)
        print(f"Resuming from {options.resume_adapter_file}")
    config = options_to_json(options) | shape.to_json() | {"format": family}
    metrics_file = options.adapter_path / "metrics.jsonl"
    _clear_records(options.adapter_path / RUN_FILE, metrics_file)

    def save(step: int) -> None:
        numbered = step if step % options.save_every == 0 else None
        adapter.save(model, options.adapter_path, config, numbered)

    progress = Progress(options.iters, metrics_file)
    train(model, rows, valid, _schedule(options), progress, save)


def _clear_records(*files: Path) -> None:
    """Remove what an earlier run recorded: it would speak for weights that are no longer there."""
    for file in files:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(file, error) from error


def _schedule(options: TrainOptions) -> Any:
    from calltune.tune.loop import Schedule

    return Schedule(
        iters=options.iters,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        val_batches=options.val_batches,
        steps_per_report=options.steps_per_report,
        steps_per_eval=options.steps_per_eval,
        save_every=options.save_every,
        grad_accumulation_steps=options.grad_accumulation_steps,
        grad_checkpoint=options.grad_checkpoint,
        seed=options.seed,
    )
