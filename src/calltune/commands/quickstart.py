"""quickstart: run the commands of a recipe, one after the other."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calltune.commands import recipe_tables
from calltune.errors import CalltuneError, OptionError

STAGES = ("load", "prep", "look", "infer", "train", "test", "analyze")
"""The commands that a recipe may have a table for, in the order in which they run."""


class StageFailed(CalltuneError):
    """A command of a recipe failed, and has printed its error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickstartOptions:
    """Options of `calltune quickstart`."""

    recipe: str = "quickstart"
    """A recipe of calltune (quickstart, smollm2, manual or gemma3-270m), or a .toml file."""


def run(options: QuickstartOptions) -> Path:
    """Run every command that the recipe has a table for; the recipe's path.

    A finished training or evaluation is not repeated when the same recipe is run again.

    Raises:
        OptionError: there is no such recipe, or a table is not for one of `STAGES`.
        StageFailed: a command failed.
    """
    recipe = _find(options.recipe)
    stages = _stages_of(recipe)
    seconds = {}
    for stage in stages:
        command = ["calltune", stage, "--config", str(recipe)]
        print(f"\n$ {' '.join(command)}", flush=True)
        started = time.perf_counter()
        # In its own process, so that it chooses its own backend and releases its memory.
        ended = subprocess.run([sys.executable, "-m", *command], check=False)
        seconds[stage] = time.perf_counter() - started
        if ended.returncode != 0:
            raise StageFailed(
                f"{stage} failed; fix what it reports and run the same command again: "
                "finished steps are kept"
            )
    timings = ", ".join(f"{stage} {took:.0f} s" for stage, took in seconds.items())
    print(f"Took {sum(seconds.values()) / 60:.1f} minutes: {timings}")
    return recipe


def recipes_folder() -> Path:
    """The folder of calltune's recipes, in the installed package or in the repository."""
    installed = Path(__file__).parents[1] / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "recipes"


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise OptionError(f"No recipe {path}; check the path")
        return path
    known = sorted(path.stem for path in recipes_folder().glob("*.toml"))
    if name not in known:
        raise OptionError(f"No recipe {name}; there are {', '.join(known)}, or give a .toml file")
    return recipes_folder() / f"{name}.toml"


def _stages_of(recipe: Path) -> Sequence[str]:
    tables = recipe_tables(recipe, STAGES)
    return [stage for stage in STAGES if stage in tables]
