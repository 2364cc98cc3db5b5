"""A pool of grammar worker processes, so that no schema can block or crash the server."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict
from typing import Any

from calltune.serving.errors import APIError
from calltune.serving.grammar_jobs import (
    CompileRefused,
    CompileRequest,
    CompileResult,
    CompileStopped,
    decode_compiled,
    decode_valid,
    encode_compile,
    encode_validate,
)
from calltune.types import Json

N_PROCESSES = 4
START_SECONDS = 30.0
SECONDS = 10.0
"""A worker that takes longer for a job is killed; it should have stopped the job long before."""
CACHE_SIZE = 128
"""How many results are kept for requests with the same tools."""
MAX_LINE_LENGTH = 64 << 20


class GrammarPool:
    """Compiles and validates schemas in other processes, and caches what was compiled."""

    def __init__(self, n_processes: int = N_PROCESSES) -> None:
        """The processes begin with `start`, or with the first job."""
        self._processes = [_WorkerProcess() for _ in range(n_processes)]
        self._idle: asyncio.Queue[_WorkerProcess] = asyncio.Queue()
        for process in self._processes:
            self._idle.put_nowait(process)
        self._cache: OrderedDict[str, CompileResult] = OrderedDict()

    async def start(self) -> None:
        """Start the processes and wait until they are ready."""
        await asyncio.gather(*(process.start() for process in self._processes))

    async def compile(self, request: CompileRequest) -> CompileResult:
        """The usable tools of a request and the grammar of its answers.

        Raises:
            APIError: the schemas cannot be used (422), or take too long to compile (422).
        """
        key = encode_compile(request)
        if key not in self._cache:
            self._cache[key] = await self._compile(request)
            if len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    async def validate(self, value: Json, schema: Json) -> bool:
        """Whether a value satisfies a schema; False if that takes too long to find out."""
        try:
            return decode_valid(await self._run(encode_validate(value, schema)))
        except (TimeoutError, OSError):
            return False

    async def close(self) -> None:
        """End the processes."""
        await asyncio.gather(*(process.stop() for process in self._processes))

    async def _compile(self, request: CompileRequest) -> CompileResult:
        try:
            return decode_compiled(await self._run(encode_compile(request)))
        except CompileRefused as reason:
            raise APIError(
                422, f"The schemas cannot be used: {reason}", code="bad_schema"
            ) from None
        except CompileStopped:
            if request.tools and not (request.is_loose or request.strict):
                # One schema is too complex, and it may be one that nobody asked for.
                return await self._compile(request._replace(is_loose=True))
            raise _too_complex() from None
        except (TimeoutError, OSError):
            raise _too_complex() from None

    async def _run(self, line: str) -> bytes:
        process = await self._idle.get()
        try:
            return await process.run(line)
        finally:
            self._idle.put_nowait(process)


def _too_complex() -> APIError:
    text = "The schemas of this request are too complex to be compiled; simplify them"
    return APIError(422, text, code="schema_too_complex")


class _WorkerProcess:
    """One `grammar_worker` process, which is started again if it ends."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def start(self) -> None:
        """Start the process unless it runs, and wait until it is ready."""
        if self._process is None or self._process.returncode is not None:
            command = (sys.executable, "-m", "calltune.serving.grammar_worker")
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, limit=MAX_LINE_LENGTH
            )
            # It answers an empty line once everything is imported.
            await self._ask("", START_SECONDS)

    async def run(self, line: str) -> bytes:
        """The result line of a job.

        Raises:
            OSError: the process ended.
            TimeoutError: it took too long, and was killed.
        """
        await self.start()
        return await self._ask(line, SECONDS)

    async def stop(self) -> None:
        """Kill the process, whatever it is doing."""
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
            # What it would still write must not be taken for the result of the next job.
            await self.stop()
            raise
        if not answer:
            await self.stop()
            raise ConnectionResetError("the process ended")
        return answer
