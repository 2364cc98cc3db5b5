"""Provenance of results: time, versions, commit and machine, written into every result file."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from calltune.files import dumps
from calltune.types import Json

_PACKAGES = ("calltune", "mlx", "mlx-lm", "transformers")
_DIGEST = re.compile("[0-9a-f]{64}")


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


def describe_changes(before: Json, now: Json) -> str:
    """What differs between two records of options: "iters 500, now 800"; "" where nothing does.

    Objects in them are compared key by key. Of a digest only the name is told.
    """
    old, new = dict(_leaves("", before)), dict(_leaves("", now))
    changed = [n for n in dict.fromkeys([*old, *new]) if old.get(n) != new.get(n)]
    return "; ".join(_change(name, old.get(name), new.get(name)) for name in changed)


def _leaves(name: str, value: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(key, inner)
    else:
        yield name, value


def _change(name: str, before: Json, now: Json) -> str:
    if any(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (before, now)):
        return f"{name.removesuffix('_sha256')} has other content"
    return f"{name} {dumps(before)[:60]}, now {dumps(now)[:60]}"


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
