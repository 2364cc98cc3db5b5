"""Token rows in one file, so that a machine without network or tokenizer can train on them."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "valid")


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row: tokens[:completion_start] is the prompt, the rest is trained on."""

    tokens: NDArray[np.int32]
    completion_start: int


class Rows(NamedTuple):
    """The rows that fit, and how many were left out as too long."""

    train: list[Row]
    valid: list[Row]
    left_out: int


def write_rows(path: Path, train: list[Row], valid: list[Row]) -> None:
    """Write both splits to one .npz file, tokens end to end with their lengths beside them."""
    arrays: dict[str, NDArray[np.int32]] = {}
    for split, rows in zip(SPLITS, (train, valid), strict=True):
        arrays[f"{split}_tokens"] = np.concatenate([row.tokens for row in rows]).astype(np.int32)
        arrays[f"{split}_lengths"] = np.array([len(row.tokens) for row in rows], np.int32)
        starts = [row.completion_start for row in rows]
        arrays[f"{split}_completion_starts"] = np.array(starts, np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_rows(path: Path, max_seq_length: int, n_valid: int, n_train: int | None = None) -> Rows:
    """The rows of at most `max_seq_length` tokens: the first `n_train` and `n_valid` of them.

    Longer rows are left out whole for every engine, so that all train on the same ones.
    """
    with np.load(path) as file:
        every = {split: _split(file, split) for split in SPLITS}
    fitting = {
        split: [row for row in rows if len(row.tokens) <= max_seq_length]
        for split, rows in every.items()
    }
    left_out = len(every["train"]) - len(fitting["train"])
    return Rows(fitting["train"][:n_train], fitting["valid"][:n_valid], left_out)


def cut(rows: list[Row], n_tokens: int) -> list[Row]:
    """Rows of the first `n_tokens` tokens, all of them trained on.

    For an engine that cannot finish whole rows: shorter ones have less attention to compute, so
    its tokens per second come out too high rather than too low.
    """
    return [Row(row.tokens[:n_tokens], 1) for row in rows if len(row.tokens) >= n_tokens]


def describe_rows(rows: list[Row]) -> str:
    """Count, median, longest and share trained on, in one line."""
    lengths = np.array([len(row.tokens) for row in rows])
    trained = sum(len(row.tokens) - row.completion_start for row in rows)
    return (
        f"{len(rows)} rows, median {np.median(lengths):.0f} tokens, mean {lengths.mean():.0f}, "
        f"longest {lengths.max()}, {trained / lengths.sum():.1%} trained on"
    )


def _split(file: "np.lib.npyio.NpzFile", split: str) -> list[Row]:
    lengths = file[f"{split}_lengths"]
    tokens = np.split(file[f"{split}_tokens"], np.cumsum(lengths)[:-1])
    starts = file[f"{split}_completion_starts"].tolist()
    return [Row(row, start) for row, start in zip(tokens, starts, strict=True)]
