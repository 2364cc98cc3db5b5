"""One example as a line of train.jsonl, valid.jsonl or test.jsonl."""

from collections.abc import Callable, Sequence

from calltune.files import dumps
from calltune.formats import Format
from calltune.schemas.tools import UnusableRow
from calltune.types import Example, Json, answers_to_json, reference_call


def written(
    example: Example, prompt_format: Format, has_bos: bool, made: str | None = None
) -> dict[str, Json]:
    """The row; `made` says how, where it was made of another one."""
    prompt = prompt_format.render_prompt(example.messages, example.tools)
    if not has_bos:
        prompt = prompt.removeprefix(prompt_format.bos)
    schemas = {tool.name: tool.parameters for tool in example.tools}
    calls = [reference_call(a, example.query, schemas.get(a.name)) for a in example.answers]
    row = {
        "text": f"{prompt}{prompt_format.render_calls(calls)}{prompt_format.completion_end}",
        "completion_start": len(prompt),
        "id": example.id,
        "query": example.query,
        "tools": [tool.raw for tool in example.tools],
        "answers": answers_to_json(example.answers),
        "source": example.source,
        "format": prompt_format.name,
    }
    return row if made is None else row | {"made": made}


def check_size(row: Json, max_kb: int) -> None:
    """Refuse a row of a dataset that is larger than `max_kb` kilobytes.

    Raises:
        UnusableRow: it is.
    """
    if (size := len(dumps(row))) > max_kb * 1024:
        raise UnusableRow(f"larger than {max_kb} KB", f"{size // 1024} KB")


def check(
    row: dict[str, Json],
    contents: Sequence[str],
    prompt_format: Format,
    count_tokens: Callable[[str], int] | None,
    max_tokens: int | None,
) -> None:
    """Refuse a row that would confuse its prompt's format, or is too long.

    `contents` are what its messages say.

    Raises:
        UnusableRow: there is a control token in it, or it has more than `max_tokens`.
    """
    content = dumps(list(contents)) + dumps(row["tools"])
    if marker := next((m for m in prompt_format.markers if m in content), None):
        raise UnusableRow("control token of the format in the text", marker)
    if count_tokens and max_tokens is not None and count_tokens(row["text"]) > max_tokens:
        raise UnusableRow(f"longer than {max_tokens} tokens", row["id"])
