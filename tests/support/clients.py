"""Scripts of tests/trials/clients: run in a process of their own, and what they print, judged."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

CLIENTS = Path(__file__).parents[1] / "trials" / "clients"
ASKED = {"tools", "strict_tools", "union", "structured_answer", "stream", "history", "responses"}
"""What every client asks for; some ask for more."""


def run_client(command: list[str]) -> str:
    """What a client prints that runs in a process of its own."""
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        # Without proxies, keys and switches of the clients.
        env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def read_lines(printed: str) -> dict[str, Any]:
    """What a client printed: what it found or why it failed, by what it asked."""
    lines = [json.loads(line) for line in printed.splitlines()]
    return {line["name"]: line.get("found", line.get("error")) for line in lines}


def is_right(found: Any) -> bool:
    """Whether this is a wall as one was asked for, with no key too many."""
    match found:
        case {"colour": "red" | "green" | "blue", "coats": 1 | 2 | 3}:
            return len(found) == 2
        case {"shape": {"kind": "circle", "radius": int(size)} as shape}:
            return len(found) == 1 and len(shape) == 2 and 1 <= size <= 9
        case {"shape": {"kind": "square", "side": int(size), "is_filled": bool()} as shape}:
            return len(found) == 1 and len(shape) == 3 and 1 <= size <= 9
    return False


def check(found: dict[str, Any], asked: set[str]) -> None:
    """All of this was asked for and, as everything else, answered."""
    assert asked <= set(found)
    wrong = [f"{name}: {value}" for name, value in found.items() if not is_right(value)]
    assert not wrong, "\n\n".join(wrong)


def in_node(script: str, packages: Path) -> list[str]:
    """The command that runs one of the scripts in Node."""
    folder = _beside(packages)
    return ["node", "--import", str(folder / "watch.mjs"), str(folder / script)]


def bundle(client: str, packages: Path) -> bytes:
    """A script for Node as one for a web page, with all that it imports."""
    folder = _beside(packages)
    command = [str(packages / "node_modules" / ".bin" / "esbuild"), f"with_{client}.mjs"]
    options = ["--bundle", "--format=esm", "--log-level=error"]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, check=True).stdout


def _beside(packages: Path) -> Path:
    # Node looks for packages above the script.
    folder = packages / "clients"
    folder.mkdir(exist_ok=True)
    for script in CLIENTS.glob("*.mjs"):
        # In one piece: a client of another test process may be reading it.
        written = folder / f"{script.name}.{os.getpid()}"
        shutil.copy(script, written)
        written.replace(folder / script.name)
    return folder
