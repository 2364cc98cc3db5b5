"""Which hosts, pages and keys are let through, on an application that answers anything."""

from collections.abc import Collection

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from calltune.serving.access import Access, AccessMiddleware

PAGE = {"Origin": "https://mine.example"}
STAINLESS = "authorization,content-type,x-stainless-lang,x-stainless-retry-count"


def client(
    key: str | None = None, origins: Collection[str] = (PAGE["Origin"], "null")
) -> TestClient:
    async def answer(_: Request) -> Response:
        return PlainTextResponse("answered")

    access = Access(key, origins=origins)
    routes = [Route("/v1/chat/completions", answer, methods=["POST"])]
    app = Starlette(routes=routes, middleware=[Middleware(AccessMiddleware, access=access)])
    return TestClient(app, base_url="http://127.0.0.1:8000")


def preflight(pages: TestClient, **more: str) -> Response:
    headers = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": STAINLESS,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return pages.options("/v1/chat/completions", headers=headers)


def post(pages: TestClient, **headers: str) -> Response:
    return pages.post("/v1/chat/completions", headers=headers)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_preflight_allows_what_it_was_asked_for_and_has_no_body(key: str | None) -> None:
    pages = client(key)
    answer = preflight(pages, **PAGE)
    assert answer.status_code == 204 and answer.content == b""
    assert "content-type" not in answer.headers and "content-length" not in answer.headers
    assert answer.headers["access-control-allow-origin"] == PAGE["Origin"]
    assert answer.headers["access-control-allow-headers"] == STAINLESS
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers
    assert preflight(pages, Origin="null").status_code == 204
    local = preflight(pages, Access_Control_Request_Private_Network="true", **PAGE)
    assert local.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "https://mine.example.evil.example"},
        {"Origin": "http://mine.example"},
        {**PAGE, "Host": "evil.example"},
        {"Host": "evil.example"},
    ],
)
@pytest.mark.parametrize("origins", [(PAGE["Origin"],), ("*",)])
def test_other_pages_and_names_are_refused(
    headers: dict[str, str], origins: Collection[str]
) -> None:
    pages = client("k", origins)
    if "Host" in headers or origins != ("*",):
        for answer in (
            preflight(pages, **headers),
            post(pages, Authorization="Bearer k", **headers),
        ):
            assert answer.status_code == 403 and answer.json()["error"]["message"]
            assert "access-control-allow-origin" not in answer.headers
    else:
        assert preflight(pages, **headers).status_code == 204
        assert post(pages, **headers).status_code == 401


@pytest.mark.parametrize(
    ("origins", "allowed"), [(("*",), "*"), ((PAGE["Origin"],), PAGE["Origin"])]
)
def test_a_page_sends_the_key_itself_and_may_read_why_it_is_refused(
    origins: Collection[str], allowed: str
) -> None:
    pages = client("k", origins)
    refused = post(pages, **PAGE)
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == allowed
    answer = post(pages, Authorization="Bearer k", **PAGE)
    assert answer.text == "answered" and answer.headers["access-control-allow-origin"] == allowed
    assert answer.headers["access-control-expose-headers"] == "*"
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-origin" not in post(pages, Authorization="Bearer k").headers
