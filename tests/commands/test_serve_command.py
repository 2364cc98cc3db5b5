import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from calltune.cli import main
from calltune.commands.serve import ServeOptions
from calltune.errors import OptionError

from support import tiny


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({}, "No model"),
        ({"model": "m", "port": 70000}, "--port is 70000"),
        ({"model": "m", "queue": -1}, "--queue is -1"),
        ({"model": "m", "timeout": 0.0}, "--timeout is 0"),
        ({"model": "m", "batch_size": 0}, "--batch_size is 0"),
        ({"model": "m", "max_schema_bytes": 0}, "--max_schema_bytes is 0"),
        ({"model": "m", "allowed_origins": ("app.example",)}, "app.example is no origin"),
        ({"model": "m", "allowed_origins": ("https://app.example/",)}, "is no origin"),
    ],
)
def test_impossible_options_are_refused(given: Any, wrong: str) -> None:
    with pytest.raises(OptionError, match=re.escape(wrong)):
        ServeOptions(**given)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    assert ended.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    return line


def test_an_address_beyond_this_machine_needs_a_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_llama: Path
) -> None:
    monkeypatch.delenv("CALLTUNE_API_KEY", raising=False)
    assert "set CALLTUNE_API_KEY" in refused(
        capsys, "--model", str(tiny_llama), "--host", "0.0.0.0"
    )


def test_any_origin_needs_a_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_llama: Path
) -> None:
    monkeypatch.delenv("CALLTUNE_API_KEY", raising=False)
    line = refused(capsys, "--model", str(tiny_llama), "--allowed-origins", "*")
    assert "set CALLTUNE_API_KEY" in line and "origins" in line


def served(*arguments: str, key: str | None = None) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if k != "CALLTUNE_API_KEY"}
    return subprocess.Popen(
        [sys.executable, "-m", "calltune", "serve", "--device", "cpu", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | ({"CALLTUNE_API_KEY": key} if key else {}),
    )


def address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.fullmatch(r"Serving on (http://\S+)\n", line):
            return found[1]
    raise AssertionError(process.communicate()[1])


def test_a_server_says_where_it_is_and_ends_when_it_is_told_to(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = tiny.write_adapter(tiny_llama, tmp_path / "mine", size=0.3, seed=1)
    process = served("--adapter-path", str(folder), f"other={folder}", "--port", "0", key="k")
    try:
        url = address(process)
        head = {"Authorization": "Bearer k"}
        assert httpx.get(f"{url}/models").status_code == 401
        models = httpx.get(f"{url}/models", headers=head).json()["data"]
        assert [model["id"] for model in models] == ["mine", "other", str(tiny_llama)]
        body = {
            "model": "mine",
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 300,
            "stream": True,
        }
        with httpx.stream("POST", f"{url}/chat/completions", json=body, headers=head) as reply:
            lines = reply.iter_lines()
            assert next(lines).startswith("data: ")
            process.send_signal(signal.SIGTERM)
            # What is being answered is answered to its end.
            assert [line for line in lines if line][-1] == "data: [DONE]"
        process.wait(20)
        assert process.stderr is not None and "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_an_address_that_is_taken_is_one_clear_line(tiny_llama: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = served("--model", str(tiny_llama), "--port", port)
        threading.Timer(60, process.kill).start()
        _, err = process.communicate()
    assert process.returncode == 1
    assert f"calltune: 127.0.0.1, port {port}, cannot be listened on" in err
    assert "Traceback" not in err


def test_the_context_is_what_memory_allows(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calltune.serving import loading

    model = tiny.make_model(tiny.LLAMA_CONFIG)
    cpu: Any = None
    # Two layers of one head of 16, keys and values in float32; 8 rows and 4 that are kept.
    per_token = 2 * 16 * 2 * 4 * 12
    for free, expected in ((4 * 1000 * per_token, 768), (1 << 40, 8192), (1, 256)):
        monkeypatch.setattr(loading, "device_bytes", lambda _, free=free: free)
        capacity = loading.plan_capacity(model, cpu, 8, None)
        assert (capacity.context_tokens, capacity.n_bytes) == (expected, expected * per_token)
    assert loading.plan_capacity(model, cpu, 8, 1000).n_bytes == 1000 * per_token
