"""Work on schemas in processes of their own: what takes too long is stopped, and nothing else."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import psutil
import pytest

from calltune.formats.grammar import OutputSpec
from calltune.serving.errors import APIError
from calltune.serving.grammar_jobs import CompileRequest, encode_compile, encode_validate
from calltune.serving.grammar_pool import GrammarPool
from calltune.types import Json

from support.hostile_schemas import ordinary

BOMB: tuple[Json, Json] = ("a" * 60 + "!", {"pattern": "^(a+)+$"})


def request(name: str = "paint", **parameters: Json) -> CompileRequest:
    schema: Json = {"type": "object", "properties": {}, "required": []} | parameters
    tool: dict[str, Json] = {"name": name, "description": "", "parameters": schema}
    return CompileRequest("chatml", (), (tool,), OutputSpec())


def in_pool(work: Callable[[GrammarPool], Awaitable[None]], n_processes: int = 1) -> None:
    async def run() -> None:
        pool = GrammarPool(n_processes)
        await pool.start()
        try:
            await work(pool)
        finally:
            await pool.close()

    asyncio.run(run())


def workers() -> list[int]:
    """The ids of this process's grammar workers."""
    children = psutil.Process().children()
    return [c.pid for c in children if "calltune.serving.grammar_worker" in c.cmdline()]


def test_what_takes_for_ever_is_stopped_and_the_next_job_has_its_result() -> None:
    async def work(pool: GrammarPool) -> None:
        assert await pool.validate("aaa", BOMB[1]) and not await pool.validate("b", BOMB[1])
        before = workers()
        assert not await pool.validate(*BOMB)
        compiled = await pool.compile(request())
        assert compiled.tools[0].name == "paint" and compiled.grammar is not None
        # Stopped was a child: what is loaded need not be loaded again.
        assert workers() == before and len(before) == 1

    in_pool(work)


def test_a_process_that_ends_costs_one_job() -> None:
    async def work(pool: GrammarPool) -> None:
        (process_id,) = workers()
        os.kill(process_id, signal.SIGKILL)
        with pytest.raises(APIError, match="too complex"):
            await pool.compile(request())
        assert (await pool.compile(request())).grammar is not None
        assert len(workers()) == 1 and workers() != [process_id]

    in_pool(work)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_tells_the_server_to_end_leaves_its_workers_running(number: int) -> None:
    async def work(pool: GrammarPool) -> None:
        before = workers()
        os.kill(before[0], number)
        assert (await pool.compile(request())).grammar is not None
        assert workers() == before

    in_pool(work)


def test_equal_requests_are_compiled_once() -> None:
    async def work(pool: GrammarPool) -> None:
        first = await pool.compile(request("a"))
        assert await pool.compile(request("a")) is first
        assert await pool.compile(request("b")) is not first

    in_pool(work)


def test_a_request_that_is_refused_says_why() -> None:
    async def work(pool: GrammarPool) -> None:
        with pytest.raises(APIError, match=r"paint: .*type"):
            await pool.compile(request(type="string")._replace(strict=("paint",)))

    in_pool(work)


LOADED = """
import sys
from calltune.serving.grammar_jobs import run_job, warm_up
warm_up()
before = set(sys.modules)
for line in sys.stdin:
    run_job(line)
print(sorted(set(sys.modules) - before))
"""


def test_what_jobs_need_is_loaded_before_a_child_is_forked() -> None:
    lines = [encode_compile(request(**ordinary(number))) for number in range(20)]
    lines.append(encode_validate({"x": "a"}, {"properties": {"x": {"type": "string"}}}))
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
    HARM["takes memory"] = "bytes(grammar_worker.MAX_BYTES)"
WORKER = """
import os, signal
from calltune.serving import grammar_worker
def run_job(line):
    if "harm" in line:
        {harm}
    return line.strip()
grammar_worker.run_job = run_job
grammar_worker.PROCESSOR_SECONDS, grammar_worker.SECONDS = {limits}
grammar_worker.main()
"""


@pytest.mark.parametrize("kind", HARM)
def test_a_child_that_comes_to_harm_is_reported_as_stopped(kind: str) -> None:
    limits = (0.1, 600.0) if kind == "works for ever" else (600.0, 0.5)
    code = WORKER.format(harm=HARM[kind], limits=limits)
    lines = "\n1\nharm\n2\n"
    done = subprocess.run(
        [sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["null", "1", "null", "2"]
    assert ("for the log" in done.stderr) == (kind == "fails")
