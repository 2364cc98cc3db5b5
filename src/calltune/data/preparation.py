"""Preparation: rows of any known dataset -> prepared rows, divided into train, valid and test.

The reader of each dataset format is in `data/readers/`; which split a row goes to is decided in
`data/splits.py`; rows made of other rows come from `data/augment.py`.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from calltune.data.augment import with_random_names, without_needed_tools
from calltune.data.prepared import PreparedRow, check_row, prepare_example
from calltune.data.readers.calls import UnusableCall
from calltune.data.readers.recognise import format_name, parse
from calltune.data.splits import (
    Ratios,
    assign_groups,
    connected_groups,
    conversation_keys,
    count_unseen_tools,
    split_sizes,
    tool_identities,
)
from calltune.errors import DataError
from calltune.files import Line, dumps
from calltune.formats import FORMATS
from calltune.schemas.tools import UnusableRow, shortened
from calltune.schemas.validate import violation
from calltune.types import Example, Json, reference_call

Splits = dict[str, list[PreparedRow]]
"""The rows of train, valid and test, by the split's name."""
SplitBy = Literal["row", "tool"]
TokenCounter = Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRules:
    """How an example becomes a row, and which rows are dropped."""

    prompt_format: str
    has_bos: bool
    max_row_kb: int
    """Of the dataset's row as JSON, in units of 1,024 characters."""
    dataset_format: str = "auto"
    """The name of a reader, or auto: recognised row by row."""
    max_tokens: int | None = None
    count_tokens: TokenCounter | None = None

    def apply(self, example: Example, augmentation: str | None = None) -> PreparedRow:
        """The row of an example.

        Raises:
            UnusableRow: it holds a control token of the format, or has too many tokens.
        """
        row = prepare_example(
            example, FORMATS[self.prompt_format], self.has_bos, augmentation=augmentation
        )
        check_row(row, example.messages, self.count_tokens, self.max_tokens)
        return row


class Augmentation(NamedTuple):
    """How many rows are made of others, as shares from 0 to 1 of the rows of a split."""

    negatives: float
    """Rows without the needed tool, in every split."""
    mask_names: float
    """Rows with random names in place of their originals, in train alone."""


class RowFault(NamedTuple):
    """A row that was dropped, or one whose answer breaks its own schema."""

    place: str
    """Its line, and its id where it has one."""
    value: str
    """The value at fault, with its place in the row; truncated."""


@dataclass(slots=True)
class FormatCounts:
    """What became of the rows of one dataset format."""

    rows: int = 0
    """Rows of the dataset."""
    kept: int = 0
    """Examples that were kept; a conversation gives one for each turn that calls."""
    calling: int = 0
    """Of these: examples whose right answer is one call or more."""
    several: int = 0
    """Of those: more than one call."""
    dropped_calls: int = 0
    """Rows and examples that call something, or seem to, and were dropped."""

    @property
    def calling_nothing(self) -> int:
        """Kept examples whose right answer is to call nothing."""
        return self.kept - self.calling


@dataclass(slots=True)
class Preparation:
    """What the rows of a dataset have given, in the order of the file."""

    n_read: int = 0
    rows: list[PreparedRow] = field(default_factory=list)
    examples: dict[str, Example] = field(default_factory=dict)
    """By the ids of their rows, those made of others too."""
    origins: dict[str, int] = field(default_factory=dict)
    """The line that each example is from, by the id of its row."""
    dropped: dict[str, list[RowFault]] = field(default_factory=dict)
    """Reason -> the rows that were dropped."""
    invalid: list[RowFault] = field(default_factory=list)
    """The kept examples whose right answer breaks the schema of its own tool."""
    by_format: dict[str, FormatCounts] = field(default_factory=dict)
    """By the names of dataset formats; "unknown" has the rows of no known one."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was not understood but does no harm, and how often."""
    augmented: Counter[str] = field(default_factory=Counter)
    """How many rows of each kind were made of others, by "negative in train" and the like."""

    @property
    def n_repeated_prompts(self) -> int:
        """How many rows have a prompt that an earlier one has."""
        return len(self.rows) - len({row.prompt for row in self.rows})

    def _drop(self, fault: UnusableRow, place: str) -> None:
        self.dropped.setdefault(fault.reason, []).append(RowFault(place, fault.detail))

    def _keep(self, example: Example, row: PreparedRow, line: Line, counts: FormatCounts) -> None:
        self.rows.append(row)
        self.examples[row.id] = example
        self.origins[row.id] = line.number
        counts.kept += 1
        counts.calling += bool(example.answers)
        counts.several += len(example.answers) > 1
        if (broken := broken_schema(example)) is not None:
            self.invalid.append(RowFault(_place(line, example.id), broken))


def prepare_rows(lines: Iterable[Line], name: str, rules: RowRules) -> Preparation:
    """The prepared rows of a dataset's lines; those that cannot be used are dropped and counted.

    Args:
        lines: the dataset's rows with their line numbers.
        name: names rows that have no id of their own, as `name:line`.
        rules: how rows are written and which are dropped.

    Raises:
        DataError: a line is not JSON.
        OptionError: there is no such dataset format.
    """
    found = Preparation()
    seen: Counter[str] = Counter()
    for line in lines:
        found.n_read += 1
        format_of_row = format_name(line.row, rules.dataset_format)
        counts = found.by_format.setdefault(format_of_row, FormatCounts())
        counts.rows += 1
        try:
            _check_size(line.row, rules.max_row_kb)
            parsed = parse(line.row, f"{name}:{line.number}", rules.dataset_format)
        except UnusableRow as unusable:
            found._drop(unusable, _place(line, line.row.get("id")))
            counts.dropped_calls += isinstance(unusable, UnusableCall)
            continue
        found.notes.update(parsed.notes)
        for example in parsed.examples:
            seen[example.id] += 1
            if (nth := seen[example.id]) > 1:
                example = replace(example, id=f"{example.id}#{nth}")
            try:
                row = rules.apply(example)
            except UnusableRow as unusable:
                found._drop(unusable, _place(line, example.id))
                counts.dropped_calls += bool(example.answers)
            else:
                found._keep(example, row, line, counts)
    return found


def broken_schema(example: Example) -> str | None:
    """How the right answer of an example breaks the schema of its tool; None where it does not."""
    schemas = {tool.name: tool.parameters for tool in example.tools}
    for answer in example.answers:
        call = reference_call(answer, example.query, schemas.get(answer.name))
        if (broken := violation(call.arguments, schemas.get(answer.name, {}))) is not None:
            return shortened(f"{call.name}: {broken}", 160)
    return None


def _place(line: Line, row_id: Json) -> str:
    return (
        f"line {line.number} ({row_id})"
        if isinstance(row_id, str | int)
        else (f"line {line.number}")
    )


def split_rows(found: Preparation, ratios: Ratios, split_by: SplitBy, seed: int) -> Splits:
    """The rows of each split.

    Rows with one prompt stay together, and so do those of one conversation, be it one row of the
    dataset or several of which each goes on with the one before. With `split_by="tool"` so do rows
    that share a tool.

    Raises:
        DataError: fewer groups of rows than splits; the message begins with their number.
    """
    if split_by == "row":
        histories = conversation_keys([found.examples[row.id] for row in found.rows])
        members: list[list[Hashable]] = [
            [found.origins[row.id], row.prompt, *keys]
            for row, keys in zip(found.rows, histories, strict=True)
        ]
    else:
        members = [[tool.name for tool in found.examples[row.id].tools] for row in found.rows]
    groups = connected_groups(found.rows, members)
    wanted = split_sizes(len(found.rows), ratios)
    n_splits = sum(ratio > 0 for ratio in ratios)
    if len(groups) < n_splits or (ratios.train > 0 and wanted["train"] < 1):
        raise DataError(
            f"{len(groups)} different rows are left for {n_splits} splits; "
            "prepare more rows or set a ratio to 0"
        )
    return assign_groups(groups, wanted, seed)


def augment_splits(
    splits: Splits, found: Preparation, rules: RowRules, shares: Augmentation, seed: int
) -> Splits:
    """The splits with rows made of their own; the new examples are added to `found`.

    Valid and test rows get the number of the tools they need that training has not seen, where
    there is a training set.
    """
    # Before names are masked: what is made of the training rows leaves the test rows as they are.
    seen = tool_identities(found.examples[row.id] for row in splits["train"])
    if any(shares):
        splits = {
            name: _augment_split(name, rows, found, rules, shares, seed)
            for name, rows in splits.items()
        }
    if not splits["train"]:
        return splits
    return splits | {
        name: [
            replace(row, unseen_tools=count_unseen_tools(found.examples[row.id], seen))
            for row in splits[name]
        ]
        for name in ("valid", "test")
    }


def _check_size(row: dict[str, Json], max_kb: int) -> None:
    if (size := len(dumps(row))) > max_kb * 1024:
        raise UnusableRow(f"larger than {max_kb} KB", f"{size // 1024} KB")


def _augment_split(
    name: str,
    rows: list[PreparedRow],
    found: Preparation,
    rules: RowRules,
    shares: Augmentation,
    seed: int,
) -> list[PreparedRow]:
    """A split with rows made of its own; what is made of a row depends on the seed and its id.

    Made of the split's own tools too, so that no other split's tools get in.
    """
    tools = {tool.name: tool for row in rows for tool in found.examples[row.id].tools}
    pool = list(tools.values())
    result: list[PreparedRow] = []

    def add(kind: str, example: Example | None) -> bool:
        if example is None:
            return False
        try:
            row = rules.apply(example, kind)
        except UnusableRow:
            return False
        result.append(row)
        found.examples[row.id] = example
        found.augmented[f"{kind} in {name}"] += 1
        return True

    for row in rows:
        example = found.examples[row.id]
        # Each draws for itself, so that one option does not change what the other makes.
        masking, taking = (
            random.Random(f"{seed} {what} {example.id}") for what in ("mask", "take")
        )
        is_masked = name == "train" and masking.random() < shares.mask_names
        if not (is_masked and add("masked", with_random_names(example, masking))):
            result.append(row)
        if taking.random() < shares.negatives:
            add("negative", without_needed_tools(example, pool, taking))
    return result
