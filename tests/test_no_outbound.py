"""A local run sends nothing anywhere."""

import subprocess
import sys
from pathlib import Path

from support import tiny

# Every connection that Python code opens raises this event, whatever library opens it.
WATCH = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("OUTBOUND", event, arguments[1:], file=sys.stderr)
        raise SystemExit(99)

sys.addaudithook(watch)
"""
RUN = """
from calltune.cli import main

for arguments in {commands!r}:
    try:
        main(arguments)
    except SystemExit as ended:
        if ended.code:
            raise
"""


def run_watched(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCH + code],
        cwd=folder,
        input="Add 1.\n",
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_local_run_opens_no_outbound_socket(tmp_path: Path, tiny_gemma: Path) -> None:
    tiny.write_rows(tmp_path / "mine.jsonl", 20)
    (tmp_path / "mine.py").write_text('def add(x: int) -> int:\n    """Add."""\n    return x\n')
    model = str(tiny_gemma)
    few = ["--num_examples", "2", "--max-tokens", "4"]
    commands = [
        ["load", "--dataset", "mine.jsonl"],
        ["prep", "--input_file", "data/training/mine_train_20examples"],
        ["look", "--model", model, "--num_examples", "1"],
        ["infer", "--model", model, *few],
        ["train", "--model", model, "--iters", "2", "--num-layers", "1", "--adapter-path", "a"],
        ["test", "--adapter-path", "a", *few],
        ["export", "--adapter-path", "a", "--data", "data/training", *few],
        ["export", "--adapter-path", "a", "--to", "peft"],
        ["analyze"],
        ["chat", "--tools", "mine.py", "--adapter-path", "a", "--max-tokens", "4", "--yes"],
        ["backend"],
    ]
    ended = run_watched(RUN.format(commands=commands), tmp_path)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "data" / "results" / "comparison.json").exists()


def test_the_watch_sees_a_connection(tmp_path: Path) -> None:
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    ended = run_watched(code, tmp_path)
    assert ended.returncode == 99 and "OUTBOUND" in ended.stderr
