"""From the answers of servers under load to lines of results, and a table of those lines."""

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
    """Resident memory of a server at one moment."""

    at_s: float
    mb: float


@dataclass(slots=True)
class Block:
    """What one server did in one turn."""

    asked: list[Asked]
    seconds: float
    memory: list[Memory]
    client_cpu_s: float
    """Processor seconds of the clients, which share the machine."""
    server_cpu_s: float


@dataclass(slots=True)
class Score:
    """How many answers are what the same server says when it has nothing else to do."""

    same: int = 0
    other: int = 0
    """Not the same, and yet no other question's: sums of a batch round differently."""
    mixed_up: int = 0
    """Another question's answer: its number and its city."""
    named_own: int = 0
    """Has the question's own number."""
    shown: list[dict[str, str]] = field(default_factory=list)
    """A few answers that are not the same."""


def score(asked: Sequence[Asked], alone: dict[Question, str]) -> Score:
    """Compare answers with those that came when each question was asked alone."""
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
    """One server in one setting over all its turns."""
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
    """How many requests ended with each status; "none" is no answer at all."""
    counts = Counter(each.reply.status for each in asked)
    return {str(status or "none"): counts[status] for status in sorted(counts)}


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """The nearest ranks at 50, 95 and 99 per cent, and the most; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    found = {f"p{share}": ordered[-(-share * len(ordered) // 100) - 1] for share in (50, 95, 99)}
    return {name: round(value, 3) for name, value in (found | {"max": ordered[-1]}).items()}


def memory_line(points: Sequence[Memory]) -> dict[str, float] | None:
    """First, last and most, what the first and last quarter average, and the slope an hour.

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
    """What is wrong with the answers of a server with more clients than it takes.

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
    """Whether it is an error as OpenAI's API writes it."""
    error = body.get("error") if isinstance(body, dict) else None
    return (
        isinstance(error, dict)
        and set(error) == {"message", "type", "param", "code"}
        and bool(error["message"])
        and isinstance(error["message"], str)
        and isinstance(error["type"], str)
    )


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines of load side by side."""
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
    """Of the prompts' tokens, those that the server had at hand; None where it does not say."""
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
