"""Rows as prep writes them -> tokens -> batches of rows of like length.

Source of the row layout: `stages/prep.py`. Pure numpy: nothing here knows MLX.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from calltune.data.prepared import PreparedRow
from calltune.errors import OptionError
from calltune.formats import FORMATS, Format


@dataclass(frozen=True, slots=True)
class Buckets:
    """The shapes that batches are rounded up to."""

    steps_per_octave: int | None
    """Lengths between a power of two and the next; None takes every multiple of 32."""
    pads_rows: bool
    """A batch of fewer rows is filled up with empty ones."""

    def length(self, count: int) -> int:
        """The length for `count` positions: 32 at least."""
        return self._round(count, 32)

    def targets(self, count: int) -> int:
        """The number of trained positions for `count` of them: 64 at least."""
        return self._round(count, 64)

    def _round(self, count: int, least: int) -> int:
        step = least
        if self.steps_per_octave is not None:
            octave = 1 << max(0, count - 1).bit_length()
            step = max(least, octave // 2 // self.steps_per_octave)
        return max(1, -(-count // step)) * step


FINE = Buckets(None, pads_rows=False)
"""For backends where a new shape costs nothing: little padding."""
COARSE = Buckets(4, pads_rows=True)
"""For compiled steps: each new shape is traced once, which takes longer than many steps."""


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of `text`."""

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of one token, the unknown token's id (or None) where there is no such token."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One row as tokens: tokens[:completion_start] is the prompt, the rest is trained on."""

    id: str
    tokens: tuple[int, ...]
    completion_start: int


class Tokenized(NamedTuple):
    """The rows that fit, and the ids of those that are too long."""

    rows: list[TokenRow]
    too_long: list[str]


class Batch(NamedTuple):
    """Rows of like length, padded at the end.

    rows the B' <= B rows that are in it; inputs (B, L) int32 token ids; positions (T,) int32
    indexes into the B * L positions whose next token is trained on; targets (T,) int32 those next
    tokens; weights (T,) float32, 1 for a target and 0 for what pads T up; n_tokens the real
    tokens in the batch, prompts included.
    """

    rows: tuple[TokenRow, ...]
    inputs: NDArray[np.int32]
    positions: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    n_tokens: int

    @property
    def n_trained(self) -> int:
        """The tokens that are trained on."""
        return sum(len(row.tokens) - row.completion_start for row in self.rows)


def check_control_tokens(tokenizer: Tokenizer, prompt_format: Format, model: str) -> None:
    """Refuse a model whose tokenizer does not know the format's control tokens.

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
    """The prompt's tokens, with the family's BOS in front exactly once."""
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
    """Rows as tokens; a row longer than `max_seq_length` tokens is left out whole, never cut.

    Prompt and completion are encoded apart, so that the prompt's tokens are the ones that
    generation starts from.
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


def epoch(
    rows: Sequence[TokenRow], batch_size: int, seed: int, number: int, buckets: Buckets = FINE
) -> list[list[TokenRow]]:
    """Every row once, in batches of rows of like length, the batches in random order.

    The order depends on the seed and the epoch's number alone. Rows are shuffled before they are
    sorted by rounded length, so that equal lengths meet in new company each epoch. One batch may
    hold fewer rows; none is dropped.
    """
    rng = np.random.default_rng([seed, number])
    order = sorted(
        rng.permutation(len(rows)).tolist(), key=lambda i: buckets.length(len(rows[i].tokens) - 1)
    )
    starts = range(0, len(order), batch_size)
    chosen = [order[first : first + batch_size] for first in starts]
    return [[rows[i] for i in chosen[j]] for j in rng.permutation(len(chosen)).tolist()]


def batches_by_length(rows: Sequence[TokenRow], max_positions: int) -> Iterator[list[TokenRow]]:
    """Every row once, from short to long, in batches of at most so many positions, or one row."""
    batch: list[TokenRow] = []
    for row in sorted(rows, key=lambda row: (len(row.tokens), row.tokens)):
        if batch and (len(batch) + 1) * len(row.tokens) > max_positions:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def collate(rows: Sequence[TokenRow], buckets: Buckets = FINE, batch_size: int = 0) -> Batch:
    """Pad rows into one batch; where `buckets` pads rows, to `batch_size` of them."""
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
