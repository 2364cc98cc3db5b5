"""The servers that are compared: their commands, and a process that can be measured."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import psutil

TUNED = "tuned"
CALLTUNE_FLAGS = "--queue 128 --timeout 600"
"""None of 128 clients is refused or times out."""
MLX_LM_FLAGS = "--decode-concurrency 32 --prompt-concurrency 8 --prompt-cache-size 10"
MLX_LM_SERVER = """
import socketserver
from mlx_lm.server import main

socketserver.TCPServer.request_queue_size = 512
main()
"""
"""By default its socket queues 5 connections, and most of many simultaneous clients fail."""


class ServerFailed(Exception):
    """The process of a server ended, or did not answer in time."""


def calltune(model: str, adapter: str | None, port: int) -> list[str]:
    """The command of `calltune serve`."""
    command = [sys.executable, "-m", "calltune", "serve", "--model", model]
    tuned = ["--adapter-path", f"{TUNED}={adapter}"] if adapter else []
    return [*command, *tuned, "--port", str(port)]


def mlx_lm(model: str, adapter: str | None, port: int) -> list[str]:
    """The command of mlx_lm's server: float32 weights, and calltune's prompts."""
    from calltune.formats import FORMATS
    from calltune.models.resolve import resolve

    command = [sys.executable, "-c", MLX_LM_SERVER, "--model", str(resolve(model, dense=True))]
    tuned = ["--adapter-path", adapter] if adapter else []
    template = FORMATS["chatml"].chat_template
    command += ["--port", str(port), "--log-level", "WARNING", "--chat-template", template]
    return [*command, *tuned]


COMMANDS: dict[str, Callable[[str, str | None, int], list[str]]] = {
    "calltune": calltune,
    "mlx_lm": mlx_lm,
}


def asked_for(name: str, model: str, adapter: str | None) -> str:
    """The model name for requests to a server."""
    if name == "mlx_lm":
        return "default_model"
    return TUNED if adapter else model


class Server:
    """The process of one server on 127.0.0.1."""

    def __init__(
        self,
        name: str,
        model: str,
        adapter: str | None,
        log: Path,
        flags: Sequence[str] = (),
        device: str = "cpu",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name, self.model, self._log = name, asked_for(name, model, adapter), log
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as written:
            self._process = subprocess.Popen(
                [*COMMANDS[name](model, adapter, port), *flags],
                stdout=written,
                stderr=subprocess.STDOUT,
                env=_environment(name, device) | dict(variables),
            )

    def wait_until_ready(self, timeout_s: float = 120) -> float:
        """Wait until the server answers its health check; how long that took, in seconds.

        Raises:
            ServerFailed: the process ended, or did not answer in time.
        """
        started = time.perf_counter()
        while time.perf_counter() - started < timeout_s:
            self.check()
            if _is_well(self.url):
                return time.perf_counter() - started
            time.sleep(0.2)
        raise ServerFailed(f"{self.name} is not ready after {timeout_s:.0f} s; see {self._log}")

    def check(self) -> None:
        """Check that the process runs.

        Raises:
            ServerFailed: it has ended.
        """
        if self._process.poll() is not None:
            raise ServerFailed(
                f"{self.name} ended with {self._process.returncode}; see {self._log}"
            )

    def memory_mb(self) -> float:
        """Resident memory of the process and its children, in megabytes."""
        process = psutil.Process(self._process.pid)
        processes = [process, *process.children()]
        return float(sum(each.memory_info().rss for each in processes)) / 1e6

    def cpu_s(self) -> float:
        """Processor time that the process has used, in seconds."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def pause(self) -> None:
        """Suspend the process, so that another server has the whole processor."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a suspended process."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the process."""
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _environment(name: str, device: str) -> dict[str, str]:
    """The environment of a server: mlx_lm is given the OpenBLAS that calltune finds by itself."""
    if device == "gpu":
        return dict(os.environ) | {"MLX_DEFAULT_DEVICE": "gpu"}
    variables = dict(os.environ) | {"MLX_DEFAULT_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if name == "mlx_lm" and sys.platform == "linux":
        from calltune.models.backend import find_openblas

        variables["LD_PRELOAD"] = str(find_openblas())
    return variables


def _is_well(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
