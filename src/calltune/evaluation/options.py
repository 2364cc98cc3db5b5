"""Options of generating answers, which the commands infer, test and bench share."""

from dataclasses import dataclass

from calltune.errors import OptionError
from calltune.models.options import (
    DeviceOption,
    MaxTokensOption,
    NumExamplesOption,
    check_minimums,
    check_num_examples,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions(DeviceOption, MaxTokensOption, NumExamplesOption):
    """How many test rows are answered, and what the answers depend on."""

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

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_num_examples(self.num_examples)
        check_minimums(self, max_tokens=1, batch_size=1, samples=1)
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
