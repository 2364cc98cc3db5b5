"""Two models on the same examples: what tuning changed, and whether chance could have done it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import comb

from calltune.errors import DataError
from calltune.evaluation.failure_reasons import ABSTENTIONS, REASONS
from calltune.evaluation.metrics import Details, Summary, details, summarise, summarise_by
from calltune.evaluation.records import Record
from calltune.evaluation.results import Results
from calltune.types import Json

SIZES_OF_TOOLS = ("0", "1", "2-3", "4+")
SIZES_OF_CALLS = ("0", "1", "2+")
SEEN = ("seen", "unseen")
RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Group:
    """The examples of one kind, before and after tuning."""

    name: str
    base: Summary
    tuned: Summary


@dataclass(frozen=True, slots=True)
class ModelResults:
    """One of the two models and how it did on the shared examples."""

    path: str
    """Its results file."""
    model: str
    adapter: str | None
    format: str
    """Its prompt format."""
    summary: Summary
    details: Details
    n_left_out: int
    """Examples of the file that the other one does not have."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CountPair:
    """How many examples have this name in a breakdown, before and after tuning."""

    name: str
    base: int
    tuned: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Base against tuned on the examples that both have; `comparison.json` has these keys."""

    test_path: str
    test_sha256: str
    base: ModelResults
    tuned: ModelResults
    by_tools: tuple[Group, ...]
    """By how many tools were offered: `SIZES_OF_TOOLS`."""
    by_calls: tuple[Group, ...]
    """By how many calls were right: `SIZES_OF_CALLS`."""
    by_source: tuple[Group, ...]
    """By the dataset of the example."""
    by_seen: tuple[Group, ...]
    """By whether training has `SEEN` every tool that is needed, or offered where none is; empty
    where a record does not tell, as its test row was prepared before rows did."""
    fixed: tuple[str, ...]
    """Ids of the examples that only the tuned model got exactly right."""
    broken: tuple[str, ...]
    """Ids of the examples that only the base model got exactly right."""
    n_both_right: int
    n_both_wrong: int
    reasons: tuple[CountPair, ...]
    """Why answers were not right: those of `failure_reasons.REASONS` that occur."""
    abstentions: tuple[CountPair, ...]
    """What came of the examples that need no call: `failure_reasons.ABSTENTIONS`."""
    difference: Interval
    """Of the success rates, tuned less base, with the interval of a paired bootstrap."""
    p_value: float
    """Of McNemar's exact test: how often chance alone would part the two at least this far."""

    def to_json(self) -> dict[str, Json]:
        """The comparison as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Changes:
    """Which examples only one of two models got right, by id."""

    shared: list[str]
    """The examples that both have."""
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    n_both_right: int

    @property
    def n_shared(self) -> int:
        """How many examples both have."""
        return len(self.shared)


def compare(base: Results, tuned: Results) -> Comparison:
    """The comparison of two results files, on the examples that both have.

    Raises:
        DataError: they come from different test sets, or share no example.
    """
    found = changes(base, tuned)
    shared = found.shared
    before, after = _pick(base, shared), _pick(tuned, shared)
    sources = sorted({_source(record) for record in before})
    has_seen = all(record.unseen_tools is not None for record in before)
    return Comparison(
        test_path=tuned.test_path,
        test_sha256=tuned.test_digest,
        base=_model_results(base, before),
        tuned=_model_results(tuned, after),
        by_tools=_groups(before, after, _size_of_tools, SIZES_OF_TOOLS),
        by_calls=_groups(before, after, _size_of_calls, SIZES_OF_CALLS),
        by_source=_groups(before, after, _source, sources),
        by_seen=_groups(before, after, _seen, SEEN) if has_seen else (),
        fixed=found.fixed,
        broken=found.broken,
        n_both_right=found.n_both_right,
        n_both_wrong=len(shared) - found.n_both_right - len(found.fixed) - len(found.broken),
        reasons=_count_pairs(before, after, "reason", REASONS),
        abstentions=_count_pairs(before, after, "abstention", ABSTENTIONS),
        difference=paired_bootstrap(len(found.fixed), len(found.broken), len(shared)),
        p_value=mcnemar(len(found.fixed), len(found.broken)),
    )


def changes(base: Results, tuned: Results, metric: str = "is_exact") -> Changes:
    """The examples that only one of the two got right.

    Args:
        base: The results before.
        tuned: The results after.
        metric: The field of `Judgement` that says what is right.

    Raises:
        DataError: they come from different test sets, or share no example.
    """
    shared = _shared_ids(base, tuned)
    right_before, right_after = (
        {record.id for record in _pick(results, shared) if getattr(record.judgement, metric)}
        for results in (base, tuned)
    )
    fixed, broken = right_after - right_before, right_before - right_after
    return Changes(
        shared=shared,
        fixed=tuple(id for id in shared if id in fixed),
        broken=tuple(id for id in shared if id in broken),
        n_both_right=len(right_before & right_after),
    )


def mcnemar(n_fixed: int, n_broken: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    Were both models equally good, each example on which they differ would fall to either side
    like a fair coin; this is how often the coin lands at least this unevenly. Source: McNemar,
    Psychometrika 12 (1947), with the binomial distribution instead of its approximation.
    """
    n = n_fixed + n_broken
    tail = sum(comb(n, k) for k in range(min(n_fixed, n_broken) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_bootstrap(n_fixed: int, n_broken: int, n: int) -> Interval:
    """The difference of two rates on the same `n` examples, with a 95 % percentile interval.

    Resampling examples with replacement draws how many of them are fixed, broken and neither: a
    multinomial, so that the examples themselves need not be drawn one by one. The draws are the
    same in every run. Source: Efron, Annals of Statistics 7 (1979).
    """
    import numpy as np

    shares = [n_fixed / n, n_broken / n, 1 - (n_fixed + n_broken) / n]
    drawn = np.random.default_rng(0).multinomial(n, shares, RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, (0.025, 0.975))
    return Interval((n_fixed - n_broken) / n, float(low), float(high))


def _groups(
    before: Sequence[Record],
    after: Sequence[Record],
    kind: Callable[[Record], str],
    kinds: Sequence[str],
) -> tuple[Group, ...]:
    # An example is of one kind: other versions may have noted it otherwise, or not at all.
    kind_of = {record.id: kind(record) for record in before}
    base, tuned = (summarise_by(part, lambda r: kind_of[r.id]) for part in (before, after))
    return tuple(Group(name, base[name], tuned[name]) for name in kinds if name in base)


def _size_of_tools(record: Record) -> str:
    n = record.n_tools
    return str(n) if n < 2 else "2-3" if n < 4 else "4+"


def _size_of_calls(record: Record) -> str:
    n = len(record.expected)
    return str(n) if n < 2 else "2+"


def _source(record: Record) -> str:
    return record.source or "unknown"


def _seen(record: Record) -> str:
    return SEEN[bool(record.unseen_tools)]


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


def _model_results(results: Results, shared: Sequence[Record]) -> ModelResults:
    return ModelResults(
        path=str(results.path),
        model=results.model,
        adapter=results.adapter,
        format=results.prompt_format,
        summary=summarise(shared),
        details=details(shared),
        n_left_out=len(results.records) - len(shared),
    )


def _count_pairs(
    before: Sequence[Record], after: Sequence[Record], field: str, names: Sequence[str]
) -> tuple[CountPair, ...]:
    base, tuned = (Counter(getattr(r.judgement, field) for r in part) for part in (before, after))
    return tuple(CountPair(n, base[n], tuned[n]) for n in names if base[n] or tuned[n])
