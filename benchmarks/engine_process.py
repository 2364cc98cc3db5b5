"""The engines by name, and each one's process as the benchmark sees it."""

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from settings import Setting

WORKER = Path(__file__).parent / "worker.py"


@dataclass(frozen=True, slots=True)
class Plan:
    """How an engine is run."""

    module: str
    """In the folder engines."""
    weights: Literal["float32", "4-bit"] = "float32"
    """On a CPU; elsewhere weights are in the setting's precision."""
    has_openblas: bool = True
    """On a Linux CPU."""
    cut_to: int | None = None
    """It gets one step on rows of this many tokens, and no warm-up."""


PLANS = {
    "calltune": Plan("calltune_engine"),
    "mlx_lm": Plan("mlx_lm_engine"),
    # 32 tokens fill mlx_lm's narrowest batch.
    "mlx_lm_stock": Plan("mlx_lm_engine", weights="4-bit", has_openblas=False, cut_to=32),
    "peft": Plan("peft_engine"),
}


class EngineFailed(Exception):
    """The engine's process ended, said why it cannot go on, or took too long."""


class EngineProcess:
    """One engine at work."""

    def __init__(
        self, name: str, setting: Setting, log: Path, timeout_s: float, python: str = sys.executable
    ) -> None:
        self.name = name
        self.plan = PLANS[name]
        self._timeout_s = timeout_s
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        sent = replace(setting, cut_to=self.plan.cut_to, folder=_folder(setting, self.plan))
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [python, str(WORKER), self.plan.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env=environment(self.plan, setting.precision == "float32"),
            )
        self._send(sent.to_json())

    def ask(self, what: str, count: int = 0) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            EngineFailed: there is none.
        """
        self._send({"do": what, "count": count})
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], self._timeout_s)
        if not ready:
            raise EngineFailed(f"no answer to {what} {count} in {self._timeout_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise EngineFailed(f"ended without an answer to {what}; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise EngineFailed(answer["failed"])
        return answer

    def stop(self) -> None:
        """Let the process end, or end it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _send(self, values: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(values).encode() + b"\n")
        except BrokenPipeError as error:
            raise EngineFailed(f"ended by itself; see {self._log}") from error


def environment(plan: Plan, is_on_cpu: bool) -> dict[str, str]:
    """The environment of an engine's process."""
    variables = dict(os.environ)
    if sys.platform != "linux" or not is_on_cpu:
        return variables
    # With a CPU setting all engines compute there, also on a machine with a GPU.
    variables |= {"CUDA_VISIBLE_DEVICES": "", "MLX_DEFAULT_DEVICE": "cpu"}
    if plan.has_openblas and plan.module != "peft_engine":
        from calltune.models.backend import find_openblas

        variables["LD_PRELOAD"] = str(find_openblas())
    return variables


def _folder(setting: Setting, plan: Plan) -> str:
    """The folder of the setting's model in the form that the engine trains."""
    if setting.model is None:
        return ""
    from calltune.models.resolve import resolve

    dense = resolve(setting.model, dense=True)
    return str(dense if plan.weights == "float32" else four_bits(dense, Path(setting.rows).parent))


def four_bits(dense: Path, parent: Path) -> Path:
    """The model as mlx_lm's users have it: bfloat16, quantised to 4 bits in groups of 64."""
    folder = parent / f"{dense.name}-4bit"
    if not (folder / "config.json").is_file():
        command = [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", str(dense)]
        command += ["--mlx-path", str(folder), "--quantize", "--q-bits", "4"]
        command += ["--q-group-size", "64", "--dtype", "bfloat16"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder
