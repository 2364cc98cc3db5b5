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

from calltune.calls import Json
from calltune.models.backend import choose
from calltune.stages import export, prep, train

pytestmark = pytest.mark.real

CITIES = ["Rome", "Oslo", "Lima", "Cairo", "Paris", "Quito", "Delhi", "Bonn", "Bern", "Riga"]
WEATHER: dict[str, Json] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
TOOLS: list[Json] = [{"type": "function", "function": WEATHER}]


def row(city: str) -> dict[str, Json]:
    return {
        "query": f"Weather in {city}?",
        "tools": json.dumps([WEATHER]),
        "answers": json.dumps([{"name": "get_weather", "arguments": {"city": city}}]),
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2, which learns one tool by heart in a few steps."""
    folder = tmp_path_factory.mktemp("served")
    rows = [row(city) for city in CITIES] * 2
    (folder / "rows").write_text("".join(json.dumps(line) + "\n" for line in rows))
    made = prep.PrepOptions(input_file=folder / "rows", output_dir=folder, format="chatml")
    adapter = train.run(
        train.TrainOptions(
            model="pip:smollm2-135m",
            data=prep.run(made),
            adapter_path=folder / "adapter",
            iters=20,
            batch_size=2,
            learning_rate=5e-4,
            num_layers=4,
            val_batches=1,
            steps_per_eval=20,
            grad_checkpoint=False,
        )
    )
    # float32: half precision crawls on CPUs.
    options = export.ExportOptions(adapter_path=adapter, output=folder / "out", bits="float32")
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
    answer = client.chat.completions.create(
        model="default_model",
        messages=[{"role": "user", "content": "Weather in Rome?"}],
        tools=TOOLS,
        temperature=0,
        max_tokens=60,
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Rome"}
