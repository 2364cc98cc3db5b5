"""Examples of one kind, before and after: what tuning did for each kind."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calltune.calls import Json
from calltune.score.metrics import Record, by_group

SIZES_OF_TOOLS = ("0", "1", "2-3", "4+")
SIZES_OF_CALLS = ("0", "1", "2+")
SEEN = ("seen", "unseen")


@dataclass(frozen=True, slots=True)
class Group:
    """The examples of one kind, before and after."""

    name: str
    base: dict[str, Json]
    """As `metrics.summarise` gives it."""
    tuned: dict[str, Json]


def by_tools(before: list[Record], after: list[Record]) -> tuple[Group, ...]:
    """By how many tools are offered: `SIZES_OF_TOOLS`."""
    return _groups(before, after, _size_of_tools, SIZES_OF_TOOLS)


def by_calls(before: list[Record], after: list[Record]) -> tuple[Group, ...]:
    """By how many calls are right: `SIZES_OF_CALLS`."""
    return _groups(before, after, _size_of_calls, SIZES_OF_CALLS)


def by_source(before: list[Record], after: list[Record]) -> tuple[Group, ...]:
    """By where the examples come from."""
    return _groups(before, after, _source, sorted({_source(record) for record in before}))


def by_seen(before: list[Record], after: list[Record]) -> tuple[Group, ...]:
    """By whether training has `SEEN` every tool that is needed, or offered where none is.

    No groups where a record does not say: its test row was prepared before rows did.
    """
    if any(record.get("unseen_tools") is None for record in before):
        return ()
    return _groups(before, after, lambda r: SEEN[r["unseen_tools"] > 0], SEEN)


def _groups(
    before: list[Record],
    after: list[Record],
    kind: Callable[[Record], str],
    kinds: Sequence[str],
) -> tuple[Group, ...]:
    # An example is of one kind: other versions may have noted it otherwise, or not at all.
    kind_of = {record["id"]: kind(record) for record in before}
    base, tuned = (by_group(part, lambda r: kind_of[r["id"]]) for part in (before, after))
    return tuple(Group(name, base[name], tuned[name]) for name in kinds if name in base)


def _size_of_tools(record: Record) -> str:
    n = record["n_tools"]
    return str(n) if n < 2 else "2-3" if n < 4 else "4+"


def _size_of_calls(record: Record) -> str:
    n = len(record["expected"])
    return str(n) if n < 2 else "2+"


def _source(record: Record) -> str:
    return str(record.get("source", "unknown"))
