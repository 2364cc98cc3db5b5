"""The manual's commands and the command line's looks."""

import ast
import inspect
import io
import os
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App
from cyclopts.config import Toml
from rich.console import Console

from calltune import cli
from calltune.cli import app
from calltune.commands import COMMANDS, options_of, recipe_tables
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


def shown_help(asked: App, *command: str) -> str:
    """What `--help` prints, on lines wide enough for every text."""
    console = Console(width=4000, file=io.StringIO(), record=True)
    asked.help_print(list(command), console=console)
    return console.export_text()


def attribute_docs(options: type[Any]) -> dict[str, str]:
    """The texts below the fields of a class and its bases, each on one line."""
    found = {}
    for base in reversed(options.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = ast.literal_eval(below.value)
                found[ast.unparse(field.target)] = " ".join(text.split())
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_text_as_it_is_written(command: str) -> None:
    shown, texts = shown_help(app, *command.split()), attribute_docs(options_of(command))
    assert f"Usage: calltune {command} " in shown and COMMANDS[command] in shown
    assert texts.keys() == {field.name for field in fields(options_of(command))}
    assert [text for text in texts.values() if text not in shown] == []


@dataclass(frozen=True)
class MarkedOptions:
    """Options whose help looks like markup."""

    name: str = "x"
    """The file <name>_<split>_<n>examples, [bold]x[/bold], [a|b], [a](b), *all* of _it_, ~/.x, a
    `b`, <https://x/y> and C:\\<z>, 1. first"""


def test_help_takes_nothing_for_markup() -> None:
    (text,) = attribute_docs(MarkedOptions).values()
    marked = App("marked", help=text, help_format=app.help_format)
    marked.help_formatter = app.help_formatter
    marked.default(cli._runner(MarkedOptions, lambda _: Path()))
    assert shown_help(marked).count(text) == 2


SLIPS = {
    "[trian]\niters = 1": "a table trian, which is not a command; did you mean train?",
    "[Train]\niters = 1": "a table Train, which is not a command; did you mean train?",
    "[plan]\niters = 1": "a table plan, which is not a command; did you mean train?",
    "[bench.bfc]\nformat = 'gemma'": "bench.bfc, which is not a command; did you mean bench.bfcl?",
    "[dance]": "a table dance, which is not a command; commands are quickstart, load, ",
    "[[train]]\niters = 1": "has train as an array; write the table [train]",
    "train = 3": "has train as the value 3; write the table [train]",
    "iters = 3": "has iters in no command's table; put it below one such as [train]",
    "[bench]\nformat = 'gemma'": "bench.format in no command's table; put it below one such as "
    "[bench.bfcl]",
    "[train]\nitrs = 3": "[train]: itrs is not an option of calltune train; did you mean iters?",
    "[test]\nadapter = 'x'": "table [test]: adapter is not an option of calltune test; ",
    "[bench.bfcl]\ndevise = 'cpu'": "[bench.bfcl]: devise is not an option of calltune bench bfcl; "
    "did you mean device?",
    "[serve]\nport = 80\n[train": "is not TOML",
}


@pytest.mark.parametrize("text", SLIPS)
def test_a_slip_anywhere_in_a_recipe_is_named(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.toml").write_text(text)
    # The command's own table is right, where it has one.
    with pytest.raises(SystemExit) as ended:
        cli.main(["backend", "--config", str(tmp_path / "r.toml")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert SLIPS[text] in line


def test_tables_of_other_commands_and_both_spellings_are_right(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        "[train]\nnum-layers = 3\nno_grad_checkpoint = true\n[bench.bfcl]\nbatch_size = 2\n"
    )
    assert recipe_tables(recipe).keys() == {"train", "bench bfcl"}
