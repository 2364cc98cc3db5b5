"""The task of the decoding benchmark in one file, so that it runs on machines without network."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

STOCK = "manual_stock"
"""This engine answers one row, of median length: more would take hours on a CPU."""


@dataclass(frozen=True, slots=True)
class Task:
    """The tokenized prompts of test rows, with a limit, an answer and the tools for each."""

    prompts: list[list[int]]
    limits: list[int]
    """The maximum length of the answer to each prompt, in tokens."""
    right: list[list[int]]
    """A right answer to each, with its stop token, as tokens."""
    tools: list[list[dict[str, Any]]]
    """The tools that each prompt offers, as in its dataset."""
    stops: list[int]
    format: str
    tokenizer: str
    """Folder of the tokenizer."""

    def of(self, engine: str) -> Self:
        """The part of the task that an engine answers."""
        if engine != STOCK:
            return self
        by_length = sorted(range(len(self.prompts)), key=lambda i: len(self.prompts[i]))
        return self.only([by_length[len(by_length) // 2]])

    def only(self, rows: list[int]) -> Self:
        """The task with these rows only."""
        names = ("prompts", "limits", "right", "tools")
        return replace(self, **{name: [getattr(self, name)[i] for i in rows] for name in names})

    def write(self, path: Path) -> None:
        """Write the task as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a task that `write` wrote."""
        return cls(**json.loads(path.read_text()))


def task_of(data: Path, model: str, n_rows: int, max_tokens: int | None) -> Task:
    """The first test rows of a folder; by default answers are limited to the right one's length."""
    from mlx_lm.utils import load_tokenizer

    from calltune.data.batching import prompt_tokens
    from calltune.data.prepared import read_prepared
    from calltune.formats import FORMATS
    from calltune.models.resolve import resolve

    rows = read_prepared(data / "test.jsonl")[:n_rows]
    folder = resolve(model)
    tokenizer = load_tokenizer(folder)
    prompt_format = FORMATS[rows[0].format]
    stops = {
        tokenizer.encode(stop, add_special_tokens=False)[0] for stop in prompt_format.stop_tokens
    }
    right = [tokenizer.encode(row.completion, add_special_tokens=False) for row in rows]
    return Task(
        prompts=[prompt_tokens(tokenizer, row.prompt, prompt_format) for row in rows],
        limits=[max_tokens or len(tokens) for tokens in right],
        right=right,
        tools=[list(row.tools) for row in rows],
        stops=sorted(stops | set(tokenizer.eos_token_ids)),
        format=prompt_format.name,
        tokenizer=str(folder),
    )
