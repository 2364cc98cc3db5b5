"""The OpenAPI 3.1 document of the server, made from the request and response models.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from calltune import __version__
from calltune.serving.request_schema import ChatRequest
from calltune.serving.response_schema import (
    ChatCompletion,
    ChatCompletionChunk,
    ErrorResponse,
    Health,
    Model,
    ModelList,
    ResponseObject,
)
from calltune.serving.responses_request import ResponsesRequest
from calltune.types import Json

_SCHEMAS = "#/components/schemas/"
_MODELS: tuple[type[BaseModel], ...] = (
    ChatRequest,
    ChatCompletion,
    ChatCompletionChunk,
    ResponsesRequest,
    ResponseObject,
    ModelList,
    Model,
    Health,
    ErrorResponse,
)
_STATUSES = {
    "400": "The body is not JSON, or a field cannot be used.",
    "401": "The API key is missing or wrong.",
    "403": "The host or the web page is not allowed.",
    "404": "There is no such model.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "422": "Answers cannot be constrained to the schemas.",
    "429": "Too many answers are waiting; try again.",
    "500": "The engine failed.",
    "503": "The answer took too long, or the server is stopping.",
}


def openapi_document(needs_key: bool) -> dict[str, Json]:
    """The document as JSON; `needs_key` is whether requests must send an API key."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template=_SCHEMAS + "{model}"
    )
    components: dict[str, Json] = {"schemas": definitions["$defs"]}
    document: dict[str, Json] = {
        "openapi": "3.1.0",
        "info": {"title": "calltune", "version": __version__},
        "paths": _paths(),
        "components": components,
    }
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _paths() -> dict[str, Json]:
    chat: Json = {
        "operationId": "chat",
        "requestBody": {"required": True, "content": _json(ChatRequest)},
        "responses": {
            "200": {
                "description": "The answers; where `stream` is true, server-sent events, each a "
                "ChatCompletionChunk.",
                "content": {**_json(ChatCompletion), "text/event-stream": {}},
            },
            **_errors(*_STATUSES),
        },
    }
    responses: Json = {
        "operationId": "responses",
        "requestBody": {"required": True, "content": _json(ResponsesRequest)},
        "responses": {
            "200": {
                "description": "The response; where `stream` is true, server-sent events, of which "
                "the last has it.",
                "content": {**_json(ResponseObject), "text/event-stream": {}},
            },
            **_errors(*_STATUSES),
        },
    }
    models: Json = {
        "operationId": "models",
        "responses": {**_ok("The models.", ModelList), **_errors("401", "403")},
    }
    model: Json = {
        "operationId": "model",
        "parameters": [
            {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "responses": {**_ok("The model.", Model), **_errors("401", "403", "404")},
    }
    health: Json = {
        "operationId": "health",
        "responses": {
            **_ok("The engine runs.", Health),
            "503": {"description": "The engine has ended.", "content": _json(Health)},
            **_errors("403"),
        },
    }
    metrics: Json = {
        "operationId": "metrics",
        "responses": {
            "200": {
                "description": "Metrics in Prometheus's text format.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **_errors("401", "403"),
        },
    }
    return {
        "/v1/chat/completions": {"post": chat},
        "/v1/responses": {"post": responses},
        "/v1/models": {"get": models},
        "/v1/models/{model}": {"get": model},
        "/health": {"get": health},
        "/metrics": {"get": metrics},
    }


def _json(model: type[BaseModel]) -> dict[str, Json]:
    return {"application/json": {"schema": {"$ref": f"{_SCHEMAS}{model.__name__}"}}}


def _ok(description: str, model: type[BaseModel]) -> dict[str, Json]:
    return {"200": {"description": description, "content": _json(model)}}


def _errors(*statuses: str) -> dict[str, Json]:
    return {
        status: {"description": _STATUSES[status], "content": _json(ErrorResponse)}
        for status in statuses
    }
