"""The endpoint as an OpenAPI 3.1 document, for generators of clients and for tests."""

from calltune import __version__
from calltune.serving.request_schema import ChatRequest
from calltune.types import Json

_SCHEMAS = "#/components/schemas/"
_STATUSES = {
    "400": "Not JSON, or a field that cannot be used.",
    "401": "No or a wrong key.",
    "403": "A host or a web page that may not ask.",
    "404": "No such model.",
    "408": "The body did not come whole.",
    "413": "A body that is too large.",
    "422": "Schemas that answers cannot be held to.",
    "429": "Too many answers are waited for; try again.",
    "500": "The engine failed.",
    "503": "Too slow, or about to end.",
}


def document(needs_key: bool) -> dict[str, Json]:
    """What paths there are, and what they take and give."""
    chat = ChatRequest.model_json_schema(ref_template=_SCHEMAS + "{model}")
    parts = chat.pop("$defs", {})
    components: dict[str, Json] = {
        "schemas": {**parts, "ChatRequest": chat, "Error": _ERROR, "Reply": _REPLY, "Model": _MODEL}
    }
    found: dict[str, Json] = {
        "openapi": "3.1.0",
        "info": {"title": "calltune", "version": __version__},
        "paths": _paths(),
        "components": components,
    }
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"key": []}]
    return found


def _paths() -> dict[str, Json]:
    name: Json = [{"name": "model", "in": "path", "required": True, "schema": _STRING}]
    models = _object(
        {"object": {"const": "list"}, "data": {"type": "array", "items": _at("Model")}}
    )
    return {
        "/v1/chat/completions": {
            "post": {
                "operationId": "chat",
                "requestBody": {"required": True, "content": _json(_at("ChatRequest"))},
                "responses": {
                    "200": {
                        "description": "The answer; events of chunks where `stream` is true.",
                        "content": {**_json(_at("Reply")), "text/event-stream": {}},
                    },
                    **_faults(*_STATUSES),
                },
            }
        },
        "/v1/models": {
            "get": {
                "operationId": "models",
                "responses": {**_gives("The models.", models), **_faults("401", "403")},
            }
        },
        "/v1/models/{model}": {
            "get": {
                "operationId": "model",
                "parameters": name,
                "responses": {
                    **_gives("The model.", _at("Model")),
                    **_faults("401", "403", "404"),
                },
            }
        },
        "/health": {
            "get": {
                "operationId": "health",
                "responses": {
                    **_gives("Well.", _object({"status": {"const": "ok"}})),
                    "503": {"description": "The engine has ended.", "content": _json({})},
                    **_faults("403"),
                },
            }
        },
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "responses": {
                    "200": {
                        "description": "Prometheus's text.",
                        "content": {"text/plain": {"schema": _STRING}},
                    },
                    **_faults("401", "403"),
                },
            }
        },
    }


def _at(name: str) -> dict[str, Json]:
    return {"$ref": f"{_SCHEMAS}{name}"}


def _json(schema: Json) -> dict[str, Json]:
    return {"application/json": {"schema": schema}}


def _gives(description: str, schema: Json) -> dict[str, Json]:
    return {"200": {"description": description, "content": _json(schema)}}


def _faults(*statuses: str) -> dict[str, Json]:
    return {
        status: {"description": _STATUSES[status], "content": _json(_at("Error"))}
        for status in statuses
    }


def _object(properties: dict[str, Json], *optional: str) -> dict[str, Json]:
    required: Json = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


_STRING: dict[str, Json] = {"type": "string"}
_TEXT: dict[str, Json] = {"type": ["string", "null"]}
_COUNT: dict[str, Json] = {"type": "integer", "minimum": 0}
_CALL = _object(
    {
        "id": _STRING,
        "type": {"const": "function"},
        "function": _object({"name": _STRING, "arguments": _STRING}),
    }
)
_MESSAGE = _object(
    {
        "role": {"const": "assistant"},
        "content": _TEXT,
        "refusal": _TEXT,
        "tool_calls": {"type": "array", "minItems": 1, "items": _CALL},
    },
    "tool_calls",
)
_REPLY = _object(
    {
        "id": _STRING,
        "object": {"const": "chat.completion"},
        "created": _COUNT,
        "model": _STRING,
        "choices": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                {
                    "index": _COUNT,
                    "message": _MESSAGE,
                    "logprobs": {"type": "null"},
                    "finish_reason": {"enum": ["stop", "length", "tool_calls"]},
                }
            ),
        },
        "usage": _object(
            {"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT}
        ),
    }
)
_ERROR = _object(
    {
        "error": _object(
            {
                "message": _STRING,
                "type": _STRING,
                "param": _TEXT,
                "code": _TEXT,
            }
        )
    }
)
_MODEL = _object(
    {
        "id": _STRING,
        "object": {"const": "model"},
        "created": _COUNT,
        "owned_by": _STRING,
    }
)
