"""The prep command: rows of any known dataset -> train.jsonl, valid.jsonl and test.jsonl."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calltune.data.preparation import (
    Augmentation,
    Preparation,
    RowFault,
    RowRules,
    SplitBy,
    Splits,
    TokenCounter,
    augment_splits,
    prepare_rows,
    split_rows,
)
from calltune.data.prepared import VERSION, PreparedRow
from calltune.data.splits import SPLIT_NAMES, Ratios
from calltune.errors import DataError, OptionError
from calltune.files import Line, file_digest, read_lines, write_json, write_rows
from calltune.formats import FORMATS
from calltune.terminal_text import Heartbeat, escape_line
from calltune.types import Json

_IDS_KEPT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepOptions:
    """Options of `calltune prep`."""

    input_file: Path
    """Path to input dataset file."""
    output_dir: Path = Path("data")
    """Data root; the splits land in its folder training."""
    num_examples: int | None = None
    """Maximum number of rows to process, from the top of the file."""
    train_ratio: float = 0.8
    """Proportion for the training set; 0 with --val_ratio 0 and --test_ratio 1 makes a set to test
    on alone."""
    val_ratio: float = 0.1
    """Proportion for the validation set."""
    test_ratio: float = 0.1
    """Proportion for the test set."""
    random_seed: int = 42
    """Random seed for reproducible splits."""
    format: str = "gemma"
    """Prompt format: gemma, or chatml for Qwen and SmolLM2."""
    schema: str = "auto"
    """Dataset format: auto (recognised row by row), xlam, bfcl, openai, hermes or glaive."""
    split_by: SplitBy = "row"
    """row: any row may go anywhere. tool: no tool of the training set occurs in the others."""
    bos: bool = True
    """Begin each text with the format's BOS token; --no-bos for mlx_lm's trainer, which adds it."""
    max_tokens: int | None = None
    """Drop rows longer than this many tokens of --model's tokenizer."""
    model: str | None = None
    """The model whose tokenizer counts for --max-tokens."""
    max_row_kb: int = 1024
    """Drop rows larger than this many kilobytes."""
    negatives: float = 0.0
    """Add, for this share of the rows of each split, one without the needed tool: call nothing."""
    mask_names: float = 0.0
    """Give the functions and arguments of this share of the training rows random names."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        ratios = Ratios(self.train_ratio, self.val_ratio, self.test_ratio)
        if min(ratios) < 0:
            raise OptionError(f"Ratios {self._ratios_text()}: none may be negative")
        if not math.isclose(sum(ratios), 1, abs_tol=1e-6):
            raise OptionError(
                f"Ratios {self._ratios_text()} add up to {sum(ratios):g}; make them add up to 1"
            )
        for name in ("negatives", "mask_names"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"--{name} is {getattr(self, name)}; it is a share from 0 to 1")
        if self.num_examples is not None and self.num_examples < 1:
            raise OptionError(f"--num_examples is {self.num_examples}; it must be at least 1")
        if self.format not in FORMATS:
            raise OptionError(f"No format {self.format}; choose one of {', '.join(FORMATS)}")
        if (self.max_tokens is None) != (self.model is None):
            raise OptionError("--max-tokens and --model go together; give both or neither")

    @property
    def ratios(self) -> Ratios:
        """The three ratios together."""
        return Ratios(self.train_ratio, self.val_ratio, self.test_ratio)

    def _ratios_text(self) -> str:
        return f"{self.train_ratio:g}, {self.val_ratio:g}, {self.test_ratio:g}"


def run(options: PrepOptions) -> Path:
    """Write the splits and prep.json to `output_dir`/training; that folder.

    Raises:
        DataError: no input file, a line that is not JSON, no row that can be used, or fewer
            rows than splits.
        OptionError: no such dataset format.
    """
    rules = RowRules(
        prompt_format=options.format,
        has_bos=options.bos,
        max_row_kb=options.max_row_kb,
        dataset_format=options.schema,
        max_tokens=options.max_tokens,
        count_tokens=_token_counter(options),
    )
    with Heartbeat(f"preparing the rows of {options.input_file}"):
        found = prepare_rows(_first_lines(options), options.input_file.stem, rules)
    from calltune.report.preparation import print_labels, print_preparation

    if not found.rows:
        print_labels(_labels(found))
        raise DataError(_nothing_left(options.input_file, found))
    try:
        splits = split_rows(found, options.ratios, options.split_by, options.random_seed)
    except DataError as error:
        print_labels(_labels(found))
        raise DataError(f"{options.input_file}: {error}") from None
    shares = Augmentation(options.negatives, options.mask_names)
    splits = augment_splits(splits, found, rules, shares, options.random_seed)
    folder = options.output_dir / "training"
    for name in SPLIT_NAMES:
        _write_split(folder / f"{name}.jsonl", splits[name])
    report = _report(options, found, splits, folder)
    write_json(folder / "prep.json", report)
    print_preparation(report)
    print(f"Wrote {folder}")
    return folder


def _first_lines(options: PrepOptions) -> Iterator[Line]:
    for count, line in enumerate(read_lines(options.input_file)):
        if count == options.num_examples:
            return
        yield line


def _token_counter(options: PrepOptions) -> TokenCounter | None:
    if options.model is None:
        return None
    from tokenizers import Tokenizer

    from calltune.models.resolve import resolve

    tokenizer = Tokenizer.from_file(str(resolve(options.model) / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _write_split(path: Path, rows: list[PreparedRow]) -> None:
    # mlx_lm cannot read an empty split, and one left from before would mix two preparations.
    if rows:
        write_rows(path, (row.to_json() for row in rows))
    else:
        path.unlink(missing_ok=True)


def _nothing_left(path: Path, found: Preparation) -> str:
    if not found.n_read:
        return f"{path} has no rows; load the dataset again"
    reason, faults = max(found.dropped.items(), key=lambda item: len(item[1]))
    value = f", {faults[0].value}" if faults[0].value else ""
    return escape_line(
        f"{path}: none of {found.n_read} rows can be used, {len(faults)} for this reason: "
        f"{reason} (first at {faults[0].place}{value}); rows need query, tools and answers, or "
        "another known schema"
    )


def _report(
    options: PrepOptions, found: Preparation, splits: Splits, folder: Path
) -> dict[str, Json]:
    return {
        "version": VERSION,
        "input": str(options.input_file),
        "input_sha256": file_digest(options.input_file),
        "format": options.format,
        "bos": options.bos,
        "split_by": options.split_by,
        "ratios": list(options.ratios),
        "random_seed": options.random_seed,
        "max_tokens": options.max_tokens,
        "model": options.model,
        "negatives": options.negatives,
        "mask_names": options.mask_names,
        "counts": {"read": found.n_read, "kept": len(found.rows)}
        | {name: len(rows) for name, rows in splits.items()},
        "with_unseen_tools": {
            name: sum(bool(row.unseen_tools) for row in splits[name]) for name in ("valid", "test")
        },
        "repeated_prompts": found.n_repeated_prompts,
        **_labels(found),
        "sha256": {
            f"{name}.jsonl": file_digest(folder / f"{name}.jsonl")
            for name, rows in splits.items()
            if rows
        },
        "made": dict(found.augmented),
    }


def _labels(found: Preparation) -> dict[str, Json]:
    """The report's part on the rows' labels: what was dropped, broken and noted, and the counts."""
    return {
        "dropped": {reason: _faults(faults) for reason, faults in sorted(found.dropped.items())},
        "answers_break_schema": _faults(found.invalid),
        "by_format": {
            name: {
                "rows": counts.rows,
                "kept": counts.kept,
                "calling": counts.calling,
                "calling_nothing": counts.calling_nothing,
                "several_calls": counts.several,
                "dropped_calls": counts.dropped_calls,
            }
            for name, counts in found.by_format.items()
        },
        "notes": dict(found.notes.most_common()),
    }


def _faults(faults: Sequence[RowFault]) -> dict[str, Json]:
    """How many rows have a fault, and the first of them with what was at fault."""
    shown = faults[:_IDS_KEPT]
    return {
        "count": len(faults),
        "first": [fault.place for fault in shown],
        "values": [fault.value for fault in shown],
    }
