"""Results of the load benchmark: from answers to lines of results.jsonl, and a table of them."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from serve_client import Asked, Reply
from serve_questions import Question, is_mixed_up

import report

FEW_ERRORS = 5


class Memory(NamedTuple):
    """The resident memory of a server at one time."""

    at_s: float
    mb: float


@dataclass(slots=True)
class Block:
    """The answers and measurements of one server in one turn."""

    asked: list[Asked]
    seconds: float
    memory: list[Memory]
    client_cpu_s: float
    """Processor time of the clients, in seconds; they share the machine."""
    server_cpu_s: float


@dataclass(slots=True)
class Score:
    """How many answers are equal to the same server's answer to the same question alone."""

    same: int = 0
    other: int = 0
    """Different from it, but not another question's: in a batch, sums are rounded differently."""
    mixed_up: int = 0
    """With the number and city of another question."""
    named_own: int = 0
    """With the number of the question itself."""
    shown: list[dict[str, str]] = field(default_factory=list)
    """A few of the answers that are different."""


def score(asked: Sequence[Asked], alone: dict[Question, str]) -> Score:
    """Compare answers with those to the same questions asked alone."""
    found, questions = Score(), list(alone)
    for each in asked:
        if each.reply.status != 200:
            continue
        text = each.reply.text
        found.named_own += str(each.question.number) in text
        if text == alone[each.question]:
            found.same += 1
            continue
        mixed = is_mixed_up(each.question, text, questions)
        found.mixed_up += mixed
        found.other += not mixed
        if len(found.shown) < FEW_ERRORS:
            found.shown.append({"alone": alone[each.question], "under_load": text})
    return found


def setting_line(blocks: Sequence[Block], alone: dict[Question, str]) -> dict[str, Any]:
    """The line of one server in one setting, over all its turns."""
    asked = [each for block in blocks for each in block.asked]
    answered = [each.reply for each in asked if each.reply.status == 200]
    rates = [sum(e.reply.status == 200 for e in b.asked) / b.seconds for b in blocks]
    tokens = [sum(e.reply.tokens for e in b.asked) / b.seconds for b in blocks]
    prompt = sum(int(reply.usage.get("prompt_tokens", 0)) for reply in answered)
    found = score(asked, alone)
    line = {
        "rounds": len(blocks),
        "requests": len(asked),
        "statuses": statuses(asked),
        "requests_per_second": report.spread(rates),
        "answer_tokens_per_second": report.spread(tokens),
        "answer_tokens": sum(reply.tokens for reply in answered),
        "prompt_tokens": prompt,
        "cached_share": _cached_share(answered),
        "latency_s": quantiles([reply.seconds for reply in answered]),
        "first_s": quantiles([r.first_s for r in answered if r.first_s is not None]),
        "answers": {
            "same_as_alone": found.same,
            "other": found.other,
            "mixed_up": found.mixed_up,
            "with_own_number": found.named_own,
        },
        "memory_mb": memory_line([point for block in blocks for point in block.memory]),
        "client_cpu_share": round(sum(b.client_cpu_s for b in blocks) / _seconds(blocks), 3),
        "server_cpu_share": round(sum(b.server_cpu_s for b in blocks) / _seconds(blocks), 3),
    }
    if found.shown:
        line["not_as_alone"] = found.shown
    if errors := _errors(asked):
        line["errors"] = errors
    return line


def statuses(asked: Sequence[Asked]) -> dict[str, int]:
    """How many requests ended with each status; "none" is without a response."""
    counts = Counter(each.reply.status for each in asked)
    return {str(status or "none"): counts[status] for status in sorted(counts)}


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """The 50th, 95th and 99th percentile by nearest rank, and the maximum; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    found = {f"p{share}": ordered[-(-share * len(ordered) // 100) - 1] for share in (50, 95, 99)}
    return {name: round(value, 3) for name, value in (found | {"max": ordered[-1]}).items()}


def memory_line(points: Sequence[Memory]) -> dict[str, float] | None:
    """First, last and maximum memory, means of the first and last quarter, and growth per hour.

    The slope is the second half's: before that, caches fill.
    """
    if not points:
        return None
    mbs = [point.mb for point in points]
    quarter = max(1, len(mbs) // 4)
    found = {
        "first": mbs[0],
        "last": mbs[-1],
        "max": max(mbs),
        "first_quarter": statistics.fmean(mbs[:quarter]),
        "last_quarter": statistics.fmean(mbs[-quarter:]),
    }
    late = points[len(points) // 2 :]
    if len({point.at_s for point in late}) > 1:
        slope = statistics.linear_regression([p.at_s for p in late], [p.mb for p in late]).slope
        found["slope_mb_per_hour"] = slope * 3600
    return {name: round(value, 1) for name, value in found.items()}


def refusal_faults(asked: Sequence[Asked]) -> list[str]:
    """What is wrong with the responses of a server with more clients than it accepts.

    Only 200 and 429 may come, and a 429 says when to come back, in OpenAI's error body.
    """
    faults = Counter[str]()
    for each in asked:
        reply = each.reply
        if reply.status == 200:
            continue
        if reply.status != 429:
            faults[f"status {reply.status or 'none'}: {str(reply.error)[:100]}"] += 1
            continue
        if not (reply.retry_after or "").isdecimal():
            faults[f"429 with Retry-After {reply.retry_after}"] += 1
        if not is_typed(reply.error):
            faults[f"429 with the body {str(reply.error)[:100]}"] += 1
    return [f"{count} x {fault}" for fault, count in faults.items()]


def is_typed(body: Any) -> bool:
    """Whether a body is an error object of OpenAI's API."""
    error = body.get("error") if isinstance(body, dict) else None
    return (
        isinstance(error, dict)
        and set(error) == {"message", "type", "param", "code"}
        and bool(error["message"])
        and isinstance(error["message"], str)
        and isinstance(error["type"], str)
    )


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A table of the lines of the load part."""
    head = ("engine", "clients", "req/s", "tokens/s", "first p50", "p50", "p95", "p99")
    head += ("statuses", "same", "other", "mixed", "MB")
    rows = [head, *map(_row, lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    latency, first = line["latency_s"] or {}, line["first_s"] or {}
    answers = line["answers"]
    return (
        line["engine"],
        f"{line['clients']}{' streaming' if line['streaming'] else ''}",
        f"{line['requests_per_second']['median']:.3g}",
        f"{line['answer_tokens_per_second']['median']:.3g}",
        f"{first['p50']:.2f}" if first else "",
        *(f"{latency[name]:.2f}" if latency else "" for name in ("p50", "p95", "p99")),
        " ".join(f"{status}:{count}" for status, count in line["statuses"].items()),
        *(str(answers[name]) for name in ("same_as_alone", "other", "mixed_up")),
        f"{line['memory_mb']['max']:.0f}" if line["memory_mb"] else "",
    )


def _cached_share(answered: Sequence[Reply]) -> float | None:
    """The share of prompt tokens that were cached; None if the server does not report it."""
    told = [reply.usage for reply in answered if "prompt_tokens_details" in reply.usage]
    if not told:
        return None
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in told)
    return round(cached / sum(usage["prompt_tokens"] for usage in told), 3)


def _seconds(blocks: Sequence[Block]) -> float:
    return sum(block.seconds for block in blocks)


def _errors(asked: Sequence[Asked]) -> dict[str, int]:
    counts = Counter(str(each.reply.error)[:120] for each in asked if each.reply.status != 200)
    return dict(counts.most_common(FEW_ERRORS))
