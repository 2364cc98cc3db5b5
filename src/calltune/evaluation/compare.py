"""Two models on the same examples: what tuning changed, and whether chance could have.

Examples of one kind, before and after: what tuning did for each kind.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import comb

from calltune.errors import DataError
from calltune.evaluation.failure_reasons import ABSTENTIONS, REASONS
from calltune.evaluation.metrics import Record, details, summarise, summarise_by
from calltune.evaluation.results import Results
from calltune.types import Json

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
    base, tuned = (summarise_by(part, lambda r: kind_of[r["id"]]) for part in (before, after))
    return tuple(Group(name, base[name], tuned[name]) for name in kinds if name in base)


def _size_of_tools(record: Record) -> str:
    n = record["n_tools"]
    return str(n) if n < 2 else "2-3" if n < 4 else "4+"


def _size_of_calls(record: Record) -> str:
    n = len(record["expected"])
    return str(n) if n < 2 else "2+"


def _source(record: Record) -> str:
    return str(record.get("source", "unknown"))


RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class ModelResults:
    """One of the two models and how it did on the shared examples."""

    path: str
    """Its results file."""
    model: str
    adapter: str | None
    format: str
    summary: dict[str, Json]
    """As `metrics.summarise` gives it."""
    details: dict[str, Json]
    """As `metrics.details` gives it."""
    n_left_out: int
    """Examples of the file that the other one does not have."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, and between which two it lies in 95 % of cases."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CountPair:
    """How many examples of one kind there are, before and after."""

    name: str
    base: int
    tuned: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Base against tuned on the examples that both have."""

    test_path: str
    test_sha256: str
    base: ModelResults
    tuned: ModelResults
    by_tools: tuple[Group, ...]
    """By how many tools were offered."""
    by_calls: tuple[Group, ...]
    """By how many calls were right."""
    by_source: tuple[Group, ...]
    """By where the examples came from."""
    by_seen: tuple[Group, ...]
    """By whether the training rows have their tools; none where the results do not say."""
    fixed: tuple[str, ...]
    """Ids of the examples that only the tuned model got exactly right."""
    broken: tuple[str, ...]
    """Ids of the examples that only the base model got exactly right."""
    n_both_right: int
    n_both_wrong: int
    reasons: tuple[CountPair, ...]
    """Why answers were not right, those of `reasons.REASONS` that occur."""
    abstentions: tuple[CountPair, ...]
    """What came of the examples that need no call."""
    difference: Interval
    """Of the success rates, tuned less base: 95 % of a paired bootstrap."""
    p_value: float
    """How often chance alone would part the two at least this far: McNemar's exact test."""

    def to_json(self) -> dict[str, Json]:
        """The comparison as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Changes:
    """Which examples changed sides, by id."""

    shared: list[str]
    """The examples that both have."""
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    n_both_right: int

    @property
    def n_shared(self) -> int:
        """How many examples both have."""
        return len(self.shared)


def changes(base: Results, tuned: Results, metric: str = "is_exact") -> Changes:
    """The examples that only one of the two got right; `metric` of the verdict says what is right.

    Raises:
        DataError: they come from different test sets, or share no example.
    """
    shared = _shared_ids(base, tuned)
    right_before, right_after = (
        {record["id"] for record in _pick(side, shared) if record["verdict"][metric]}
        for side in (base, tuned)
    )
    fixed, broken = right_after - right_before, right_before - right_after
    return Changes(
        shared=shared,
        fixed=tuple(id for id in shared if id in fixed),
        broken=tuple(id for id in shared if id in broken),
        n_both_right=len(right_before & right_after),
    )


def compare(base: Results, tuned: Results) -> Comparison:
    """Hold two results files against each other, on the examples that both have.

    Raises:
        DataError: they come from different test sets, or share no example.
    """
    found = changes(base, tuned)
    shared = found.shared
    before, after = _pick(base, shared), _pick(tuned, shared)
    return Comparison(
        test_path=tuned.test_path,
        test_sha256=tuned.test_digest,
        base=_side(base, before),
        tuned=_side(tuned, after),
        by_tools=by_tools(before, after),
        by_calls=by_calls(before, after),
        by_source=by_source(before, after),
        by_seen=by_seen(before, after),
        fixed=found.fixed,
        broken=found.broken,
        n_both_right=found.n_both_right,
        n_both_wrong=len(shared) - found.n_both_right - len(found.fixed) - len(found.broken),
        reasons=_count_pairs(before, after, "reason", REASONS),
        abstentions=_count_pairs(before, after, "abstention", ABSTENTIONS),
        difference=paired_bootstrap(len(found.fixed), len(found.broken), len(shared)),
        p_value=mcnemar(len(found.fixed), len(found.broken)),
    )


def mcnemar(n_fixed: int, n_broken: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Were both models equally good, each example on which they differ would fall to either side
    like a fair coin; this is how often the coin lands at least this unevenly.
    """
    n = n_fixed + n_broken
    tail = sum(comb(n, k) for k in range(min(n_fixed, n_broken) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_bootstrap(n_fixed: int, n_broken: int, n: int) -> Interval:
    """Between which differences of two rates on the same `n` examples 95 % of resamples lie.

    Resampling examples with replacement draws how many of them are fixed, broken and neither: a
    multinomial. The draws are the same in every run. Efron, Annals of Statistics 7 (1979).
    """
    import numpy as np

    shares = [n_fixed / n, n_broken / n, 1 - (n_fixed + n_broken) / n]
    drawn = np.random.default_rng(0).multinomial(n, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, (0.025, 0.975))
    return Interval((n_fixed - n_broken) / n, float(low), float(high))


def _shared_ids(base: Results, tuned: Results) -> list[str]:
    if base.test_digest != tuned.test_digest:
        raise DataError(
            f"{base.path} and {tuned.path} come from different test sets "
            f"({base.test_path}, SHA-256 {base.test_digest[:12]}…, and "
            f"{tuned.test_path}, {tuned.test_digest[:12]}…); test both models on one set"
        )
    in_tuned = tuned.records.keys()
    shared = [id for id in base.records if id in in_tuned]
    if not shared:
        raise DataError(
            f"{base.path} ({len(base.records)} examples) and {tuned.path} ({len(in_tuned)}) "
            "have no example in common; test both models on the same examples"
        )
    return shared


def _pick(results: Results, ids: list[str]) -> list[Record]:
    records = results.records
    return [records[id] for id in ids]


def _side(results: Results, shared: list[Record]) -> ModelResults:
    return ModelResults(
        path=str(results.path),
        model=results.document["model"],
        adapter=results.document["adapter"],
        format=results.document["format"],
        summary=summarise(shared),
        details=details(shared),
        n_left_out=len(results.records) - len(shared),
    )


def _count_pairs(
    before: list[Record], after: list[Record], metric: str, names: tuple[str, ...]
) -> tuple[CountPair, ...]:
    base, tuned = (Counter(r["verdict"].get(metric) for r in part) for part in (before, after))
    return tuple(CountPair(n, base[n], tuned[n]) for n in names if base[n] or tuned[n])
