"""Access control: allowed hosts, allowed origins (CORS) and the API key, for every request.

Starlette's TrustedHostMiddleware and CORSMiddleware are not used: they answer in plain text where
OpenAI's clients expect a JSON error, and CORSMiddleware lets requests of other origins through,
only without the headers that would let a page read the answer.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calltune.serving.errors import APIError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATHS_WITHOUT_KEY = ("/health",)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a server."""

    api_key: str | None = field(default=None, repr=False)
    """The key that requests must send as `Authorization: Bearer KEY`; None needs no key."""
    hosts: Collection[str] = LOOPBACK
    """Host names that requests may use for the server; "*" is any. A request with another name
    comes from a web page whose name was pointed here (DNS rebinding)."""
    origins: Collection[str] = ()
    """Origins of web pages that may send requests, such as `https://app.example`."""


class AccessMiddleware:
    """ASGI middleware that passes allowed requests on and refuses others with an API error.

    Source: https://asgi.readthedocs.io/en/latest/specs/www.html
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """Guard `app` by the rules of `access`."""
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            origin = self._check(scope["method"], scope["path"], headers)
        except APIError as error:
            response = JSONResponse(error.body(), error.status, _error_headers(error))
            await response(scope, receive, send)
            return
        if origin is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await JSONResponse(None, 204, _cors_headers(origin))(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send, _cors_headers(origin)))

    def _check(self, method: str, path: str, headers: Headers) -> str | None:
        """The allowed origin that the request comes from; None if it comes from no web page.

        Raises:
            APIError: host, origin or key are not allowed.
        """
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if "*" not in self._access.hosts and host not in self._access.hosts:
            raise APIError(
                403, f"Host {host!r:.100} is not allowed for this server; see --allowed-hosts"
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self._access.origins:
            raise APIError(
                403, f"Pages of {origin!r:.100} may not send requests; see --allowed-origins"
            )
        if path not in _PATHS_WITHOUT_KEY and not (origin and method == "OPTIONS"):
            self._check_key(headers)
        return origin

    def _check_key(self, headers: Headers) -> None:
        if self._access.api_key is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = self._access.api_key.encode()
        is_right = secrets.compare_digest(given.strip().encode("latin-1", "replace"), key)
        if scheme.lower() != "bearer" or not is_right:
            raise APIError(
                401,
                "Missing or wrong API key; send Authorization: Bearer KEY",
                code="invalid_api_key",
            )


def _error_headers(error: APIError) -> dict[str, str]:
    return error.headers() | ({"WWW-Authenticate": "Bearer"} if error.status == 401 else {})


def _cors_headers(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Vary": "Origin",
    }


def _with_headers(send: Send, more: dict[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(more)
        await send(message)

    return send_with_headers
