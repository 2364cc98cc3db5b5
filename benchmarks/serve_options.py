"""Command line options of serve_load.py."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serve_engines import CALLTUNE_FLAGS, COMMANDS, MLX_LM_FLAGS

HERE = Path(__file__).parent


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options of serve_load.py."""
    parser = argparse.ArgumentParser(description="calltune serve under load")
    add = parser.add_argument
    add("--engine", type=lambda text: text.split(","), default=list(COMMANDS))
    add("--part", type=lambda text: text.split(","), default=["load", "soak", "overload"])
    add("--model", default="pip:smollm2-135m")
    add("--adapter", help="folder of an adapter, so that answers are calls")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--clients", type=_numbers, default=[1, 8, 32, 128])
    add("--rounds", type=int, default=3)
    add("--questions", type=int, default=128, help="different ones")
    add("--max-requests", type=int, default=sys.maxsize, help="in a turn")
    add("--turn-s", type=float, default=240, help="after this no request of a turn is begun")
    add("--timeout-s", type=float, default=600, help="for one request")
    add("--soak-s", type=float, default=600)
    add("--soak-clients", type=int, default=8)
    add("--overload-s", type=float, default=60)
    add("--overload-clients", type=int, default=256)
    add("--calltune-flags", default=CALLTUNE_FLAGS, help="of calltune serve")
    add("--mlx-lm-flags", default=MLX_LM_FLAGS, help="of mlx_lm server")
    add("--smoke", action="store_true", help="does it run at all? Under a minute; no line is kept")
    add("--logs", type=Path, default=Path(".bench/serve"))
    add("--results", type=Path, default=HERE / "results.jsonl")
    add("--commit", help="to record where the code is no git checkout")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.engine) - set(COMMANDS)):
        parser.error(f"no engine {', '.join(unknown)}; there are {', '.join(COMMANDS)}")
    return _smaller(given) if given.smoke else given


def _smaller(given: argparse.Namespace) -> argparse.Namespace:
    given.clients, given.rounds, given.questions, given.max_requests = [2], 1, 2, 2
    given.part, given.results = ["load"], None
    return given


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
