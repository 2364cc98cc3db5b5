"""Work on schemas in processes of their own: what takes too long is stopped, and nothing else."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from calltune.formats.grammar import OutputSpec
from calltune.serving.errors import Fault
from calltune.serving.grammar_jobs import Order, check_line, order_line
from calltune.serving.grammar_pool import Workshop
from calltune.types import Json

from support.hostile_schemas import ordinary

BOMB: tuple[Json, Json] = ("a" * 60 + "!", {"pattern": "^(a+)+$"})


def order(name: str = "paint", **parameters: Json) -> Order:
    schema: Json = {"type": "object", "properties": {}, "required": []} | parameters
    tool: dict[str, Json] = {"name": name, "description": "", "parameters": schema}
    return Order("chatml", (), (tool,), OutputSpec(), False)


def in_workshop(work: Callable[[Workshop], Awaitable[None]], n_processes: int = 1) -> None:
    async def run() -> None:
        workshop = Workshop(n_processes)
        await workshop.start()
        try:
            await work(workshop)
        finally:
            await workshop.close()

    asyncio.run(run())


def test_what_takes_for_ever_is_stopped_and_the_next_order_has_its_answer() -> None:
    async def work(workshop: Workshop) -> None:
        assert await workshop.check("aaa", BOMB[1]) and not await workshop.check("b", BOMB[1])
        before = workshop.process_ids
        assert not await workshop.check(*BOMB)
        prepared = await workshop.prepare(order())
        assert prepared.tools[0].name == "paint" and prepared.grammar is not None
        # Stopped was a child: what is loaded need not be loaded again.
        assert workshop.process_ids == before

    in_workshop(work)


def test_a_process_that_ends_costs_one_order() -> None:
    async def work(workshop: Workshop) -> None:
        (process_id,) = workshop.process_ids
        os.kill(process_id, signal.SIGKILL)
        with pytest.raises(Fault, match="too complex"):
            await workshop.prepare(order())
        assert (await workshop.prepare(order())).grammar is not None
        assert workshop.process_ids != [process_id]

    in_workshop(work)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_tells_the_server_to_end_leaves_its_workshop_at_work(number: int) -> None:
    async def work(workshop: Workshop) -> None:
        before = workshop.process_ids
        os.kill(before[0], number)
        assert (await workshop.prepare(order())).grammar is not None
        assert workshop.process_ids == before

    in_workshop(work)


def test_equal_orders_are_worked_on_once() -> None:
    async def work(workshop: Workshop) -> None:
        first = await workshop.prepare(order("a"))
        assert await workshop.prepare(order("a")) is first
        assert await workshop.prepare(order("b")) is not first

    in_workshop(work)


def test_an_order_that_is_refused_says_why() -> None:
    async def work(workshop: Workshop) -> None:
        with pytest.raises(Fault, match=r"tool paint: .*type"):
            await workshop.prepare(order(type="string"))

    in_workshop(work)


LOADED = """
import sys
from calltune.serving.grammar_jobs import answer, load
load()
before = set(sys.modules)
for line in sys.stdin:
    answer(line)
print(sorted(set(sys.modules) - before))
"""


def test_what_orders_need_is_loaded_before_a_child_is_forked() -> None:
    lines = [order_line(order(**ordinary(number))) for number in range(20)]
    lines.append(check_line({"x": "a"}, {"properties": {"x": {"type": "string"}}}))
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


HARM = {
    "fails": "raise ValueError('for the log')",
    "ends": "os.kill(os.getpid(), signal.SIGKILL)",
    "works for ever": "while True: pass",
    "waits for ever": "signal.pause()",
}
if sys.platform == "linux":
    # macOS has no limit that would stop it.
    HARM["takes memory"] = "bytes(bench.MOST_BYTES)"
BENCH = """
import os, signal
from calltune.serving import bench
def answer(line):
    if "harm" in line:
        {harm}
    return line.strip()
bench.answer = answer
bench.PROCESSOR_SECONDS, bench.SECONDS = {limits}
bench.main()
"""


@pytest.mark.parametrize("kind", HARM)
def test_a_child_that_comes_to_harm_is_said_to_be_stopped(kind: str) -> None:
    limits = (0.1, 600.0) if kind == "works for ever" else (600.0, 0.5)
    code = BENCH.format(harm=HARM[kind], limits=limits)
    lines = "\n1\nharm\n2\n"
    done = subprocess.run(
        [sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["null", "1", "null", "2"]
    assert ("for the log" in done.stderr) == (kind == "fails")
