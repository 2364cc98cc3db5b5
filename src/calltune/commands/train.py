"""train: train.jsonl and valid.jsonl -> an adapter."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calltune.files import file_digest, read_json, write_json
from calltune.provenance import describe, options_to_json
from calltune.terminal_text import Heartbeat
from calltune.training.options import LARGE_BATCH, TrainOptions
from calltune.types import Json

__all__ = ["TrainOptions", "run"]

RUN_FILE = "run.json"
"""Written last: an adapter that has one is whole."""

UNFINGERPRINTED = ("steps_per_report", "report_to", "keep_checkpoints")
"""Options that change nothing about what is trained."""


def run(options: TrainOptions) -> Path:
    """Train, and write the adapter; its folder.

    The folder gets adapters.safetensors and adapter_config.json as mlx_lm writes them, numbered
    checkpoints, best/ (the adapter with the lowest validation loss), metrics.jsonl, run.json, and
    state/ with weights and optimizer state as they are at the newest checkpoint. An adapter that
    was made with the same options from the same rows is kept as it is; a run that was killed
    resumes at its last checkpoint, and ends with the same weights.

    Raises:
        OptionError: the options do not fit the model, the rows or this machine.
        DataError: the rows are missing, broken or all too long.
        ModelNotFound: the model, or the adapter to start from, is missing or broken.
        FetchError: the model could not be fetched.
        OutputError: a file cannot be written; checkpoints written before are kept.
        Diverged: a loss is not finite; checkpoints written before are kept.
    """
    from calltune.data.batching import read_splits

    prepared, fingerprint = read_splits(options.data), run_fingerprint(options)
    with rank0_output():
        if _is_done(options.adapter_path, fingerprint):
            print(
                f"{options.adapter_path} was trained with these options on these rows; "
                "delete it to train again"
            )
            return options.adapter_path
        started = time.perf_counter()
        if _train(prepared, options, fingerprint):
            run_record = fingerprint | describe() | {"seconds": time.perf_counter() - started}
            write_json(options.adapter_path / RUN_FILE, run_record)
        print(f"Saved the adapter to {options.adapter_path}")
    return options.adapter_path


def run_fingerprint(options: TrainOptions) -> dict[str, Json]:
    """What decides the weights of a run: its options and its rows."""
    files = [options.data / "train.jsonl", options.data / "valid.jsonl"]
    digests = {file.name: file_digest(file) for file in files if file.exists()}
    chosen = options_to_json(options)
    return {
        "options": {name: value for name, value in chosen.items() if name not in UNFINGERPRINTED},
        "data_sha256": digests,
    }


def _is_done(adapter_path: Path, fingerprint: dict[str, Json]) -> bool:
    record = adapter_path / RUN_FILE
    if not record.exists():
        return False
    recorded = read_json(record)
    return all(recorded.get(key) == value for key, value in fingerprint.items())


@contextlib.contextmanager
def rank0_output() -> Iterator[None]:
    """Print in the first of several processes only."""
    if os.environ.get("MLX_RANK", "0") == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _train(prepared: Any, options: TrainOptions, fingerprint: dict[str, Json]) -> bool:
    """Train; whether this process is the one that writes."""
    from calltune.models.backend import choose, print_backend

    backend = choose(options.device, is_step_small=options.batch_size < LARGE_BATCH)
    print_backend(backend)

    from calltune.data.batching import check_control_tokens, tokenize_splits
    from calltune.formats import FORMATS
    from calltune.models.loading import load
    from calltune.training import saving
    from calltune.training.dry_run import measure
    from calltune.training.run import build_run

    machine = measure(backend)
    loaded = load(options.model, backend, compute=options.compute)
    prompt_format = FORMATS[prepared.train[0].format]
    check_control_tokens(loaded.tokenizer, prompt_format, options.model)
    with Heartbeat("tokenizing the rows"):
        rows = tokenize_splits(prepared, loaded.tokenizer, options.max_seq_length, options.data)
    _print_rows(rows)
    training = build_run(loaded, rows, options, machine)
    saving.train(training, fingerprint, options_to_json(options) | {"format": prompt_format.name})
    return training.group.is_rank0


def _print_rows(rows: Any) -> None:
    n_tokens = sum(len(row.tokens) for row in rows.train)
    n_trained = sum(len(row.tokens) - row.completion_start for row in rows.train)
    print(
        f"Training on {len(rows.train)} rows of {n_tokens / len(rows.train):.0f} tokens on "
        f"average, {n_trained / n_tokens:.0%} of them trained on; "
        f"{len(rows.valid)} rows to validate on"
    )
