"""Prepared rows as tokens, and batches of rows of similar length.

`tokenize` is where a row becomes tokens, `collate` where rows become arrays. Pure NumPy: nothing
here imports MLX.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from calltune.data.prepared import PreparedRow, read_prepared
from calltune.errors import DataError, OptionError
from calltune.files import read_lines
from calltune.formats import FORMATS, Format


@dataclass(frozen=True, slots=True)
class Buckets:
    """The shapes that batches are padded to, so that few different shapes occur."""

    steps_per_octave: int | None
    """Number of lengths between a power of two and the next; None allows every multiple of 32."""
    pads_rows: bool
    """Whether a batch with fewer rows than the batch size is filled up with empty rows."""

    def length(self, count: int) -> int:
        """The padded length of a row with `count` positions: at least 32."""
        return self._round(count, 32)

    def targets(self, count: int) -> int:
        """The padded number of trained positions, for `count` of them: at least 64."""
        return self._round(count, 64)

    def _round(self, count: int, minimum: int) -> int:
        step = minimum
        if self.steps_per_octave is not None:
            octave = 1 << max(0, count - 1).bit_length()
            step = max(minimum, octave // 2 // self.steps_per_octave)
        return max(1, -(-count // step)) * step


FINE = Buckets(None, pads_rows=False)
"""For backends where a new shape costs nothing (CPU): little padding."""
COARSE = Buckets(4, pads_rows=True)
"""For compiled steps (GPU): each new shape is traced once, which takes longer than many steps."""


class Tokenizer(Protocol):
    """The methods of a transformers tokenizer that are used here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of `text`."""

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of one token, the unknown token's id (or None) where there is no such token."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A row as token ids: `tokens[:completion_start]` is the prompt, the rest is trained on."""

    id: str
    tokens: tuple[int, ...]
    completion_start: int


Row = TypeVar("Row", PreparedRow, TokenRow)


class Splits(NamedTuple, Generic[Row]):
    """The rows to train on and those to validate on, as prep wrote them or as tokens."""

    train: Sequence[Row]
    valid: Sequence[Row]


class Tokenized(NamedTuple):
    """The rows that fit, and the ids of the rows that are too long."""

    rows: list[TokenRow]
    too_long: list[str]


class Batch(NamedTuple):
    """Rows of similar length, padded at the end: B rows, L positions in each, T trained tokens."""

    rows: tuple[TokenRow, ...]
    """The rows in the batch, at most B of them."""
    inputs: NDArray[np.int32]
    """(B, L): token ids."""
    positions: NDArray[np.int32]
    """(T,): indexes into the B * L positions, of those whose next token is trained on."""
    targets: NDArray[np.int32]
    """(T,): the tokens after those positions."""
    weights: NDArray[np.float32]
    """(T,): 1 for a target, 0 for padding."""
    n_tokens: int
    """Tokens in the rows, prompts included and padding not."""

    @property
    def n_trained(self) -> int:
        """Number of tokens that are trained on."""
        return sum(len(row.tokens) - row.completion_start for row in self.rows)


def read_splits(folder: Path) -> Splits[PreparedRow]:
    """The rows that prep wrote to train.jsonl and valid.jsonl in `folder`.

    A data set may be too small to have any rows to validate on: valid.jsonl may be missing or
    empty.

    Raises:
        DataError: train.jsonl is missing or empty, or a line was not written by prep.
    """
    valid = folder / "valid.jsonl"
    has_valid = valid.exists() and any(read_lines(valid))
    return Splits(read_prepared(folder / "train.jsonl"), read_prepared(valid) if has_valid else [])


def check_control_tokens(tokenizer: Tokenizer, prompt_format: Format, model: str) -> None:
    """Refuse a model whose tokenizer lacks the prompt format's control tokens.

    Raises:
        OptionError: a stop or BOS token of the format is not one token of the tokenizer.
    """
    for marker in filter(None, [prompt_format.bos, prompt_format.stop_tokens[0]]):
        if len(tokenizer.encode(marker, add_special_tokens=False)) != 1:
            raise OptionError(
                f"{model} has no token {marker}, which the rows' format {prompt_format.name} "
                "needs; prepare with another --format"
            )


def prompt_tokens(tokenizer: Tokenizer, prompt: str, prompt_format: Format) -> list[int]:
    """The prompt's token ids, with the prompt format's BOS token in front exactly once."""
    tokens = tokenizer.encode(prompt, add_special_tokens=False)
    if prompt_format.bos:
        bos = tokenizer.convert_tokens_to_ids(prompt_format.bos)
        if tokens[:1] != [bos]:
            assert bos is not None, prompt_format.bos
            tokens = [bos, *tokens]
    return tokens


def tokenize(
    rows: Sequence[PreparedRow], tokenizer: Tokenizer, max_seq_length: int | None = None
) -> Tokenized:
    """The rows as token ids; a row longer than `max_seq_length` tokens is left out, not truncated.

    Prompt and completion are encoded separately, so that the prompt's tokens are the ones that
    generation starts from. Without `max_seq_length` every row fits.
    """
    fitting, too_long = [], []
    for row in rows:
        prompt = prompt_tokens(tokenizer, row.prompt, FORMATS[row.format])
        completion = tokenizer.encode(row.completion, add_special_tokens=False)
        if max_seq_length is not None and len(prompt) + len(completion) > max_seq_length:
            too_long.append(row.id)
        else:
            fitting.append(TokenRow(row.id, (*prompt, *completion), len(prompt)))
    return Tokenized(fitting, too_long)


def tokenize_splits(
    splits: Splits[PreparedRow], tokenizer: Tokenizer, max_seq_length: int, folder: Path
) -> Splits[TokenRow]:
    """Both splits as tokens; rows that are too long are left out, and a line says how many.

    `folder` is where the rows came from, for the error.

    Raises:
        DataError: every training row is longer than `max_seq_length` tokens.
    """
    train, valid = (
        _tokenize_split(rows, tokenizer, max_seq_length, name)
        for name, rows in zip(("train", "valid"), splits, strict=True)
    )
    if not train:
        raise DataError(
            f"Every row of {folder / 'train.jsonl'} is longer than {max_seq_length} tokens; "
            "raise --max-seq-length"
        )
    return Splits(train, valid)


def _tokenize_split(
    rows: Sequence[PreparedRow], tokenizer: Tokenizer, max_seq_length: int, name: str
) -> list[TokenRow]:
    tokenized = tokenize(rows, tokenizer, max_seq_length)
    if tokenized.too_long:
        print(
            f"Left out {len(tokenized.too_long)} of {len(rows)} {name} rows, longer than "
            f"{max_seq_length} tokens (first: {tokenized.too_long[0]})"
        )
    return tokenized.rows


def epoch(
    rows: Sequence[TokenRow], batch_size: int, seed: int, number: int, buckets: Buckets = FINE
) -> list[list[TokenRow]]:
    """Every row once, in batches of rows of similar length, the batches in random order.

    The order depends on the seed and on the epoch's number, counted from 0, alone. Rows are
    shuffled before they are sorted by padded length, so that rows of equal length are batched
    differently in each epoch. One batch may hold fewer rows; no row is dropped.
    """
    rng = np.random.default_rng([seed, number])
    order = sorted(
        rng.permutation(len(rows)).tolist(), key=lambda i: buckets.length(len(rows[i].tokens) - 1)
    )
    starts = range(0, len(order), batch_size)
    chosen = [order[first : first + batch_size] for first in starts]
    return [[rows[i] for i in chosen[j]] for j in rng.permutation(len(chosen)).tolist()]


def batches_by_length(rows: Sequence[TokenRow], max_positions: int) -> Iterator[list[TokenRow]]:
    """Every row once, shortest first, in batches of at most `max_positions` tokens, or one row."""
    batch: list[TokenRow] = []
    for row in sorted(rows, key=lambda row: (len(row.tokens), row.tokens)):
        if batch and (len(batch) + 1) * len(row.tokens) > max_positions:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def collate(rows: Sequence[TokenRow], buckets: Buckets = FINE, batch_size: int = 0) -> Batch:
    """The rows padded into one batch, of `batch_size` rows where `buckets` pads rows."""
    length = buckets.length(max((len(row.tokens) - 1 for row in rows), default=1))
    n_rows = max(len(rows), batch_size if buckets.pads_rows else 1)
    inputs = np.zeros((n_rows, length), np.int32)
    positions: list[int] = []
    targets: list[int] = []
    for index, row in enumerate(rows):
        inputs[index, : len(row.tokens) - 1] = row.tokens[:-1]
        # The token at t is predicted from position t - 1.
        first, last = row.completion_start - 1, len(row.tokens) - 1
        positions.extend(range(index * length + first, index * length + last))
        targets.extend(row.tokens[row.completion_start :])
    padding = buckets.targets(len(targets)) - len(targets)
    return Batch(
        tuple(rows),
        inputs,
        np.array(positions + [0] * padding, np.int32),
        np.array(targets + [0] * padding, np.int32),
        np.array([1.0] * len(targets) + [0.0] * padding, np.float32),
        sum(len(row.tokens) for row in rows),
    )
