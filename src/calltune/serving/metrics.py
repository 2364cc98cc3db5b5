"""What a server has done, as Prometheus reads it."""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from starlette.requests import ClientDisconnect

from calltune.serving.engine import Engine
from calltune.serving.errors import Fault

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Requests, seconds and tokens of one server."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineNumbers(engine))
        self._requests = Counter(
            "calltune_requests",
            "Chat requests by the status that they ended with; 499 is a client that went away.",
            ["status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "calltune_request_seconds",
            "From a request's first byte to the last of its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            "calltune_first_event_seconds",
            "From a request's first byte to the first event of its stream.",
            buckets=_SECONDS,
            registry=self._registry,
        )

    @contextmanager
    def request(self) -> "Iterator[Measured]":
        """Count one request and time it."""
        measured = Measured(self)
        try:
            yield measured
        except BaseException as error:
            measured.end(_status(error))
            raise
        if not measured.is_streaming:
            measured.end(200)

    def text(self) -> bytes:
        """All numbers, in Prometheus's text format."""
        return generate_latest(self._registry)

    def count(self, status: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def count_first(self, seconds: float) -> None:
        """A stream has begun."""
        self._first.observe(seconds)


class Measured:
    """One request on its way."""

    def __init__(self, metrics: Metrics) -> None:
        self.is_streaming = False
        self._metrics = metrics
        self._started = time.perf_counter()

    async def following(self, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The events of its stream; with the first it is one, with the last it is over."""
        status = 499
        try:
            async with aclosing(events) as stream:
                async for event in stream:
                    if not self.is_streaming:
                        self._metrics.count_first(time.perf_counter() - self._started)
                        self.is_streaming = True
                    yield event
            status = 200
        finally:
            if self.is_streaming:
                self.end(status)

    def end(self, status: int) -> None:
        """The request is over."""
        self._metrics.count(status, time.perf_counter() - self._started)


class _EngineNumbers:
    """The engine's own counts, read when they are asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        counts = self._engine.counts
        yield GaugeMetricFamily("calltune_running", "Answers being written.", counts.n_running)
        yield GaugeMetricFamily("calltune_waiting", "Answers waiting.", counts.n_waiting)
        yield CounterMetricFamily("calltune_answer_tokens", "Tokens written.", counts.n_tokens)
        yield CounterMetricFamily(
            "calltune_prompt_tokens", "Tokens of prompts.", counts.n_prompt_tokens
        )
        yield CounterMetricFamily(
            "calltune_engine_failures",
            "How often the answers that were running had to be given up.",
            counts.n_failures,
        )


def _status(error: BaseException) -> int:
    if isinstance(error, Fault):
        return error.status
    return 499 if isinstance(error, ClientDisconnect) else 500
