"""quickstart: a recipe's stages, one after the other, each as its own command."""

import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calltune.errors import CalltuneError, OptionError

STAGES = ("load", "prep", "look", "infer", "train", "test", "analyze")
"""The stages that a recipe may have, in the order in which they run."""


class StageFailed(CalltuneError):
    """A stage of a recipe ended with an error, which it has printed itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuickstartOptions:
    """Options of `calltune quickstart`."""

    recipe: str = "quickstart"
    """A recipe that comes with calltune (quickstart, smollm2, manual, gemma3-270m) or a file."""


def run(options: QuickstartOptions) -> Path:
    """Run every stage that the recipe has a table for; the recipe's file.

    Stages that are done are not done again: train and the tests see that by themselves.

    Raises:
        OptionError: no such recipe, or a table that is no stage.
        StageFailed: a stage ended with an error.
    """
    recipe = _find(options.recipe)
    stages = _stages_of(recipe)
    seconds = {}
    for stage in stages:
        command = ["calltune", stage, "--config", str(recipe)]
        print(f"\n$ {' '.join(command)}", flush=True)
        started = time.perf_counter()
        # Its own process: each stage chooses its backend, and its memory is given back.
        ended = subprocess.run([sys.executable, "-m", *command], check=False)
        seconds[stage] = time.perf_counter() - started
        if ended.returncode != 0:
            raise StageFailed(
                f"{stage} failed; mend what it says and run the same command again: "
                "what is done is kept"
            )
    timings = ", ".join(f"{stage} {took:.0f} s" for stage, took in seconds.items())
    print(f"Took {sum(seconds.values()) / 60:.1f} minutes: {timings}")
    return recipe


def recipes_folder() -> Path:
    """The folder of the recipes that come with calltune."""
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
    try:
        tables = tomllib.loads(recipe.read_text())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"{recipe} is not TOML ({error}); mend it") from None
    if unknown := [name for name in tables if name not in STAGES]:
        raise OptionError(
            f"{recipe} has a table {unknown[0]}, which is no stage; stages are {', '.join(STAGES)}"
        )
    return [stage for stage in STAGES if stage in tables]
