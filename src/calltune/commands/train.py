"""train: train.jsonl and valid.jsonl -> an adapter."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from calltune.errors import DataError, OptionError
from calltune.files import file_digest, read_json, read_lines, write_json
from calltune.provenance import describe, options_to_json
from calltune.types import Json

RUN_FILE = "run.json"
"""Written last, so that it speaks for a whole adapter."""

LARGE_BATCH = 8
"""From so many rows on a GPU has more to do than the host that queues its work (dev/LOG.md)."""

SHOWN_ONLY = ("steps_per_report", "report_to", "keep_checkpoints")
"""Options that change nothing about what is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Options of `calltune train`: those of `mlx_lm lora`, with the manual's values, and more."""

    model: str = "mlx-community/gemma-3-1b-it-4bit"
    """Hub id, folder, .gguf file or pip:NAME of the base model."""
    train: bool = True
    """Taken for mlx_lm's sake: this command always trains."""
    data: Path = Path("data/training")
    """Folder with the train.jsonl and valid.jsonl that prep wrote."""
    iters: int = 500
    """Number of training steps."""
    epochs: int | None = None
    """Passes over the training rows, instead of --iters."""
    val_batches: int = 20
    """Validation rows, in batches of --batch-size, always the same rows; -1 uses them all."""
    learning_rate: float = 1e-4
    """Adam's learning rate, the highest of the schedule."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after the warm-up; linear and cosine end at 0."""
    warmup_steps: int = 0
    """Updates over which the learning rate rises from 0."""
    batch_size: int = 2
    """Rows in a step, those of all processes together."""
    grad_accumulation_steps: int = 1
    """Steps whose gradients make one update; each trained token counts the same."""
    max_grad_norm: float = 0.0
    """Gradients with a larger norm are scaled down to it; 0 leaves them."""
    num_layers: int = 8
    """Layers that are trained, counted from the top; -1 is all."""
    fine_tune_type: Literal["lora", "rslora", "dora", "full"] = "lora"
    """What is trained."""
    rank: int = 8
    """LoRA rank."""
    scale: float = 20.0
    """LoRA scale, as mlx_lm means it; rslora divides it by the root of the rank."""
    dropout: float = 0.0
    """LoRA dropout."""
    modules: tuple[str, ...] = ()
    """Linear layers that get LoRA, such as q_proj v_proj; all of them where none is named."""
    max_seq_length: int = 2048
    """Rows longer than this many tokens are left out and counted, never cut."""
    prefix_cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where the frozen layers' output for each row is kept; disk keeps it for later runs."""
    compute: Literal["auto", "quantized", "dense"] = "auto"
    """Whether a quantised model's weights are dequantised while training; auto does it on CPU and
    CUDA, where dense products are faster. The adapter is the same model's either way."""
    grad_checkpoint: bool = True
    """Recompute the activations of large batches in the backward pass: less memory, more time; on
    the CPU it would take more memory, and is left undone."""
    steps_per_report: int = 10
    """Report the training loss every so many steps."""
    steps_per_eval: int = 200
    """Validate every so many steps, before the first and after the last."""
    patience: int = 0
    """End after so many validations without a new best; 0 trains to the end."""
    save_every: int = 100
    """Save a checkpoint every so many steps."""
    keep_checkpoints: int = 3
    """Numbered checkpoints that are kept, the newest ones."""
    adapter_path: Path = Path("gemma-3-1b-function-calling-4bit")
    """Folder for the adapter."""
    resume_adapter_file: Path | None = None
    """Start from the weights in this adapters.safetensors."""
    seed: int = 42
    """Random seed of the adapter's first weights and of the order of the rows."""
    report_to: tuple[str, ...] = ()
    """Send metrics to tensorboard, wandb or trackio as well, through their own libraries."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        least = {"iters": 1, "batch_size": 1, "save_every": 1, "rank": 1, "max_seq_length": 2}
        least |= {"steps_per_report": 1, "steps_per_eval": 1, "grad_accumulation_steps": 1}
        least |= {"warmup_steps": 0, "max_grad_norm": 0, "patience": 0, "keep_checkpoints": 1}
        least |= {"epochs": 1, "val_batches": -1, "dropout": 0}
        for name, minimum in least.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise OptionError(f"--{name} is {value}; it must be at least {minimum}")
        if self.num_layers == 0 or self.num_layers < -1:
            raise OptionError(f"--num-layers is {self.num_layers}; give 1 or more, or -1 for all")
        if not self.learning_rate > 0:
            raise OptionError(f"--learning-rate is {self.learning_rate}; it must be above 0")
        if self.dropout >= 1:
            raise OptionError(f"--dropout is {self.dropout}; it must be below 1")


def run(options: TrainOptions) -> Path:
    """Train, and write the adapter; its folder.

    The folder gets adapters.safetensors and adapter_config.json as mlx_lm writes them, numbered
    checkpoints, best/ (the adapter with the lowest validation loss), metrics.jsonl, run.json, and
    state/ with weights and optimiser state as they are at the newest checkpoint. An adapter that
    was made with the same options from the same rows is kept as it is; a run that was killed goes
    on where its last checkpoint was, and ends with the same weights.
    """
    rows, run_fingerprint = _read(options.data), _run_fingerprint(options)
    with rank0_output():
        if _is_done(options.adapter_path, run_fingerprint):
            print(
                f"{options.adapter_path} was trained with these options on these rows; "
                "delete it to train again"
            )
            return options.adapter_path
        started = time.perf_counter()
        is_first = _train(rows, options, run_fingerprint)
        if is_first:
            run_record = run_fingerprint | describe() | {"seconds": time.perf_counter() - started}
            write_json(options.adapter_path / RUN_FILE, run_record)
        print(f"Saved the adapter to {options.adapter_path}")
    return options.adapter_path


class _Rows(NamedTuple):
    """Rows as prep wrote them, or as tokens."""

    train: list[Any]
    valid: list[Any]


def _read(data: Path) -> _Rows:
    """The rows that prep wrote; a data set may be too small to have any to validate on."""
    from calltune.data.prepared import read_prepared

    valid = data / "valid.jsonl"
    has_valid = valid.exists() and any(read_lines(valid))
    return _Rows(read_prepared(data / "train.jsonl"), read_prepared(valid) if has_valid else [])


def _run_fingerprint(options: TrainOptions) -> dict[str, Json]:
    """What decides the weights of a run: its options and its rows."""
    files = [options.data / "train.jsonl", options.data / "valid.jsonl"]
    digests = {file.name: file_digest(file) for file in files if file.exists()}
    chosen = options_to_json(options)
    return {
        "options": {name: value for name, value in chosen.items() if name not in SHOWN_ONLY},
        "data_sha256": digests,
    }


def _is_done(adapter_path: Path, run_fingerprint: dict[str, Json]) -> bool:
    record = adapter_path / RUN_FILE
    if not record.exists():
        return False
    recorded = read_json(record)
    return all(recorded.get(key) == value for key, value in run_fingerprint.items())


@contextlib.contextmanager
def rank0_output() -> Iterator[None]:
    """Print in the first of several processes only."""
    if os.environ.get("MLX_RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _train(rows: _Rows, options: TrainOptions, run_fingerprint: dict[str, Json]) -> bool:
    """Train; whether this process is the one that writes."""
    from calltune.models.backend import choose, print_backend

    backend = choose(options.device, is_step_small=options.batch_size < LARGE_BATCH)
    print_backend(backend)

    from calltune.data.batching import check_control_tokens
    from calltune.formats import FORMATS
    from calltune.models.loading import load
    from calltune.training.run import Session

    loaded = load(options.model, backend, compute=options.compute)
    prompt_format = FORMATS[rows.train[0].format]
    check_control_tokens(loaded.tokenizer, prompt_format, options.model)
    tokens = _Rows(
        _fitting(rows.train, loaded.tokenizer, options, "train"),
        _fitting(rows.valid, loaded.tokenizer, options, "valid"),
    )
    if not tokens.train:
        raise DataError(
            f"Every row of {options.data / 'train.jsonl'} is longer than "
            f"{options.max_seq_length} tokens; raise --max-seq-length"
        )
    _print_rows(tokens)
    session = Session(loaded, backend, _settings(options), run_fingerprint)
    session.run(
        tokens.train, tokens.valid, options_to_json(options) | {"format": prompt_format.name}
    )
    return session.group.is_rank0


def _fitting(rows: Sequence[Any], tokenizer: Any, options: TrainOptions, name: str) -> list[Any]:
    from calltune.data.batching import tokenize

    tokenized = tokenize(rows, tokenizer, options.max_seq_length)
    if tokenized.too_long:
        print(
            f"Left out {len(tokenized.too_long)} of {len(rows)} {name} rows, longer than "
            f"{options.max_seq_length} tokens (first: {tokenized.too_long[0]})"
        )
    return tokenized.rows


def _print_rows(rows: _Rows) -> None:
    n_tokens = sum(len(row.tokens) for row in rows.train)
    n_trained = sum(len(row.tokens) - row.completion_start for row in rows.train)
    print(
        f"Training on {len(rows.train)} rows of {n_tokens / len(rows.train):.0f} tokens on "
        f"average, {n_trained / n_tokens:.0%} of them trained on; "
        f"{len(rows.valid)} rows to validate on"
    )


def _settings(options: TrainOptions) -> Any:
    """The session's settings: the options of the same names."""
    from dataclasses import fields

    from calltune.training.run import Settings

    shared = {field.name for field in fields(Settings)}
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return Settings(**{name: value for name, value in values.items() if name in shared})
