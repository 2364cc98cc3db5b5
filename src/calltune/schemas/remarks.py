"""Remarks: what was repaired or left out in a schema, once for each kind of fault."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Noting(Protocol):
    """Takes notes of what was changed or left out."""

    def __call__(self, text: str, kind: str = "", *, is_loss: bool = False) -> None:
        """Note `text`; `kind` is what many such notes have in common, where `text` says more."""


class Remark(NamedTuple):
    """All faults of one kind in a schema or a list of tools."""

    kind: str
    """What was done, in words that are the same for every fault of the kind."""
    example: str = ""
    """Where the first of them stands."""
    n_faults: int = 1
    is_loss: bool = False
    """Whether values may now be accepted that the schema was written to refuse."""

    def __str__(self) -> str:
        """The remark as one line."""
        if not self.example:
            return self.kind
        more = f" and {self.n_faults - 1:,} more" if self.n_faults > 1 else ""
        return f"{self.kind} ({self.example}{more})"


class RemarkList:
    """Collects remarks, and counts those of a kind together."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, bool], Remark] = {}

    def add(self, kind: str, example: str = "", count: int = 1, *, is_loss: bool = False) -> None:
        """Add a fault that stands at `example`; of a kind, the first example is kept."""
        found = self._by_kind.get((kind, is_loss), Remark(kind, example, 0, is_loss))
        self._by_kind[kind, is_loss] = found._replace(n_faults=found.n_faults + count)

    def extend(self, remarks: Iterable[Remark]) -> None:
        """Add what others have collected."""
        for each in remarks:
            self.add(each.kind, each.example, each.n_faults, is_loss=each.is_loss)

    def all(self) -> tuple[Remark, ...]:
        """The remarks, in the order in which their kinds came first."""
        return tuple(self._by_kind.values())
