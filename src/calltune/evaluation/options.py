"""Options of generating answers, which the commands infer, test and bench share."""

from dataclasses import dataclass
from typing import Literal

from calltune.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """How many test rows are answered, and what the answers depend on."""

    num_examples: int = 50
    """How many test examples; -1 is all."""
    max_tokens: int = 512
    """Longest answer, in tokens."""
    batch_size: int | None = None
    """Examples that are answered at once; unless given 128 on an NVIDIA GPU, else 16."""
    constrain: bool = False
    """Constrain answers to the tools' schemas while they are generated."""
    temperature: float = 0.0
    """How freely tokens are drawn; 0 always takes the most likely one."""
    top_p: float = 1.0
    """Draw among the most likely tokens that together have this probability."""
    samples: int = 1
    """Answers to each example; several need a temperature, and give pass@k."""
    seed: int = 42
    """The same seed draws the same tokens."""
    verbose: bool = False
    """Show each example: query, expected calls, what the model wrote."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.num_examples == 0 or self.num_examples < -1:
            raise OptionError(
                f"--num_examples is {self.num_examples}; give 1 or more, or -1 for all"
            )
        for name in ("max_tokens", "batch_size", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionError(f"--{name} is {value}; it must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise OptionError(f"--temperature is {self.temperature}; give 0 or more")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"--top_p is {self.top_p}; give more than 0 and at most 1")
        if self.samples > 1 and self.temperature == 0:
            raise OptionError(
                f"--samples {self.samples} would give the same answer each time; give a "
                "--temperature as well"
            )

    def to_identity(self) -> dict[str, int | float | bool]:
        """The options that change an answer, for comparing two runs; defaults are left out.

        `max_tokens` is always there.
        """
        found: dict[str, int | float | bool] = {"max_tokens": self.max_tokens}
        if self.constrain:
            found["constrain"] = True
        if self.temperature > 0:
            found |= {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return found
