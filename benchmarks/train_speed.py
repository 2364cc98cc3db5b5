"""How fast calltune trains, beside mlx_lm's trainer and Hugging Face PEFT.

python benchmarks/train_speed.py --setting cpu --engine calltune,mlx_lm

The engines train the same rows and the same model, in interleaved rounds. Each engine's line goes
to benchmarks/results.jsonl. See README.md beside this file.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from engine_process import PLANS, EngineProcess
from interleave import measure
from make_rows import random_splits
from rows import describe_rows, read_rows, write_rows
from settings import SETTINGS, Setting

import report

RESULTS = Path(__file__).parent / "results.jsonl"
OVERRIDES = {
    "batch_size": "rows in a step",
    "steps": "steps in a round",
    "rounds": "rounds of training",
    "validation_rounds": "rounds of validation",
    "warm_up_steps": "steps before the first round",
    "max_seq_length": "leave longer rows out, for every engine",
    "n_valid": "rows to validate on",
}
"""Fields of a setting that an option of the same name changes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the engines in interleaved rounds, write their lines and print a table."""
    given = _parser().parse_args(arguments)
    # A time limit ends it as Ctrl-C does: with the lines of what was measured.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    setting, names = _setting(given), _engines(given)
    about = _about(setting) | report.surroundings(given.commit)
    print(f"{about['rows']}; {about['rows_left_out']} longer ones left out", flush=True)
    found = measure([_starter(name, setting, given) for name in names], setting)
    # An engine's own versions add to those that this process sees.
    lines = [
        about | line | {"versions": about["versions"] | line.get("versions", {})} for line in found
    ]
    for line in lines:
        report.append(given.results, line)
    if lines:
        print(report.table(lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--setting", choices=SETTINGS, default="cpu", help="see README.md")
    parser.add_argument(
        "--engine", "--engines", action="append", metavar="NAME[,NAME]", help=", ".join(PLANS)
    )
    for name, text in OVERRIDES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=text)
    parser.add_argument("--rows", help="the file that make_rows.py wrote")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to append to")
    parser.add_argument("--commit", help="to record where the code is no git checkout")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one answer")
    parser.add_argument(
        "--python", action="append", default=[], metavar="ENGINE=PATH", help="run an engine there"
    )
    return parser


def _setting(given: argparse.Namespace) -> Setting:
    chosen = {name: getattr(given, name) for name in (*OVERRIDES, "rows")}
    named = SETTINGS[given.setting]
    setting = replace(named, **{name: value for name, value in chosen.items() if value is not None})
    path = Path(setting.rows)
    if setting.name == "smoke" and not path.exists() and setting.shape is not None:
        splits = random_splits(setting.shape["vocab_size"], setting.seed)
        write_rows(path, splits["train"], splits["valid"])
    if not path.exists():
        sys.exit(f"No rows in {path}; run benchmarks/make_rows.py first")
    return setting


def _engines(given: argparse.Namespace) -> list[str]:
    names = [name for part in given.engine or ["calltune,mlx_lm"] for name in part.split(",")]
    if unknown := sorted(set(names) - set(PLANS)):
        sys.exit(f"No engine {', '.join(unknown)}; there are {', '.join(PLANS)}")
    return names


def _starter(name: str, setting: Setting, given: argparse.Namespace) -> Callable[[], EngineProcess]:
    log = Path(setting.rows).parent / "logs" / f"{name}.log"
    python = dict(pair.split("=", 1) for pair in given.python).get(name, sys.executable)
    return partial(EngineProcess, name, setting, log, given.timeout, python)


def _about(setting: Setting) -> dict[str, Any]:
    rows = read_rows(Path(setting.rows), setting.max_seq_length, setting.n_valid, setting.n_train)
    taken = ("model", "shape", "precision", "batch_size", "num_layers", "rank", "max_seq_length")
    return (
        {"benchmark": "train_speed", "setting": setting.name}
        | {name: getattr(setting, name) for name in taken}
        | {"rows": describe_rows(rows.train), "rows_left_out": rows.left_out}
        | {"rows_validated": len(rows.valid), "warm_up_steps": setting.warm_up_steps}
    )


if __name__ == "__main__":
    main()
