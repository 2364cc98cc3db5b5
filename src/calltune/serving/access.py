"""Who may ask: hosts, origins and the key, before anything of a request is read."""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from calltune.serving.errors import Fault

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OPEN_PATHS = ("/health",)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a server."""

    api_key: str | None = field(default=None, repr=False)
    """What `Authorization: Bearer …` must be; None lets everybody in."""
    hosts: Collection[str] = LOOPBACK
    """Names by which the server may be called; "*" is any. Another one in `Host` is a web page
    whose name was made to lead here (DNS rebinding)."""
    origins: Collection[str] = ()
    """Web pages that may ask, such as `https://app.example`; none unless named."""


class Guard:
    """Lets requests through to an application, or refuses them."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            origin = self._check(scope["method"], scope["path"], headers)
        except Fault as fault:
            response = JSONResponse(fault.body(), fault.status, _challenge(fault))
            await response(scope, receive, send)
            return
        if origin is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await JSONResponse(None, 204, _cors(origin))(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send, _cors(origin)))

    def _check(self, method: str, path: str, headers: Headers) -> str | None:
        """The page that asks, if one does.

        Raises:
            Fault: it may not.
        """
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if "*" not in self._access.hosts and host not in self._access.hosts:
            raise Fault(403, f"This server is not called {host!r:.100}; see --allowed-hosts")
        origin = headers.get("origin")
        if origin is not None and origin not in self._access.origins:
            raise Fault(403, f"Pages of {origin!r:.100} may not ask here; see --allowed-origins")
        if path not in _OPEN_PATHS and not (origin and method == "OPTIONS"):
            self._check_key(headers)
        return origin

    def _check_key(self, headers: Headers) -> None:
        if self._access.api_key is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = self._access.api_key.encode()
        is_right = secrets.compare_digest(given.strip().encode("latin-1", "replace"), key)
        if scheme.lower() != "bearer" or not is_right:
            raise Fault(
                401, "No or a wrong API key; send Authorization: Bearer KEY", code="invalid_api_key"
            )


def _challenge(fault: Fault) -> dict[str, str]:
    return fault.headers() | ({"WWW-Authenticate": "Bearer"} if fault.status == 401 else {})


def _cors(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Vary": "Origin",
    }


def _with_headers(send: Send, more: dict[str, str]) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(more)
        await send(message)

    return sending
