"""Prepared rows: one line of train.jsonl, valid.jsonl or test.jsonl as a typed record.

`calltune prep` writes them, mlx_lm reads `text`, and train, test, look and overlap read all of it.
Tokens come later: `data/batching.py` turns a prepared row into them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from calltune.errors import DataError
from calltune.files import Line, dumps, read_json, read_lines
from calltune.formats import FORMATS, Format
from calltune.schemas.tools import UnusableRow
from calltune.types import (
    AcceptableArgument,
    AcceptableValue,
    Answer,
    Example,
    Json,
    Message,
    answers_from_json,
    answers_to_json,
    reference_call,
)

VERSION = 1
"""The version of the rows' layout, as `version` in prep.json; folders from before have none."""


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """One prepared row: the text that is trained on and the example that it was made of.

    A row for training needs only `id`, `text`, `completion_start` and `format`; those that a model
    is tested on have the rest too.
    """

    id: str
    text: str
    """Prompt and completion, control tokens included."""
    completion_start: int
    """Index into `text`, in characters, where the completion starts."""
    format: str
    """The prompt format, a key of `FORMATS`."""
    query: str = ""
    """The last user message."""
    tools: tuple[dict[str, Json], ...] = ()
    """The tools offered, as their dataset wrote them."""
    answers: tuple[Answer, ...] | None = None
    """The calls that are right; none: call nothing. None: the row does not say."""
    source: str = "unknown"
    """The dataset, as `Example.source`."""
    augmentation: str | None = None
    """"masked" or "negative" where the row was made of another one; the key `made` on disk."""
    unseen_tools: int | None = None
    """How many of its tools do not occur in training; None in train.jsonl and where not counted."""

    @property
    def prompt(self) -> str:
        """The text up to the completion."""
        return self.text[: self.completion_start]

    @property
    def completion(self) -> str:
        """What the model is trained to write, its end tokens included."""
        return self.text[self.completion_start :]

    def to_json(self) -> dict[str, Json]:
        """The row as a JSON object, its keys in the order of the file."""
        row: dict[str, Json] = {
            "text": self.text,
            "completion_start": self.completion_start,
            "id": self.id,
            "query": self.query,
            "tools": list(self.tools),
            "answers": answers_to_json(self.answers or ()),
            "source": self.source,
            "format": self.format,
        }
        if self.augmentation is not None:
            row["made"] = self.augmentation
        if self.unseen_tools is not None:
            row["unseen_tools"] = self.unseen_tools
        return row


def prepare_example(
    example: Example, prompt_format: Format, has_bos: bool, augmentation: str | None = None
) -> PreparedRow:
    """The prepared row of an example.

    Args:
        example: messages, tools and the calls that are right.
        prompt_format: writes the prompt and the calls.
        has_bos: whether the text begins with the format's BOS token.
        augmentation: how the example was made of another one, if it was.
    """
    prompt = prompt_format.render_prompt(example.messages, example.tools)
    if not has_bos:
        prompt = prompt.removeprefix(prompt_format.bos)
    schemas = {tool.name: tool.parameters for tool in example.tools}
    calls = [reference_call(a, example.query, schemas.get(a.name)) for a in example.answers]
    return PreparedRow(
        id=example.id,
        text=f"{prompt}{prompt_format.render_calls(calls)}{prompt_format.completion_end}",
        completion_start=len(prompt),
        format=prompt_format.name,
        query=example.query,
        tools=tuple(tool.raw for tool in example.tools),
        answers=example.answers,
        source=example.source,
        augmentation=augmentation,
    )


def read_prepared(path: Path) -> list[PreparedRow]:
    """The rows of one split, in the order of the file.

    Raises:
        DataError: the file is missing or empty, a line is not a prepared row, or prep.json beside
            it names a layout that is newer than this version of calltune.
    """
    _check_version(path.parent / "prep.json")
    rows = [_parse(path, line) for line in read_lines(path)]
    if not rows:
        raise DataError(f"{path} has no rows; run prep again")
    return rows


def check_row(
    row: PreparedRow,
    messages: Sequence[Message],
    count_tokens: Callable[[str], int] | None,
    max_tokens: int | None,
) -> None:
    """Refuse a row that would break its prompt format, or is too long.

    Args:
        row: the prepared row.
        messages: the messages of its prompt.
        count_tokens: gives the number of tokens of a text; None skips that check.
        max_tokens: the most tokens that prompt and completion may have together.

    Raises:
        UnusableRow: a message, a call in one, a tool or the answer holds a control token, or the
            row has too many tokens.
    """
    for place, text in _texts(row, messages):
        for marker in FORMATS[row.format].markers:
            if (at := text.find(marker)) >= 0:
                shown = text[max(0, at - 20) : at + len(marker) + 20]
                raise UnusableRow(
                    "control token of the format in the text", f"{marker} in {place}: {shown}"
                )
    if count_tokens and max_tokens is not None and (n := count_tokens(row.text)) > max_tokens:
        raise UnusableRow(f"longer than {max_tokens} tokens", f"{n} tokens")


def _texts(row: PreparedRow, messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Each text that the row has from its dataset, with its place."""
    for number, message in enumerate(messages, start=1):
        place = f"message {number} ({message.role})"
        yield place, message.content
        yield place, message.tool_name
        for call in message.calls:
            yield f"a call of {place}", f"{call.name} {dumps(call.arguments)}"
    for tool in row.tools:
        yield f"the tool {tool.get('name')}", dumps(tool)
    for answer in row.answers or ():
        yield "the answer", answer.name
        for key, choice in answer.arguments.items():
            yield f"the answer's call of {answer.name}", key
            for value in choice.values:
                place = f"the answer, {answer.name}: {key}"
                yield place, value if isinstance(value, str) else _written(value)


def _written(value: AcceptableValue) -> str:
    answer = Answer("", {"": AcceptableArgument((value,))})
    return dumps(answers_to_json((answer,))[0]["arguments"][""]["values"][0])


def _check_version(path: Path) -> None:
    report = read_json(path) if path.is_file() else {}
    version = report.get("version", VERSION) if isinstance(report, dict) else VERSION
    if isinstance(version, int) and version > VERSION:
        raise DataError(
            f"{path} is of version {version}, and this calltune reads up to {VERSION}; "
            "update calltune or run prep again"
        )


def _parse(path: Path, line: Line) -> PreparedRow:
    row = line.row
    text, start = row.get("text"), row.get("completion_start")
    name, row_id = row.get("format"), row.get("id")
    if (
        not isinstance(text, str)
        or not isinstance(start, int)
        or not isinstance(row_id, str)
        or not isinstance(name, str)
        or name not in FORMATS
        or not 0 < start < len(text)
    ):
        raise DataError(
            f"{path}, line {line.number}: not a row that prep wrote (text, completion_start, id "
            "and a known format are needed); run prep again"
        )
    return PreparedRow(
        id=row_id,
        text=text,
        completion_start=start,
        format=name,
        query=_typed(path, line, "query", str, ""),
        tools=tuple(_typed(path, line, "tools", list, [])),
        answers=_answers(path, line),
        source=_typed(path, line, "source", str, "unknown"),
        augmentation=_typed(path, line, "made", str, None),
        unseen_tools=_typed(path, line, "unseen_tools", int, None),
    )


def _typed(path: Path, line: Line, key: str, kind: type, default: Json) -> Json:
    value = line.row.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise _wrong(path, line, key)
    return value


def _answers(path: Path, line: Line) -> tuple[Answer, ...] | None:
    written = line.row.get("answers")
    if written is None:
        return None
    try:
        return answers_from_json(written)
    except (AttributeError, KeyError, TypeError):
        raise _wrong(path, line, "answers") from None


def _wrong(path: Path, line: Line, key: str) -> DataError:
    return DataError(
        f"{path}, line {line.number}: {key} is not what prep writes there; run prep again"
    )
