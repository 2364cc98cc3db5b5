"""Commands of calltune in processes of their own that have their imports done already.

Importing what a command needs takes some three seconds, and tests run commands more than a hundred
times. One process does it once and is forked for each command; what a command does to its process,
it does to a fork. What tests prove about imports, environments and signals takes `python -m
calltune` as users do.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CAN_FORK = sys.platform == "linux"
"""Metal and macOS's frameworks do not survive a fork."""

_forking: subprocess.Popen[str] | None = None


def run(*arguments: str | Path, cwd: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    """What `calltune` with these arguments printed in `cwd`, and its exit status.

    `typed` is its standard input.
    """
    written = [str(argument) for argument in arguments]
    if not CAN_FORK:
        command = [sys.executable, "-m", "calltune", *written]
        return subprocess.run(
            command, cwd=cwd, input=typed, capture_output=True, text=True, check=False
        )
    process = _process()
    assert process.stdin is not None and process.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, error = Path(folder) / "out", Path(folder) / "error"
        (Path(folder) / "in").write_text(typed, "utf-8")
        order = {"arguments": written, "cwd": str(cwd), "env": dict(os.environ)}
        process.stdin.write(json.dumps(order | {"streams": folder}) + "\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
        shown = out.read_text("utf-8"), error.read_text("utf-8")
    return subprocess.CompletedProcess(["calltune", *written], status, *shown)


def _process() -> "subprocess.Popen[str]":
    global _forking
    if _forking is None:
        _forking = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_end, _forking)
    return _forking


def _end(process: "subprocess.Popen[str]") -> None:
    process.communicate()


def _fork_for_each_line() -> None:
    sys.path.pop(0)  # This folder, whose modules are no top-level ones.
    from calltune.models.backend import load_openblas

    load_openblas(False)
    import datasets  # noqa: F401
    import mlx_lm.utils  # noqa: F401

    import calltune.cli  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(order: dict[str, Any]) -> None:
    """The command, in the fork, which ends with it."""
    for stream, name in enumerate(("in", "out", "error")):
        flags = os.O_RDWR | os.O_CREAT
        os.dup2(os.open(Path(order["streams"]) / name, flags), stream)
    sys.stdin = os.fdopen(0)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    sys.argv = ["calltune", *order["arguments"]]
    from calltune.cli import main

    status: Any = 0
    try:
        main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _fork_for_each_line()
