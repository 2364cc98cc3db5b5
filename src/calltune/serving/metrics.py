"""Prometheus metrics: requests by status, latencies, and the engine's tokens and queue."""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from starlette.requests import ClientDisconnect

from calltune.serving.engine import Engine
from calltune.serving.errors import APIError

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
"""Upper bounds in seconds."""
CLIENT_GONE = 499
"""The status counted for a client that disconnected, as nginx does."""


class Metrics:
    """The metrics of one server, with a Prometheus registry of their own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, engine: Engine) -> None:
        """`engine` is asked for its counts whenever the metrics are read."""
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine))
        self._requests = Counter(
            "calltune_requests",
            "Chat requests by final status; 499 is a client that disconnected.",
            ["status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "calltune_request_seconds",
            "Time from the first byte of a request to the last of its response.",
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._first = Histogram(
            "calltune_first_event_seconds",
            "Time from the first byte of a request to the first event of its stream.",
            buckets=_BUCKETS,
            registry=self._registry,
        )

    @contextmanager
    def request(self) -> "Iterator[RequestMetrics]":
        """Count and time one request; a stream that has begun inside is counted when it ends."""
        measured = RequestMetrics(self)
        try:
            yield measured
        except BaseException as error:
            measured.end(_status(error))
            raise
        if not measured.is_streaming:
            measured.end(200)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def count(self, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def count_first(self, seconds: float) -> None:
        """Count a stream that has begun."""
        self._first.observe(seconds)


class RequestMetrics:
    """The timer of one request."""

    def __init__(self, metrics: Metrics) -> None:
        """Start the timer."""
        self.is_streaming = False
        """Whether the response has begun, so that its stream counts the request."""
        self._metrics = metrics
        self._started = time.perf_counter()

    async def stream(self, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The same events; the first one is timed, and the end if the response has begun."""
        status, is_first = CLIENT_GONE, True
        try:
            async with aclosing(events) as stream:
                async for event in stream:
                    if is_first:
                        self._metrics.count_first(time.perf_counter() - self._started)
                        is_first = False
                    yield event
            status = 200
        except APIError as error:
            status = error.status
            raise
        finally:
            if self.is_streaming:
                self.end(status)

    def end(self, status: int) -> None:
        """Stop the timer and count the request."""
        self._metrics.count(status, time.perf_counter() - self._started)


class _EngineCollector:
    """Reads the engine's counts when metrics are collected."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        counts = self._engine.counts
        yield GaugeMetricFamily("calltune_running", "Answers being generated.", counts.n_running)
        yield GaugeMetricFamily("calltune_waiting", "Answers waiting.", counts.n_waiting)
        yield CounterMetricFamily("calltune_answer_tokens", "Tokens generated.", counts.n_tokens)
        yield CounterMetricFamily(
            "calltune_prompt_tokens", "Tokens of prompts.", counts.n_prompt_tokens
        )
        yield CounterMetricFamily(
            "calltune_engine_failures",
            "How often all running answers had to be given up.",
            counts.n_failures,
        )


def _status(error: BaseException) -> int:
    if isinstance(error, APIError):
        return error.status
    return CLIENT_GONE if isinstance(error, ClientDisconnect) else 500
