"""Load benchmark of `calltune serve`, against mlx_lm's server on the same model and machine.

python benchmarks/serve_load.py --adapter adapters/smollm2

Clients ask questions and check their own answers, the servers in turns; then, unless told
otherwise, one long run and one with more clients than the server takes. Each line goes to
benchmarks/results.jsonl. See README.md beside this file.
"""

import argparse
import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import httpx
import serve_report
from interleave import interleaved
from serve_client import Asked, ask, ask_all, open_client
from serve_engines import Server
from serve_options import parsed
from serve_questions import Question, make_questions
from serve_report import Block, Memory

import report

REQUESTS = {1: 8, 8: 32, 32: 64, 128: 256}
"""Requests per turn, by the number of clients; for other numbers two per client."""
MEMORY_EVERY_S = 1.0
MAX_WAIT_S = 5.0
"""The longest that a client waits before it tries again."""


@dataclass(frozen=True, slots=True)
class Load:
    """A number of clients and what they send."""

    part: str
    """load, soak or overload."""
    n_clients: int
    is_streamed: bool
    n_requests: int
    deadline_s: float


class Contender:
    """A server, its answers to each question asked alone, and its measurements."""

    def __init__(self, server: Server, questions: list[Question], timeout_s: float) -> None:
        self.server = server
        self.alone: dict[Question, str] = {}
        self.blocks: dict[Load, list[Block]] = {}
        """The turns of each load so far."""
        self._questions = questions
        self._timeout_s = timeout_s
        self._unasked = cycle(questions)

    async def ask_alone(self) -> None:
        """Ask every question alone, which also warms the server up.

        Raises:
            SystemExit: an answer did not come.
        """
        async with open_client(self.server.url, self._timeout_s) as client:
            for question in self._questions:
                reply = await ask(client, question.body(self.server.model, is_streamed=False))
                if reply.status != 200:
                    sys.exit(f"{self.server.name} answers {reply.status}: {reply.error}")
                self.alone[question] = reply.text

    async def take(self, load: Load) -> None:
        """Run one turn of a load, beginning with the question after the turn before it."""
        memory = [Memory(time.perf_counter(), self.server.memory_mb())]
        watch = asyncio.create_task(_watch(self.server, memory))
        cpu_s, started = time.process_time(), time.perf_counter()
        server_cpu_s = self.server.cpu_s()
        async with open_client(self.server.url, self._timeout_s) as client:
            asked = await self._asked(client, load)
        seconds = time.perf_counter() - started
        watch.cancel()
        self.server.check()
        memory.append(Memory(time.perf_counter(), self.server.memory_mb()))
        block = Block(
            asked=asked,
            seconds=seconds,
            memory=memory,
            client_cpu_s=time.process_time() - cpu_s,
            server_cpu_s=self.server.cpu_s() - server_cpu_s,
        )
        self.blocks.setdefault(load, []).append(block)

    async def _asked(self, client: httpx.AsyncClient, load: Load) -> list[Asked]:
        return await ask_all(
            client,
            islice(self._unasked, load.n_requests),
            lambda question: question.body(self.server.model, load.is_streamed),
            load.n_clients,
            deadline_s=load.deadline_s,
            max_wait_s=MAX_WAIT_S,
        )


async def in_turns(contenders: Sequence[Contender], loads: Sequence[Load], rounds: int) -> None:
    """Run every load on every server once a round, with the other servers suspended."""
    for contender in contenders:
        contender.server.pause()
    for index, contender in interleaved(contenders, rounds):
        contender.server.resume()
        for load in loads:
            _say(f"round {index + 1}: {contender.server.name}, {_words(load)}")
            await contender.take(load)
        contender.server.pause()
    for contender in contenders:
        contender.server.resume()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; exit status 0 if calltune lost no response and mixed none up."""
    given = parsed(arguments)
    # A time limit ends it as Ctrl-C does: with its servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers = [
        Server(
            name,
            given.model,
            given.adapter,
            given.logs / f"{name}.log",
            _flags(name, given),
            device=given.device,
        )
        for name in given.engine
    ]
    contenders = [
        Contender(each, make_questions(given.questions), given.timeout_s) for each in servers
    ]
    try:
        asyncio.run(_all_parts(given, contenders))
    except KeyboardInterrupt:
        _say("interrupted: these are the turns that were done")
    finally:
        for server in servers:
            server.stop()
    lines = [
        _line(c, load, given) for load in _done(contenders) for c in contenders if load in c.blocks
    ]
    surroundings = report.surroundings(given.commit)
    for line in lines:
        if given.results is not None:
            report.append(given.results, line | surroundings)
    print(serve_report.table(lines))
    faults = [f"{_title(line)}: {fault}" for line in lines for fault in line["faults"]]
    print("\n".join(faults) or "No request was lost or mixed up")
    return 1 if any(line["faults"] for line in lines if line["engine"] == "calltune") else 0


async def _all_parts(given: argparse.Namespace, contenders: list[Contender]) -> None:
    for contender in contenders:
        name, ready_s = contender.server.name, contender.server.wait_until_ready()
        _say(f"{name} is ready after {ready_s:.1f} s; asking it alone")
        await contender.ask_alone()
        contender.server.pause()
    if "load" in given.part:
        await in_turns(contenders, _loads(given), given.rounds)
    for part in ("soak", "overload"):
        if part in given.part:
            contenders[0].server.resume()
            _say(f"{part}: {contenders[0].server.name}")
            await contenders[0].take(_lasting(part, given))


def _lasting(part: str, given: argparse.Namespace) -> Load:
    """A load that is limited by time and not by a number of requests."""
    if part == "soak":
        return Load(part, given.soak_clients, True, sys.maxsize, given.soak_s)
    return Load(part, given.overload_clients, False, sys.maxsize, given.overload_s)


def _done(contenders: Sequence[Contender]) -> list[Load]:
    """The loads that have results, in the order in which they ran."""
    return list(dict.fromkeys(load for contender in contenders for load in contender.blocks))


def _line(contender: Contender, load: Load, given: argparse.Namespace) -> dict[str, Any]:
    blocks = contender.blocks[load]
    line = {
        "benchmark": "serve_load",
        "part": load.part,
        "engine": contender.server.name,
        "model": given.model,
        "adapter": bool(given.adapter),
        "device": given.device,
        "clients": load.n_clients,
        "streaming": load.is_streamed,
        "flags": shlex.join(_flags(contender.server.name, given)),
    } | serve_report.setting_line(blocks, contender.alone)
    asked = [each for block in blocks for each in block.asked]
    return line | {"faults": faults(load.part, asked, line)}


def faults(part: str, asked: Sequence[Asked], line: dict[str, Any]) -> list[str]:
    """What went wrong, as sentences."""
    found = [f"{n} answers mixed up"] if (n := line["answers"]["mixed_up"]) else []
    if part == "overload":
        found += serve_report.refusal_faults(asked)
        found += [] if "429" in line["statuses"] else ["nothing was refused; give more clients"]
    else:
        found += [f"{n} x status {s}" for s, n in line["statuses"].items() if s != "200"]
    return found


async def _watch(server: Server, memory: list[Memory]) -> None:
    while True:
        await asyncio.sleep(MEMORY_EVERY_S)
        memory.append(Memory(time.perf_counter(), server.memory_mb()))


def _loads(given: argparse.Namespace) -> list[Load]:
    return [
        Load("load", n, is_streamed, min(REQUESTS.get(n, 2 * n), given.max_requests), given.turn_s)
        for n in given.clients
        for is_streamed in (False, True)
    ]


def _flags(name: str, given: argparse.Namespace) -> list[str]:
    return shlex.split(given.calltune_flags if name == "calltune" else given.mlx_lm_flags)


def _words(load: Load) -> str:
    return f"{load.n_clients} clients{', streaming' if load.is_streamed else ''}"


def _title(line: dict[str, Any]) -> str:
    return f"{line['engine']}, {line['part']} of {line['clients']} clients"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
