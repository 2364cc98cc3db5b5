"""Provenance of results: time, versions, commit and machine, written into every result file."""

import os
import platform
import subprocess
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from calltune.types import Json

_PACKAGES = ("calltune", "mlx", "mlx-lm", "transformers")


def describe() -> dict[str, Json]:
    """The current time, the versions of the main packages, the commit and the machine, as JSON."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | _versions(),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def options_to_json(options: Any) -> dict[str, Json]:
    """An options dataclass as a JSON object; paths become strings, and tuples lists."""
    return {field.name: _to_json(getattr(options, field.name)) for field in fields(options)}


def _to_json(value: Any) -> Json:
    if isinstance(value, Path):
        return str(value)
    return [_to_json(part) for part in value] if isinstance(value, tuple) else value


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _commit() -> str | None:
    """The short commit of the Git checkout that this file is in; None outside of one."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return result.stdout.strip() or None
