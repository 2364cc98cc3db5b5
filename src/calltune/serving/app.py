"""The HTTP application: OpenAI's endpoints, health, metrics and the OpenAPI document.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calltune.serving.access import Access, AccessMiddleware
from calltune.serving.clients import (
    FIRST_EVENT_SECONDS,
    EventStream,
    EventStreamResponse,
    cancel_on_disconnect,
)
from calltune.serving.errors import APIError
from calltune.serving.metrics import CLIENT_GONE, Metrics, RequestMetrics
from calltune.serving.openapi import openapi_document
from calltune.serving.request_body import decode_body, read_chat_request, receive_body
from calltune.serving.response_schema import Health, Model, ModelList, to_json
from calltune.serving.responses import ResponseInfo, error_events, streamed_response, whole_response
from calltune.serving.responses_answer import ResponseWriter
from calltune.serving.responses_request import ItemStore, read_responses_request
from calltune.serving.service import Service
from calltune.types import Json

LARGE_BYTES = 64 << 10
"""Bodies from this size on are parsed in a thread."""
_PATHS = "set the client's base URL to end in /v1, and use chat completions or responses"
T = TypeVar("T")


def make_app(service: Service, access: Access) -> Starlette:
    """The application; its lifespan starts and stops the service."""
    endpoints = _Endpoints(service, access)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/responses", endpoints.responses, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models/{model:path}", endpoints.model),
            Route("/health", endpoints.health),
            Route("/metrics", endpoints.metrics),
            Route("/openapi.json", endpoints.openapi),
        ],
        middleware=[Middleware(AccessMiddleware, access=access)],
        exception_handlers={
            APIError: _api_error,
            HTTPException: _http_error,
            ClientDisconnect: _client_gone,
        },
        lifespan=lifespan,
    )


class _Endpoints:
    def __init__(self, service: Service, access: Access) -> None:
        self._service = service
        self._metrics = Metrics(service.engine)
        self._since = int(time.time())
        self._large = asyncio.Lock()
        self._items = ItemStore()
        self._document = openapi_document(needs_key=access.api_key is not None)

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: one response, or a stream of events."""
        with self._metrics.request() as measured:
            asked = await self._read(request, read_chat_request)
            answers = await cancel_on_disconnect(request.receive, self._service.answer(asked))
            info = ResponseInfo(asked.model, is_older_spelling=asked.is_older_spelling)
            seconds = self._service.limits.seconds
            if not asked.stream:
                whole = whole_response(answers, info, seconds)
                found = await cancel_on_disconnect(request.receive, whole)
                return JSONResponse(found, headers=answers.headers)
            wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = streamed_response(answers, info, wants_usage, seconds)
            stream = await _begun(request, measured, events)
            return EventStreamResponse(stream, error_events, answers.headers)

    async def responses(self, request: Request) -> Response:
        """`POST /v1/responses`: the same as chat completions, in OpenAI's newer API."""
        with self._metrics.request() as measured:
            asked = await self._read(
                request, lambda data: read_responses_request(data, self._items)
            )
            seconds = self._service.limits.seconds
            try:
                work = self._service.answer(asked.chat)
                answers = await cancel_on_disconnect(request.receive, work)
            except APIError as error:
                raise asked.named(error) from None
            writer = ResponseWriter(asked, answers, self._items)
            if not asked.chat.stream:
                found = await cancel_on_disconnect(request.receive, writer.whole(seconds))
                return JSONResponse(found, headers=answers.headers)
            stream = await _begun(request, measured, writer.stream(seconds))
            return EventStreamResponse(stream, writer.error_events, answers.headers)

    async def models(self, _: Request) -> Response:
        """`GET /v1/models`: the names that requests may give as their model."""
        listed = [self._model(name) for name in self._service.models]
        return JSONResponse(to_json(ModelList(object="list", data=listed)))

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/{model}`: one of them."""
        name = request.path_params["model"]
        if name not in self._service.models:
            raise APIError(404, f"There is no model {name!r:.100}", "model", "model_not_found")
        return JSONResponse(to_json(self._model(name)))

    async def health(self, _: Request) -> Response:
        """`GET /health`: whether the engine runs."""
        if self._service.engine.is_alive:
            return JSONResponse(to_json(Health(status="ok")))
        return JSONResponse(to_json(Health(status="failed")), 503)

    async def metrics(self, _: Request) -> Response:
        """`GET /metrics`: metrics for Prometheus."""
        return Response(self._metrics.text(), media_type=self._metrics.media_type)

    async def openapi(self, _: Request) -> Response:
        """`GET /openapi.json`: the OpenAPI document."""
        return JSONResponse(self._document)

    async def _read(self, request: Request, read: Callable[[dict[str, Json]], T]) -> T:
        """The checked request in the body."""
        limits = self._service.limits
        body = await receive_body(request, limits.body_bytes, limits.body_seconds)
        if len(body) < LARGE_BYTES:
            return read(decode_body(body))
        # It would delay the events of all clients; in a thread, one at a time, it does not.
        async with self._large:
            return await asyncio.to_thread(lambda: read(decode_body(body)))

    def _model(self, name: str) -> Model:
        return Model(id=name, object="model", created=self._since, owned_by="calltune")


async def _begun(
    request: Request, measured: RequestMetrics, events: AsyncGenerator[bytes, None]
) -> EventStream:
    """The events, after a moment in which an error still has a status of its own."""
    stream = EventStream(measured.stream(events))
    try:
        await cancel_on_disconnect(request.receive, stream.wait(FIRST_EVENT_SECONDS))
        stream.check()
    except BaseException:
        await stream.aclose()
        raise
    measured.is_streaming = True
    return stream


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return JSONResponse(error.body(), error.status, error.headers())


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if error.status_code == 404:
        text = f"There is no {request.url.path:.100} here; {_PATHS}"
    body = APIError(error.status_code, text).body()
    return JSONResponse(body, error.status_code, error.headers)


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
