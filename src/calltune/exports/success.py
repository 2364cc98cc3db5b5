"""What a tuned model gets right before and after it is exported, on the same test rows."""

from pathlib import Path
from typing import NamedTuple

from calltune.calls import Json
from calltune.score.compare import compare
from calltune.score.results import read_results


class Success(NamedTuple):
    """Two models on the same test rows, judged as `calltune test` judges."""

    before: dict[str, Json]
    """Every call right, with the adapter on its base: count, of, rate, low, high."""
    after: dict[str, Json]
    """The same for the exported model."""
    n_same: int
    """Answers that are the same, letter for letter."""
    p_value: float
    """How often chance alone would part the two at least this far: McNemar's exact test."""

    @property
    def fell(self) -> bool:
        """Whether the exported model gets fewer right."""
        return bool(self.after["count"] < self.before["count"])

    def in_words(self) -> str:
        """What came of it in a sentence."""
        before, after = self.before, self.after
        return (
            f"Every call right: {before['count']} of {before['of']} with the adapter, "
            f"{after['count']} of {after['of']} exported; {self.n_same} answers are the same."
        )


def compared(before: Path, after: Path) -> Success:
    """What the results files of the two say.

    Raises:
        DataError: they are not of the same test rows.
    """
    one, other = read_results(before), read_results(after)
    found = compare(one, other)
    return Success(
        before=found.base.summary["success"],
        after=found.tuned.summary["success"],
        n_same=sum(one.records[id]["text"] == other.records[id]["text"] for id in one.records),
        p_value=found.p_value,
    )
