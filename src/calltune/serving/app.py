"""The HTTP application: OpenAI's endpoints, health, metrics and the OpenAPI document.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calltune.schemas.tools import UnusableRow, check_json
from calltune.serving.access import Access, AccessMiddleware
from calltune.serving.clients import EventStreamResponse, cancel_on_disconnect
from calltune.serving.errors import APIError
from calltune.serving.metrics import CLIENT_GONE, Metrics
from calltune.serving.openapi import openapi_document
from calltune.serving.request_schema import ChatRequest
from calltune.serving.response_schema import Health, Model, ModelList, to_json
from calltune.serving.responses import ResponseInfo, streamed_response, whole_response
from calltune.serving.service import Service

LARGE_BYTES = 64 << 10
"""Bodies from this size on are parsed in a thread."""


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
        self._document = openapi_document(needs_key=access.api_key is not None)

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`: one response, or a stream of events."""
        with self._metrics.request() as measured:
            limits = self._service.limits
            body = await _read_body(request, limits.body_bytes, limits.body_seconds)
            asked = await self._parse(body)
            answers = await cancel_on_disconnect(request.receive, self._service.answer(asked))
            info = ResponseInfo(asked.model)
            if not asked.stream:
                whole = whole_response(answers, info, limits.seconds)
                return JSONResponse(await cancel_on_disconnect(request.receive, whole))
            wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = measured.stream(streamed_response(answers, info, wants_usage, limits.seconds))
            # Until the first event an error still has a status of its own.
            first = await cancel_on_disconnect(request.receive, anext(events))
            return EventStreamResponse(first, events)

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

    async def _parse(self, body: bytes) -> ChatRequest:
        if len(body) < LARGE_BYTES:
            return _parse_request(body)
        # It would delay the events of all clients; in a thread, one at a time, it does not.
        async with self._large:
            return await asyncio.to_thread(_parse_request, body)

    def _model(self, name: str) -> Model:
        return Model(id=name, object="model", created=self._since, owned_by="calltune")


async def _read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    parts: list[bytes] = []
    n_bytes = 0
    try:
        async with asyncio.timeout(seconds), aclosing(request.stream()) as stream:
            async for part in stream:
                n_bytes += len(part)
                if n_bytes > max_bytes:
                    raise APIError(413, f"The body is larger than {max_bytes} bytes")
                parts.append(part)
    except TimeoutError:
        raise APIError(408, f"The body did not arrive within {seconds:g} seconds") from None
    return b"".join(parts)


def _parse_request(body: bytes) -> ChatRequest:
    try:
        data = check_json(json.loads(body, parse_constant=_refuse_constant))
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"The body is not JSON ({error!s:.200})") from None
    except UnusableRow as error:
        raise APIError(400, f"The body cannot be used: {error}") from None
    if not isinstance(data, dict):
        raise APIError(400, "The body is not a JSON object")
    try:
        return ChatRequest.model_validate(data)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or None
        raise APIError(400, f"{place or 'The request'}: {first['msg']}", place) from None


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which Python's parser accepts."""
    raise ValueError(f"{name} is not JSON")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return JSONResponse(error.body(), error.status, error.headers())


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = APIError(error.status_code, error.detail).body()
    return JSONResponse(body, error.status_code, error.headers)


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)
