"""What the popular clients send by default is answered: tools, strict tools, unions, streams.

Each client runs in a process of its own (clients/), prints what it parsed, and may open no
connection that leaves this machine.
"""

import sys
from pathlib import Path

import pytest

from support.clients import ASKED, CLIENTS, check, in_node, read_lines, run_client
from support.node import NEEDS_NODE
from support.running import Running

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.parametrize("client", ["openai", "openai_agents", "langchain", "pydantic_ai"])
def test_a_client_in_python_is_served(tiny_server: Running, client: str) -> None:
    command = [sys.executable, str(CLIENTS / f"with_{client}.py")]
    check(read_lines(run_client([*command, f"{tiny_server.url}/v1"])), ASKED)


@NEEDS_NODE
def test_openai_in_node_is_served(tiny_server: Running, node_packages: Path) -> None:
    command = in_node("with_openai.mjs", node_packages)
    check(read_lines(run_client([*command, f"{tiny_server.url}/v1"])), ASKED)


@NEEDS_NODE
def test_the_ai_sdk_is_served(tiny_server: Running, node_packages: Path) -> None:
    command = in_node("with_ai_sdk.mjs", node_packages)
    found = read_lines(run_client([*command, f"{tiny_server.url}/v1"]))
    for provider in ("compatible", "chat", "responses"):
        check(found, {f"{provider}_{name}" for name in ASKED - {"responses"}})
