"""What the decoding engines answer, in one file: a machine without network can answer it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

STOCK = "manual_stock"
"""It answers one row, the one of median length: more would take hours on a CPU."""


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts of test rows as tokens, and what goes with each."""

    prompts: list[list[int]]
    limits: list[int]
    """The longest answer to each prompt, in tokens."""
    right: list[list[int]]
    """A right answer to each, with its end."""
    tools: list[list[dict[str, Any]]]
    """What each prompt offers, as its dataset wrote it."""
    stops: list[int]
    format: str
    tokenizer: str
    """Folder of the tokenizer."""

    def of(self, engine: str) -> Self:
        """The part that an engine gets."""
        if engine != STOCK:
            return self
        by_length = sorted(range(len(self.prompts)), key=lambda i: len(self.prompts[i]))
        return self.only([by_length[len(by_length) // 2]])

    def only(self, rows: list[int]) -> Self:
        """These rows alone."""
        names = ("prompts", "limits", "right", "tools")
        return replace(self, **{name: [getattr(self, name)[i] for i in rows] for name in names})

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote."""
        return cls(**json.loads(path.read_text()))


def task_of(data: Path, model: str, n_rows: int, max_tokens: int | None) -> Task:
    """The first test rows of a folder; without `max_tokens` answers end where right ones do."""
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
