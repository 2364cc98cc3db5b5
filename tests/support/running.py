"""Servers for tests, with models of random weights, in a thread of the test process."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import uvicorn
from openai import OpenAI

from calltune.models.backend import Backend
from calltune.serving.build import build_service
from calltune.serving.options import ServeOptions
from calltune.serving.service import Service

CPU = Backend("cpu", "float32", None, "", "")
COLOURS = ["red", "green", "blue"]
PAINT: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "Paint a wall.",
        "parameters": {
            "type": "object",
            "properties": {
                "colour": {"enum": COLOURS},
                "coats": {"type": "integer", "minimum": 1, "maximum": 3},
            },
            "required": ["colour", "coats"],
        },
    },
}
SAND: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "sand",
        "description": "Sand a wall.",
        "parameters": {
            "type": "object",
            "properties": {"grain": {"enum": [80, 120]}},
            "required": ["grain"],
        },
    },
}
ASK: list[Any] = [{"role": "user", "content": "Make the wall nice."}]


@dataclass
class Running:
    """A running server and its clients."""

    url: str
    service: Service
    server: uvicorn.Server

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def post(self, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, timeout=60, **more)

    def wait_until_idle(self, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        counts = self.service.engine.counts
        while self.service.engine.n_open or counts.n_running or counts.n_waiting:
            assert time.monotonic() < end, (self.service.engine.n_open, counts)
            time.sleep(0.02)


@contextmanager
def serving(
    folder: Path,
    prompt_format: str,
    adapters: dict[str, Path] | None = None,
    size: int = 4,
    words: Literal["base", "tuned"] = "base",
    repeats_calls: bool = False,
    queue: int = 40,
    seconds: float = 60,
    answer_tokens: int = 200,
    api_key: str | None = None,
    origins: Sequence[str] = (),
    **limits: Any,
) -> Iterator[Running]:
    """A server of a model, under the name `tiny`; `limits` are other fields of `Limits`."""
    options = ServeOptions(
        model=str(folder),
        adapter_path=tuple(f"{name}={path}" for name, path in (adapters or {}).items()),
        format=prompt_format,
        batch_size=size,
        queue=queue,
        timeout=seconds,
        max_tokens=answer_tokens,
        max_context=4000,
        words=words,
        repeat_calls=repeats_calls,
        allowed_origins=tuple(origins),
    )
    built = build_service(options, CPU, api_key, n_grammar_processes=1, **limits)
    service = built.service
    service.models["tiny"] = service.models.pop(str(folder))
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(built.app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        port = listening.getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", service, server)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
