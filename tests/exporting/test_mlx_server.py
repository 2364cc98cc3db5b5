"""An exported model in `mlx_lm server`, asked through OpenAI's client: calls come as tool_calls."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from calltune.commands import export
from calltune.models.backend import choose

from support import tuned

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def exported(tuned_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tuned SmolLM2 as one folder; in float32, for half precision crawls on CPUs."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    options = export.ExportOptions(adapter_path=tuned_adapter, output=folder, bits="float32")
    return export.run(options)


@pytest.fixture(scope="module")
def client(exported: Path) -> Iterator[OpenAI]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(exported)]
    blas = choose("cpu").blas
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ
        | {"MLX_DEFAULT_DEVICE": "cpu"}
        | ({"LD_PRELOAD": str(blas)} if blas else {}),
        stderr=subprocess.PIPE,
    )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as asked:
            yield asked
    finally:
        server.terminate()
        server.communicate()


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, server.communicate()[1].decode()
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


def test_a_call_comes_as_a_tool_call(client: OpenAI) -> None:
    question, asked_for, _ = tuned.asked()[0]
    answer = client.chat.completions.create(
        model="default_model",
        messages=[{"role": "user", "content": question}],
        tools=tuned.TOOLS,
        temperature=0,
        max_tokens=60,
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function" and call.function.name == asked_for.name
    assert json.loads(call.function.arguments) == asked_for.arguments
