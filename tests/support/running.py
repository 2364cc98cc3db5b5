"""A server of its own for tests, with a model of random weights."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx
import uvicorn
from openai import OpenAI

from calltune.evaluation.prompts import constrainer_of, stop_tokens
from calltune.formats import FORMATS
from calltune.models.backend import Backend
from calltune.serving.access import Access
from calltune.serving.app import make_app
from calltune.serving.engine import Engine
from calltune.serving.grammar_pool import Workshop
from calltune.serving.limits import Limits
from calltune.serving.loading import load_all, room_for, scheduler_factory
from calltune.serving.service import Service

CPU = Backend("cpu", "float32", None, "", "")
LIMITS = Limits(answer_tokens=200, context_tokens=4000, seconds=60, queue=40)
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
    """A server that runs, and how to speak to it."""

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
    access: Access | None = None,
    words: Literal["base", "tuned"] = "base",
    repeats_calls: bool = False,
    **limits: Any,
) -> Iterator[Running]:
    """A server of a model, under the name `tiny`."""
    loaded, names, choice = load_all(str(folder), adapters or {}, CPU)
    names["tiny"] = names.pop(str(folder))
    bounds = replace(LIMITS, **limits)
    stops = stop_tokens(loaded.tokenizer, [prompt_format])
    room = room_for(loaded.model, CPU, size, bounds.context_tokens)
    make = scheduler_factory(loaded.model, choice, frozenset(stops), bounds, room)
    service = Service(
        tokenizer=loaded.tokenizer,
        prompt_format=FORMATS[prompt_format],
        models=names,
        engine=Engine(make, size + bounds.queue),
        constrainer=constrainer_of(loaded, prompt_format, stops),
        limits=bounds,
        words=words,
        repeats_calls=repeats_calls,
        workshop=Workshop(n_processes=1),
    )
    app = make_app(service, access or Access())
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
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
