"""Robustness of `calltune serve` against 1,000 hostile and 10,000 ordinary schemas.

python benchmarks/serve_fuzz.py

Each hostile schema must be enforced, or refused with a reason within five seconds, while other
clients go on; ordinary ones, all different, must leave nothing behind in memory or on disk.
The line goes to benchmarks/results.jsonl. See README.md beside this file.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from serve_client import CHAT, Asked, ask_all, open_client
from serve_engines import Server
from serve_questions import Question, make_questions
from serve_report import Memory, memory_line, quantiles

import report

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

N_SENDERS = 2
"""Clients that send schemas at the same time."""
N_OTHERS = 4
"""Other clients in the meantime, which always offer the same tools."""
SHOWN = 400
"""Characters of a failed schema that are recorded."""


class Sent(NamedTuple):
    """The response to a body; status 0 if there was none."""

    number: int
    status: int
    answer: Any
    seconds: float


class Others:
    """Clients that ask ordinary questions until they are stopped."""

    def __init__(self, server: Server, client: httpx.AsyncClient) -> None:
        self._is_over = False
        questions = takewhile(lambda _: not self._is_over, cycle(make_questions(64)))

        def body(question: Question) -> dict[str, Any]:
            return question.body(server.model, is_streamed=False, max_tokens=24)

        asking = ask_all(client, questions, body, N_OTHERS, deadline_s=float("inf"))
        self._asked: asyncio.Task[list[Asked]] = asyncio.create_task(asking)

    async def stop(self) -> dict[str, Any]:
        """Stop them; the statuses and latencies of their requests."""
        self._is_over = True
        asked = await self._asked
        counts = Counter(str(each.reply.status or "none") for each in asked)
        return {"statuses": dict(counts)} | (quantiles([e.reply.seconds for e in asked]) or {})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both parts; exit status 0 if no hostile schema did harm and all ordinary ones worked."""
    given = _parsed(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        temporary = place / "temporary"
        temporary.mkdir()
        model = given.model or _tiny(place / "model")
        flags = ["--max-tokens", "200", "--max-context", str(given.max_context)]
        variables = {"TMPDIR": str(temporary)}
        log = given.logs / "fuzz.log"
        server = Server("calltune", model, given.adapter, log, flags, given.device, variables)
        try:
            server.wait_until_ready()
            found = asyncio.run(_both_parts(server, given, temporary))
        finally:
            server.stop()
    line = {"benchmark": "serve_fuzz", "model": given.model or "random weights"}
    line |= {"device": given.device, "max_context": given.max_context} | found
    if given.results is not None:
        report.append(given.results, line | report.surroundings(given.commit))
    print(json.dumps(line, indent=2))
    is_fine = not line["hostile"]["faults"] and set(line["ordinary"]["statuses"]) == {"200"}
    return 0 if is_fine else 1


async def _both_parts(server: Server, given: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    async with open_client(server.url, timeout_s=60) as client:
        await _undisturbed(server, client, given.quiet_s)
        before = await _undisturbed(server, client, given.quiet_s)
        hostile = await _hostile(server, client, given.hostile)
        after = await _undisturbed(server, client, given.quiet_s)
        ordinary = await _ordinary(server, client, given.ordinary, temporary)
    meanwhile = hostile.pop("others")
    ratio = meanwhile["p99"] / max(before["p99"], after["p99"])
    others = {"before": before, "meanwhile": meanwhile, "after": after, "ratio": round(ratio, 2)}
    return {"hostile": hostile, "others": others, "ordinary": ordinary}


async def _undisturbed(server: Server, client: httpx.AsyncClient, seconds: float) -> dict[str, Any]:
    others = Others(server, client)
    await asyncio.sleep(seconds)
    return await others.stop()


async def _hostile(server: Server, client: httpx.AsyncClient, count: int) -> dict[str, Any]:
    from support.hostile_schemas import body, hostile

    schemas = hostile(count)
    others = Others(server, client)
    bodies = (body(schema, server.model, max_tokens=100) for schema in schemas)
    sent = await _send_all(client, bodies, lambda _: server.check())
    # Judging takes seconds, in which the others could not look at what they got.
    waited = await others.stop()
    return verdicts(schemas, sent) | {"others": waited}


async def _ordinary(
    server: Server, client: httpx.AsyncClient, count: int, temporary: Path
) -> dict[str, Any]:
    from support.hostile_schemas import body, ordinary

    memory: list[Memory] = []
    disk = [_mb(temporary)]

    def watch(number: int) -> None:
        if number % max(1, count // 200) == 0:
            server.check()
            memory.append(Memory(time.perf_counter(), server.memory_mb()))

    bodies = (body(ordinary(number), server.model, max_tokens=4) for number in range(count))
    sent = await _send_all(client, bodies, watch)
    return {
        "schemas": count,
        "statuses": dict(Counter(str(each.status) for each in sent)),
        "seconds": quantiles([each.seconds for each in sent]),
        "memory_mb": memory_line(memory),
        "memory_mb_by_tenth": [round(point.mb) for point in memory[:: max(1, len(memory) // 10)]],
        "disk_mb": {"first": disk[0], "last": _mb(temporary)},
    }


def verdicts(schemas: Sequence[Any], sent: Sequence[Sent]) -> dict[str, Any]:
    """The number of each verdict in total and by kind of schema, and each fault."""
    from support.hostile_answers import judge

    counts: dict[str, Counter[str]] = {}
    faults = []
    for each in sent:
        schema = schemas[each.number]
        verdict = judge(each.status, each.answer, schema.text, each.seconds)
        counts.setdefault(schema.kind, Counter())[verdict.what] += 1
        if verdict.what == "fault":
            faults.append({"schema": schema.text[:SHOWN], "why": verdict.why})
    return {
        "schemas": len(sent),
        "verdicts": dict(sum(counts.values(), Counter())),
        "by_kind": {kind: dict(found) for kind, found in sorted(counts.items())},
        "seconds": quantiles([each.seconds for each in sent]),
        "seconds_refused": quantiles([each.seconds for each in sent if each.status // 100 == 4]),
        "faults": faults,
    }


async def _send_all(
    client: httpx.AsyncClient, bodies: Iterable[bytes], after: Callable[[int], None]
) -> list[Sent]:
    """Send all bodies, `N_SENDERS` at a time, calling `after` with the number of each response."""
    numbered = iter(enumerate(bodies))
    found: list[Sent] = []

    async def one_sender() -> None:
        for number, body in numbered:
            found.append(await _send(client, number, body))
            after(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(N_SENDERS):
            group.create_task(one_sender())
    return found


async def _send(client: httpx.AsyncClient, number: int, body: bytes) -> Sent:
    started = time.perf_counter()
    try:
        response = await client.post(CHAT, content=body)
        status, answer = response.status_code, response.json()
    except (httpx.HTTPError, ValueError) as failure:
        status, answer = 0, f"{type(failure).__name__}: {failure}"
    return Sent(number, status, answer, time.perf_counter() - started)


def _tiny(folder: Path) -> str:
    from support.tiny import write_llama

    return str(write_llama(folder))


def _mb(folder: Path) -> float:
    """The size of the files in a folder, in megabytes."""
    return round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 3)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", help="a tiny one with random weights unless given")
    add("--adapter", help="folder of an adapter of that model")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--hostile", type=int, default=1_000, help="hostile schemas")
    add("--ordinary", type=int, default=10_000, help="ordinary schemas")
    add("--max-context", type=int, default=2_048, help="longest prompt with its answer")
    add("--quiet-s", type=float, default=30, help="seconds of other clients before and after")
    add("--logs", type=Path, default=Path(".bench/serve"))
    add("--results", type=Path, default=HERE / "results.jsonl")
    add("--no-record", dest="results", action="store_const", const=None)
    add("--commit", help="to record where the code is no git checkout")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
