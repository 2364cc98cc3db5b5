"""Schemas compiled in processes of their own, so that none can hold up or bring down the server."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from typing import Any

from calltune.serving.errors import Fault
from calltune.serving.grammar_jobs import (
    Order,
    Prepared,
    Refused,
    Stopped,
    check_line,
    order_line,
    read_checked,
    read_prepared,
)
from calltune.types import Json

N_PROCESSES = 4
START_SECONDS = 30.0
SECONDS = 10.0
"""A bench stops what takes too long long before; one that does not is stopped itself."""
MAX_KEPT = 128
"""Prepared orders are kept for requests with the same tools."""
MAX_LINE_LENGTH = 64 << 20


class Workshop:
    """Prepares orders; the same one again is at hand."""

    def __init__(self, n_processes: int = N_PROCESSES) -> None:
        self._benches: asyncio.Queue[_Bench] = asyncio.Queue()
        self._all = [_Bench() for _ in range(n_processes)]
        for bench in self._all:
            self._benches.put_nowait(bench)
        self._kept: OrderedDict[str, Prepared] = OrderedDict()

    async def start(self) -> None:
        """Start the processes before the first request."""
        await asyncio.gather(*(bench.start() for bench in self._all))

    async def prepare(self, order: Order) -> Prepared:
        """What answers to this order are made with.

        Raises:
            Fault: it was refused, or took too long.
        """
        key = order_line(order)
        if key not in self._kept:
            self._kept[key] = await self._prepare(key)
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    async def check(self, value: Json, schema: Json) -> bool:
        """Whether a value satisfies a schema; not, where that takes too long to say."""
        try:
            return read_checked(await self._work(check_line(value, schema)))
        except (TimeoutError, OSError):
            return False

    @property
    def process_ids(self) -> list[int]:
        """The system's numbers of the processes that run."""
        return [bench.process_id for bench in self._all if bench.process_id is not None]

    async def close(self) -> None:
        """End the processes."""
        await asyncio.gather(*(bench.stop() for bench in self._all))

    async def _prepare(self, line: str) -> Prepared:
        try:
            return read_prepared(await self._work(line))
        except Refused as reason:
            raise Fault(422, f"The schemas cannot be used: {reason}", code="bad_schema") from None
        except (Stopped, TimeoutError, OSError):
            raise Fault(
                422,
                "The schemas of this request are too complex to be compiled; simplify them",
                code="schema_too_complex",
            ) from None

    async def _work(self, line: str) -> bytes:
        bench = await self._benches.get()
        try:
            return await bench.work(line)
        finally:
            self._benches.put_nowait(bench)


class _Bench:
    """One process, started anew should it end."""

    def __init__(self) -> None:
        self._process: Process | None = None

    @property
    def process_id(self) -> int | None:
        """The system's number for it, while it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> Process:
        """The process, when it is ready to work."""
        if self._process is None or self._process.returncode is not None:
            command = (sys.executable, "-m", "calltune.serving.grammar_worker")
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, limit=MAX_LINE_LENGTH
            )
            # It answers when it has loaded what it needs.
            await self._ask("", START_SECONDS)
        return self._process

    async def work(self, line: str) -> bytes:
        """What it answers to a line.

        Raises:
            OSError: it ended.
            TimeoutError: it took too long, and was stopped.
        """
        await self.start()
        return await self._ask(line, SECONDS)

    async def stop(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _ask(self, line: str, seconds: float) -> bytes:
        process: Any = self._process
        try:
            async with asyncio.timeout(seconds):
                process.stdin.write(f"{line}\n".encode())
                await process.stdin.drain()
                answer: bytes = await process.stdout.readline()
        except BaseException:
            # What it would still write must not be taken for an answer to the next line.
            await self.stop()
            raise
        if not answer:
            await self.stop()
            raise ConnectionResetError("the process ended")
        return answer
