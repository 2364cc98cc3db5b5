"""The manual's commands and the command line's looks."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cyclopts.config import Toml

from calltune import cli
from calltune.cli import app
from calltune.commands.quickstart import STAGES, recipes_folder

SRC = Path(__file__).parents[1] / "src"
DOORS = {
    "load_data.py": ["--dataset", "--split", "--num_examples", "--output_dir"],
    "prep_data.py": [
        "--input_file",
        "--output_dir",
        "--num_examples",
        "--train_ratio",
        "--val_ratio",
        "--test_ratio",
        "--random_seed",
    ],
    "inference.py": ["--num_examples", "--verbose"],
    "test_model.py": ["--num_examples", "--verbose"],
    "analyze_results.py": ["--verbose"],
}
TRAIN_FLAGS = [
    "--model",
    "--train",
    "--data",
    "--iters",
    "--val-batches",
    "--learning-rate",
    "--batch-size",
    "--num-layers",
    "--save-every",
    "--adapter-path",
    "--resume-adapter-file",
    "--grad-checkpoint",
    "--seed",
]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("door", DOORS)
def test_every_door_shows_its_options(door: str) -> None:
    ended = run(SRC / door, "--help")
    assert ended.returncode == 0, ended.stderr
    for option in DOORS[door]:
        assert option.replace("_", "-") in ended.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", [["--help"], ["analyze", "--help"], ["--version"], ["backend", "--device", "cpu"]]
)
def test_a_pipe_that_is_closed_early_ends_a_command_quietly(
    command: list[str], unbuffered: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "calltune", *command],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        text=True,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_another_broken_pipe_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: list[str]) -> None:
        raise BrokenPipeError("a connection")

    monkeypatch.setattr(cli, "_run", broken)
    with pytest.raises(BrokenPipeError, match="a connection"):
        cli.main([])


def test_an_error_is_one_line_that_a_terminal_does_not_obey() -> None:
    ended = run("-m", "calltune", "gate", "x\x1b[31m\r\ny", "--baseline", "z\x1b]8;;\x07")
    assert ended.returncode == 1
    assert ended.stderr == (
        "calltune: No file z\\x1b]8;;\\x07; write it with the command before, or check the path\n"
    )


@pytest.mark.parametrize("spelling", ["--num_examples", "--num-examples"])
def test_both_spellings_of_an_option_work(spelling: str) -> None:
    ended = run(SRC / "inference.py", spelling, "0")
    assert ended.stderr == "calltune: --num_examples is 0; give 1 or more, or -1 for all\n"


def test_train_takes_every_flag_of_the_manual() -> None:
    help = run("-m", "calltune", "train", "--help").stdout
    assert [flag for flag in TRAIN_FLAGS if f"{flag} " not in help] == []


@pytest.mark.parametrize("command", [[], ["bench"], ["bench", "bfcl"]])
def test_help_imports_no_engine(command: list[str]) -> None:
    code = (
        "import sys; from calltune.cli import app;"
        f"app({[*command, '--help']}, result_action='return_value');"
        "print([m for m in ('mlx', 'mlx_lm', 'transformers', 'datasets', 'numpy') "
        "if m in sys.modules])"
    )
    assert run("-c", code).stdout.endswith("[]\n")


@pytest.mark.parametrize(("command", "imported"), [([], []), (["look"], ["look"])])
def test_help_imports_no_other_command(command: list[str], imported: list[str]) -> None:
    code = (
        "import sys; from calltune.cli import app;"
        f"app({[*command, '--help']}, result_action='return_value');"
        "print([m.split('.')[2] for m in sys.modules if m.startswith('calltune.commands.')])"
    )
    assert run("-c", code).stdout.endswith(f"{imported}\n")


def test_a_command_without_options_is_read_where_pydantic_is_imported() -> None:
    code = (
        "import pydantic; from calltune.cli import app;"
        "app.parse_args(['analyze'], exit_on_error=False, print_error=False); print('read')"
    )
    assert run("-c", code).stdout == "read\n"


@pytest.mark.parametrize("recipe", sorted(recipes_folder().glob("*.toml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_gives_valid_options(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = tomllib.loads(recipe.read_text())
    assert tables.keys() <= set(STAGES) and tables
    monkeypatch.setattr(app, "config", (Toml(recipe, must_exist=True),))
    for stage, table in tables.items():
        bound = app.parse_args([stage], print_error=True, exit_on_error=False)[1]
        options = bound.arguments.get("given")
        assert {name: str(getattr(options, name)) for name in table} == {
            name: str(value) for name, value in table.items()
        }


def test_a_recipe_reaches_the_command_of_a_command(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('[bench.bfcl]\nformat = "from-recipe"\n')
    assert "No format from-recipe" in run("-m", "calltune", "bench", "bfcl", "-c", recipe).stderr


def test_a_flag_beats_the_recipe_and_an_unknown_key_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('[prep]\ninput_file = "from-recipe"\n')
    assert "from-recipe" in run("-m", "calltune", "prep", "--config", recipe).stderr
    ended = run("-m", "calltune", "prep", "--config", recipe, "--input_file", "from-flag")
    assert "from-flag" in ended.stderr
    recipe.write_text('[prep]\ninput_file = "x"\ncolour = "red"\n')
    ended = run("-m", "calltune", "prep", "--config", recipe)
    assert ended.returncode == 2
    assert "colour" in ended.stderr


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        ("chat --tools a.py b.py --yes", "tools", ("a.py", "b.py")),
        ("chat --tools a.py --yes --tools b.py", "tools", ("a.py", "b.py")),
        ("train --modules q_proj v_proj --iters 3", "modules", ("q_proj", "v_proj")),
        ("tools --header X:y a.py b.py --output o.json", "sources", ("a.py", "b.py")),
        ("gate results.json --baseline b.json", "results", Path("results.json")),
        ("call Why? --tools t.json", "query", "Why?"),
        ("model --dense pip:smollm2-135m", "model", "pip:smollm2-135m"),
    ],
)
def test_arguments_and_flags_with_several_values_are_read(
    command: str, name: str, value: object
) -> None:
    _, bound, _ = app.parse_args(command.split())
    assert getattr(bound.arguments["given"], name) == value
