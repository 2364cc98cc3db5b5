"""Rows as prep writes them -> tokens -> batches of rows of like length.

Source of the row layout: `stages/prep.py`. Pure numpy: nothing here knows MLX.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from calltune.calls import Json
from calltune.errors import DataError, OptionError
from calltune.formats import FORMATS, Format
from calltune.jsonl import read_lines

LENGTH_STEP = 32
"""Lengths are rounded up to a multiple of this, so that few shapes occur."""
TARGET_STEP = 64
"""Counts of trained tokens in a batch are rounded up to a multiple of this."""


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of `text`."""

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of one token, the unknown token's id (or None) where there is no such token."""


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """One line of train.jsonl, valid.jsonl or test.jsonl."""

    id: str
    text: str
    completion_start: int
    """Index into `text`, in characters, where the completion starts."""
    format: str
    data: dict[str, Json]
    """The whole line: also query, tools, answers, source."""

    @property
    def prompt(self) -> str:
        """The text up to the completion."""
        return self.text[: self.completion_start]

    @property
    def completion(self) -> str:
        """What the model is trained to write, its end tokens included."""
        return self.text[self.completion_start :]


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

    inputs (B, L) int32 token ids; positions (T,) int32 indexes into the B * L positions whose
    next token is trained on; targets (T,) int32 those next tokens; weights (T,) float32, 1 for a
    target and 0 for what pads T up; n_tokens the real tokens in the batch, prompts included.
    """

    inputs: NDArray[np.int32]
    positions: NDArray[np.int32]
    targets: NDArray[np.int32]
    weights: NDArray[np.float32]
    n_tokens: int


def read_prepared(path: Path) -> list[PreparedRow]:
    """The rows that prep wrote to `path`.

    Raises:
        DataError: the file is missing or empty, or a line was not written by prep.
    """
    rows = [_prepared(path, line.number, line.row) for line in read_lines(path)]
    if not rows:
        raise DataError(f"{path} has no rows; run prep again")
    return rows


def check_markers(tokenizer: Tokenizer, family: Format, model: str) -> None:
    """Refuse a model whose tokenizer does not know the format's control tokens.

    Raises:
        OptionError: a stop or BOS token of the format is not one token of the tokenizer.
    """
    for marker in filter(None, [family.bos, family.stops[0]]):
        if len(tokenizer.encode(marker, add_special_tokens=False)) != 1:
            raise OptionError(
                f"{model} has no token {marker}, which the rows' format {family.name} needs; "
                "run prep again with another --format"
            )


def prompt_tokens(tokenizer: Tokenizer, prompt: str, family: Format) -> list[int]:
    """The prompt's tokens, with the family's BOS in front exactly once."""
    tokens = tokenizer.encode(prompt, add_special_tokens=False)
    if family.bos:
        bos = tokenizer.convert_tokens_to_ids(family.bos)
        if tokens[:1] != [bos]:
            assert bos is not None, family.bos
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


def epoch(rows: Sequence[TokenRow], batch_size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Every row once, in batches of rows of like length, the batches in random order.

    Rows are shuffled before they are sorted by rounded length, so that equal lengths meet in
    new company each epoch. The last batch may hold fewer rows; none is dropped.
    """
    order = sorted(
        rng.permutation(len(rows)).tolist(), key=lambda i: _round_up(len(rows[i].tokens))
    )
    starts = range(0, len(order), batch_size)
    for start in rng.permutation(len(starts)).tolist():
        first = starts[start]
        yield collate([rows[i] for i in order[first : first + batch_size]])


def in_order(rows: Sequence[TokenRow], batch_size: int) -> Iterator[Batch]:
    """Every row once, from short to long, the same batches every time."""
    order = sorted(rows, key=lambda row: len(row.tokens))
    for first in range(0, len(order), batch_size):
        yield collate(order[first : first + batch_size])


def collate(rows: Sequence[TokenRow]) -> Batch:
    """Pad rows into one batch."""
    length = _round_up(max(len(row.tokens) for row in rows) - 1)
    inputs = np.zeros((len(rows), length), np.int32)
    positions: list[int] = []
    targets: list[int] = []
    for index, row in enumerate(rows):
        inputs[index, : len(row.tokens) - 1] = row.tokens[:-1]
        # The token at t is predicted from position t - 1.
        first, last = row.completion_start - 1, len(row.tokens) - 1
        positions.extend(range(index * length + first, index * length + last))
        targets.extend(row.tokens[row.completion_start :])
    padding = _round_up(len(targets), TARGET_STEP) - len(targets)
    return Batch(
        inputs,
        np.array(positions + [0] * padding, np.int32),
        np.array(targets + [0] * padding, np.int32),
        np.array([1.0] * len(targets) + [0.0] * padding, np.float32),
        sum(len(row.tokens) for row in rows),
    )


def _round_up(count: int, step: int = LENGTH_STEP) -> int:
    return -(-count // step) * step


def _prepared(path: Path, number: int, row: dict[str, Json]) -> PreparedRow:
    text, start = row.get("text"), row.get("completion_start")
    name, row_id = row.get("format"), row.get("id")
    if (
        not isinstance(text, str)
        or not isinstance(start, int)
        or not isinstance(row_id, str)
        or name not in FORMATS
        or not 0 < start < len(text)
    ):
        raise DataError(
            f"{path}, line {number}: not a row that prep wrote (text, completion_start, id and a "
            "known format are needed); run prep again"
        )
    return PreparedRow(row_id, text, start, name, row)
