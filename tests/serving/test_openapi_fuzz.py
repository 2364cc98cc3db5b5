"""Requests made of the endpoint's own OpenAPI document, right and wrong ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from calltune.serving.openapi import openapi_document

from support.running import Running, serving
from support.tiers import cases

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    # Errors have OpenAI's body: the document says so of each status.
    checks.response_schema_conformance,
]


def described() -> Any:
    """The document, with the name of the model that there is."""
    found: Any = openapi_document(needs_key=False)
    found["components"]["schemas"]["ChatRequest"]["properties"]["model"] = {"const": "tiny"}
    return found


@pytest.fixture(scope="module")
def server(tiny_llama: Path) -> Iterator[Running]:
    with serving(tiny_llama, "chatml", answer_tokens=4) as running:
        yield running


@pytest.mark.both_tiers
@schemathesis.openapi.from_dict(described()).parametrize()
@settings(
    max_examples=cases(5, 40),
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_endpoint_keeps_to_its_document(case: schemathesis.Case, server: Running) -> None:
    case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)
