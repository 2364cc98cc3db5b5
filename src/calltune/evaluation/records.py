"""Typed records of an evaluation: one answer with its judgement, as results files keep it.

The attributes are named after what they hold; `Record.to_json` gives the keys of the file format,
which `results_schema` reads back.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

from calltune.types import Answer, Json, ParsedOutput, answers_to_json


class Count(NamedTuple):
    """Of things written and things wanted, how many are both."""

    right: int
    written: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `judge.judge` says about one answer; results files keep it under these names."""

    is_exact: bool
    """Exact match: the calls are the answers, one to one, in any order, names and arguments."""
    is_ast: bool
    """The calls pass by the rules of BFCL's AST checker: see `ast_match`."""
    has_right_names: bool
    """The right functions are called, each as often as it should be."""
    is_parsed: bool
    """The text could be parsed, be it as calls or as none."""
    is_valid: bool
    """The text could be parsed, and its calls satisfy the tools' schemas, right or not."""
    invents_function: bool
    """It calls a function that is not on offer."""
    invents_argument: bool
    """It gives a function an argument that the function does not have."""
    functions: Count
    """Function calls, for F1."""
    arguments: Count
    """Arguments, for F1."""
    reason: str | None
    """Why it is no exact match: one of `failure_reasons.REASONS`; None where it is one."""
    abstention: str | None
    """For an example that needs no call, one of `failure_reasons.ABSTENTIONS`; else None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One entry of a results file: an example, what the model wrote, and the judgement."""

    id: str
    source: str | None = None
    """The dataset of the example: "xlam", "bfcl/simple_python", …; None in older files."""
    query: str
    n_tools: int
    """How many tools were offered."""
    unseen_tools: int | None = None
    """How many of the tools that matter no training row has; None where that is not known."""
    expected: tuple[Answer, ...]
    prompt_tokens: int | None = None
    generated_tokens: int | None = None
    """Tokens of the answer, without the one that ends it."""
    text: str
    """What the model wrote."""
    finish: str = "stop"
    """"length" where the token limit ended the text."""
    seconds: float | None = None
    """From the start of the prompt to the last token, while other answers are generated, too."""
    sample: int = 0
    """Which of several answers to the same example this is, from 0."""
    parsed: ParsedOutput
    judgement: Judgement
    unenforced: tuple[str, ...] | None = None
    """Parts of the tools' schemas that constrained decoding could not enforce; None without it."""
    n_right: int | None = None
    """Of `n_samples` answers to this example, how many are an exact match."""
    n_samples: int | None = None
    """How many answers there are to this example; None where there is one."""

    def to_json(self) -> dict[str, Json]:
        """The record under the keys of a results file; what is not known has no key there."""
        calls = [{"name": call.name, "arguments": call.arguments} for call in self.parsed.calls]
        found: dict[str, Json] = {
            "id": self.id,
            "source": self.source,
            "query": self.query,
            "n_tools": self.n_tools,
            "unseen_tools": self.unseen_tools,
            "expected": answers_to_json(self.expected),
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
            "text": self.text,
            "finish": self.finish,
            "seconds": self.seconds,
            "sample": self.sample or None,
            "calls": calls,
            "problem": self.parsed.problem,
            "verdict": asdict(self.judgement),
            "not_held": None if self.unenforced is None else list(self.unenforced),
            "n_right": self.n_right,
            "n_samples": self.n_samples,
        }
        return {key: value for key, value in found.items() if key in _NULLABLE or value is not None}


_NULLABLE = {"unseen_tools", "problem"}
"""Keys that are written even where their value is null."""
