"""prep: rows of any known dataset -> train.jsonl, valid.jsonl and test.jsonl."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from calltune.data.augment import with_random_names, without_needed_tools
from calltune.data.prepared import check, check_size, written
from calltune.data.readers.recognise import parse
from calltune.data.splits import (
    SPLIT_NAMES,
    Ratios,
    assign_groups,
    connected_groups,
    group_by_key,
    split_sizes,
    tool_identities,
    unseen_tools,
)
from calltune.errors import DataError, OptionError
from calltune.files import Line, file_digest, read_lines, write_json, write_rows
from calltune.formats import FORMATS
from calltune.schemas.tools import UnusableRow
from calltune.terminal_text import escape_line
from calltune.types import Example, Json

_IDS_KEPT = 5
TokenCounter = Callable[[str], int]


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
    """Proportion for the training set."""
    val_ratio: float = 0.1
    """Proportion for the validation set."""
    test_ratio: float = 0.1
    """Proportion for the test set."""
    random_seed: int = 42
    """Random seed for reproducible splits."""
    format: str = "gemma"
    """Prompt family: gemma, or chatml for Qwen and SmolLM2."""
    schema: str = "auto"
    """Dataset schema: auto (recognised row by row), xlam, bfcl, openai or hermes."""
    split_by: Literal["row", "tool"] = "row"
    """row: any row may go anywhere. tool: no tool of the training set occurs in the others."""
    bos: bool = True
    """Begin each text with the family's BOS. mlx_lm's trainer adds one of its own: --no-bos."""
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
        if min(ratios) < 0 or self.train_ratio == 0:
            raise OptionError(
                f"Ratios {self._ratios_text()}: none may be negative and train must be above 0"
            )
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


@dataclass(slots=True)
class _Prepared:
    """What has been made of the input so far."""

    read: int = 0
    rows: list[dict[str, Json]] = field(default_factory=list)
    examples: dict[str, Example] = field(default_factory=dict)
    """By the ids of their rows, rows made of others too."""
    prompts: list[str] = field(default_factory=list)
    tools: list[list[str]] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> where the dropped rows stood."""
    notes: Counter[str] = field(default_factory=Counter)

    def keep(self, row: dict[str, Json], example: Example) -> None:
        self.rows.append(row)
        self.examples[row["id"]] = example
        self.prompts.append(row["text"][: row["completion_start"]])
        self.tools.append([tool.name for tool in example.tools])

    def drop(self, reason: str, line: Line, row_id: Json) -> None:
        named = f" ({row_id})" if isinstance(row_id, (str, int)) else ""
        self.dropped.setdefault(reason, []).append(f"line {line.number}{named}")


def run(options: PrepOptions) -> Path:
    """Write the splits and prep.json; the folder they are in.

    Raises:
        DataError: no input file, a line that is not JSON, no row that can be used, or fewer
            rows than splits.
    """
    count_tokens = _token_counter(options)
    prepared = _prepare(options, count_tokens)
    groups = (
        group_by_key(prepared.rows, prepared.prompts)
        if options.split_by == "row"
        else connected_groups(prepared.rows, prepared.tools)
    )
    wanted = split_sizes(len(prepared.rows), options.ratios)
    n_splits = sum(ratio > 0 for ratio in options.ratios)
    if len(groups) < n_splits or wanted["train"] < 1:
        raise DataError(
            f"{options.input_file}: {len(groups)} different rows are left for {n_splits} splits; "
            "prepare more rows or set a ratio to 0"
        )
    parts = assign_groups(groups, wanted, options.random_seed)
    # Before names are masked: what is made of the training rows leaves the test rows as they are.
    seen = tool_identities(prepared.examples[row["id"]] for row in parts["train"])
    made: Counter[str] = Counter()
    if options.negatives or options.mask_names:
        parts = {
            name: _augmented(name, parts[name], prepared, options, count_tokens, made)
            for name in parts
        }
    parts |= {name: _marked(parts[name], prepared, seen) for name in ("valid", "test")}
    folder = options.output_dir / "training"
    for name in SPLIT_NAMES:
        _write_split(folder / f"{name}.jsonl", parts[name])
    report = _report(options, prepared, parts) | {"made": dict(made)}
    write_json(folder / "prep.json", report)
    _print_report(report, folder)
    return folder


def _prepare(options: PrepOptions, count_tokens: TokenCounter | None) -> _Prepared:
    prompt_format = FORMATS[options.format]
    prepared = _Prepared()
    seen: Counter[str] = Counter()
    for line in _first_lines(options):
        prepared.read += 1
        try:
            check_size(line.row, options.max_row_kb)
            parsed = parse(line.row, f"{options.input_file.stem}:{line.number}", options.schema)
        except UnusableRow as unusable:
            prepared.drop(unusable.reason, line, line.row.get("id"))
            continue
        prepared.notes.update(parsed.notes)
        for example in parsed.examples:
            seen[example.id] += 1
            if (nth := seen[example.id]) > 1:
                example = replace(example, id=f"{example.id}#{nth}")
            row = written(example, prompt_format, options.bos)
            try:
                _check(row, example, options, count_tokens)
            except UnusableRow as unusable:
                prepared.drop(unusable.reason, line, example.id)
            else:
                prepared.keep(row, example)
    if not prepared.rows:
        raise DataError(_nothing_left(options.input_file, prepared))
    return prepared


def _first_lines(options: PrepOptions) -> Iterator[Line]:
    for count, line in enumerate(read_lines(options.input_file)):
        if count == options.num_examples:
            return
        yield line


def _check(
    row: dict[str, Json],
    example: Example,
    options: PrepOptions,
    count_tokens: TokenCounter | None,
) -> None:
    contents = [message.content for message in example.messages]
    check(row, contents, FORMATS[options.format], count_tokens, options.max_tokens)


def _augmented(
    name: str,
    rows: list[dict[str, Json]],
    prepared: _Prepared,
    options: PrepOptions,
    count_tokens: TokenCounter | None,
    made: Counter[str],
) -> list[dict[str, Json]]:
    """A split with rows made of its own; what is made of a row depends on the seed and its id.

    Made of the split's own tools too, so that no other split's tools get in.
    """
    prompt_format = FORMATS[options.format]
    tools = {tool.name: tool for row in rows for tool in prepared.examples[row["id"]].tools}
    pool = list(tools.values())
    result: list[dict[str, Json]] = []

    def add(how: str, example: Example | None) -> bool:
        if example is None:
            return False
        row = written(example, prompt_format, options.bos, how)
        try:
            _check(row, example, options, count_tokens)
        except UnusableRow:
            return False
        result.append(row)
        prepared.examples[row["id"]] = example
        made[f"{how} in {name}"] += 1
        return True

    for row in rows:
        example = prepared.examples[row["id"]]
        # Each draws for itself, so that one option does not change what the other makes.
        masking, taking = (
            random.Random(f"{options.random_seed} {what} {example.id}") for what in ("mask", "take")
        )
        is_masked = name == "train" and masking.random() < options.mask_names
        if not (is_masked and add("masked", with_random_names(example, masking))):
            result.append(row)
        if taking.random() < options.negatives:
            add("negative", without_needed_tools(example, pool, taking))
    return result


def _marked(
    rows: list[dict[str, Json]], prepared: _Prepared, seen: set[str]
) -> list[dict[str, Json]]:
    """The rows with the number of tools that they need and training has not seen."""
    return [
        row | {"unseen_tools": unseen_tools(prepared.examples[row["id"]], seen)} for row in rows
    ]


def _token_counter(options: PrepOptions) -> TokenCounter | None:
    if options.model is None:
        return None
    from tokenizers import Tokenizer

    from calltune.models.resolve import resolve

    tokenizer = Tokenizer.from_file(str(resolve(options.model) / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _write_split(path: Path, rows: list[dict[str, Json]]) -> None:
    # mlx_lm cannot read an empty split, and one left from before would mix two preparations.
    if rows:
        write_rows(path, rows)
    else:
        path.unlink(missing_ok=True)


def _nothing_left(path: Path, prepared: _Prepared) -> str:
    if not prepared.read:
        return f"{path} has no rows; load the dataset again"
    reason, places = max(prepared.dropped.items(), key=lambda item: len(item[1]))
    return (
        f"{path}: none of {prepared.read} rows can be used, {len(places)} for this reason: "
        f"{reason} (first at {places[0]}); rows need query, tools and answers, or another "
        "known schema"
    )


def _report(
    options: PrepOptions, prepared: _Prepared, parts: dict[str, list[dict[str, Json]]]
) -> dict[str, Json]:
    folder = options.output_dir / "training"
    return {
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
        "counts": {"read": prepared.read, "kept": len(prepared.rows)}
        | {name: len(rows) for name, rows in parts.items()},
        "with_unseen_tools": {
            name: sum(row["unseen_tools"] > 0 for row in parts[name]) for name in ("valid", "test")
        },
        "repeated_prompts": len(prepared.prompts) - len(set(prepared.prompts)),
        "dropped": {
            reason: {"count": len(places), "first": places[:_IDS_KEPT]}
            for reason, places in sorted(prepared.dropped.items())
        },
        "notes": dict(prepared.notes.most_common()),
        "sha256": {
            f"{name}.jsonl": file_digest(folder / f"{name}.jsonl")
            for name, rows in parts.items()
            if rows
        },
    }


def _print_report(report: dict[str, Json], folder: Path) -> None:
    counts = report["counts"]
    splits = ", ".join(f"{name} {counts[name]}" for name in SPLIT_NAMES)
    print(f"Kept {counts['kept']} examples of {counts['read']} rows: {splits}")
    if report["made"]:
        made = ", ".join(f"{count} {how}" for how, count in report["made"].items())
        print(f"  made from them: {made}")
    unseen = report["with_unseen_tools"]
    if any(unseen.values()):
        told = ", ".join(f"{name} {count}" for name, count in unseen.items())
        print(f"  rows with a tool not seen in training: {told}")
    for reason, drop in report["dropped"].items():
        places = ", ".join(drop["first"]) + (", …" if drop["count"] > len(drop["first"]) else "")
        print(escape_line(f"  dropped {drop['count']}: {reason} ({places})"))
    for note, count in report["notes"].items():
        print(escape_line(f"  note, {count} times: {note}"))
    print(f"Wrote {folder}")
