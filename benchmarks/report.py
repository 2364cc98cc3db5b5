"""Lines of results made of measured blocks of steps, and the table of those lines."""

import importlib.metadata
import json
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EPOCHS = (1, 3)
PACKAGES = ("torch", "peft", "scipy-openblas32")


def summary(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Speeds over the rounds, and the share of the positions that were padding."""
    tokens, padded = (sum(block[key] for block in blocks) for key in ("tokens", "padded_tokens"))
    return {
        "rounds": len(blocks),
        "steps_per_round": blocks[0]["steps"],
        "tokens_per_second": spread([block["tokens"] / block["seconds"] for block in blocks]),
        "it_per_second": spread([block["steps"] / block["seconds"] for block in blocks]),
        "padding_share": round(1 - tokens / padded, 4),
        "tokens_per_step": round(tokens / sum(block["steps"] for block in blocks), 1),
    }


def validation_summary(blocks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Speed of validation over its rounds, and its last loss."""
    return {
        "validation_tokens_per_second": spread(
            [block["tokens"] / block["seconds"] for block in blocks]
        ),
        "validation_loss": round(blocks[-1]["loss"], 4),
    }


def effective(tokens_per_second: float, details: dict[str, Any]) -> dict[str, float]:
    """Tokens per second over whole epochs, including the time to fill the activation cache.

    Keys are the number of epochs; without a cache every epoch runs at `tokens_per_second`.
    """
    fill_s, tokens = details.get("prefix_fill_s", 0.0), details.get("prefix_tokens", 1)
    return {
        str(epochs): round(epochs * tokens / (fill_s + epochs * tokens / tokens_per_second), 1)
        for epochs in EPOCHS
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum, to five digits."""
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.5g}") for name, value in found.items()}


def surroundings(commit: str | None) -> dict[str, Any]:
    """Time, versions and machine; `commit` is used where there is no checkout to ask."""
    from calltune.provenance import describe

    found = describe()
    more = {name: version for name in PACKAGES if (version := _version(name))}
    found["versions"] |= more
    found["commit"] = found["commit"] or commit
    found["machine"] = f"{found['machine']}, {_processor()}{_gpu()}"
    return found


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one line to the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The lines as a table; every ratio is the first engine's speed divided by this one's."""
    wanted = ("engine", "tokens/s", "ratio", "it/s", "GB", "padding", "warm-up", "valid tokens/s")
    rows = [wanted, *(_table_row(line, lines[0]) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(wanted))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _table_row(line: dict[str, Any], first: dict[str, Any]) -> tuple[str, ...]:
    if "tokens_per_second" not in line:
        return (line["engine"], f"failed: {line['failed'][:60]}", "", "", "", "", "", "")
    speed = line["tokens_per_second"]
    ratio = first["tokens_per_second"]["median"] / speed["median"] if _has_speed(first) else 0
    peak = line.get("peak_gb") or line.get("max_rss_gb") or 0.0
    valid = line.get("validation_tokens_per_second")
    return (
        line["engine"] + (" (cut)" if "capped" in line else ""),
        f"{speed['median']:,.4g} ({speed['min']:,.4g} to {speed['max']:,.4g})",
        f"{ratio:.2f}" if ratio else "",
        f"{line['it_per_second']['median']:.3g}",
        f"{peak:.1f}",
        f"{line['padding_share']:.0%}",
        f"{line['warm_up_s']:.1f} s" if "warm_up_s" in line else "none",
        f"{valid['median']:,.4g}" if valid else "",
    )


def _has_speed(line: dict[str, Any]) -> bool:
    return "tokens_per_second" in line


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()


def _gpu() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return f", {done.stdout.strip()}" if done.returncode == 0 and done.stdout.strip() else ""
