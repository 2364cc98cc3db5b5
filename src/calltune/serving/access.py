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
from starlette.responses import JSONResponse, Response
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
    """Origins of web pages that may send requests, such as `https://app.example`; "*" is any."""


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
        origin = headers.get("origin")
        shared: dict[str, str] = {}
        try:
            self._check_host(headers)
            if origin is not None:
                shared = self._shared_headers(origin)
            if origin is not None and scope["method"] == "OPTIONS":
                answer = Response(status_code=204, headers=shared | _preflight_headers(headers))
                await answer(scope, receive, send)
                return
            if scope["path"] not in _PATHS_WITHOUT_KEY:
                self._check_key(headers)
        except APIError as error:
            # Pages that may send requests may read why one was refused, too.
            response = JSONResponse(error.body(), error.status, shared | _error_headers(error))
            await response(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send, shared) if shared else send)

    def _check_host(self, headers: Headers) -> None:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if "*" not in self._access.hosts and host not in self._access.hosts:
            raise APIError(
                403, f"Host {host!r:.100} is not allowed for this server; see --allowed-hosts"
            )

    def _shared_headers(self, origin: str) -> dict[str, str]:
        """The headers that let a page of this origin read the response.

        Credentials of the browser (cookies) are never asked for: a page sends the key itself.

        Raises:
            APIError: the origin is not allowed.
        """
        if "*" not in self._access.origins and origin not in self._access.origins:
            raise APIError(
                403, f"Pages of {origin!r:.100} may not send requests; see --allowed-origins"
            )
        return {
            "Access-Control-Allow-Origin": "*" if "*" in self._access.origins else origin,
            "Access-Control-Expose-Headers": "*",
            "Vary": "Origin",
        }

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


def _preflight_headers(headers: Headers) -> dict[str, str]:
    """What a page may send: any header that it asks for, such as the `x-stainless-*` of OpenAI's.

    Source: https://fetch.spec.whatwg.org/#http-cors-protocol, and for requests from public pages
    to this machine https://wicg.github.io/private-network-access/.
    """
    asked = headers.get("access-control-request-headers", "Authorization, Content-Type")
    found = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": asked,
        "Access-Control-Max-Age": "600",
        "Vary": "Origin, Access-Control-Request-Headers",
    }
    if headers.get("access-control-request-private-network") == "true":
        found["Access-Control-Allow-Private-Network"] = "true"
    return found


def _with_headers(send: Send, more: dict[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(more)
        await send(message)

    return send_with_headers
