"""The command line: each command's options are the fields of its options dataclass."""

import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

from cyclopts import App, Parameter
from cyclopts.config import Toml

from calltune import __version__
from calltune.commands import (
    analyze,
    backend,
    bench,
    call,
    chat,
    export,
    gate,
    infer,
    load,
    look,
    model,
    overlap,
    plan,
    prep,
    quickstart,
    serve,
    test,
    tools,
    train,
)
from calltune.errors import CalltuneError, OptionError
from calltune.terminal_text import escape_line

_OUT_OF_MEMORY = (
    "Memory ran out; use --grad-checkpoint, a smaller --batch-size or --max-seq-length, fewer "
    "--num-layers, or a 4-bit model"
)

app = App(
    name="calltune",
    help="Turn a small open model into one that calls your tools, with MLX.",
    help_epilogue="Every command reads options from a file with --config RECIPE.toml; "
    "options on the command line override it.",
    version=__version__,
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line with `arguments`, by default the program's own, and exit.

    Exits with 0, or with 1 after one line about what is wrong, 130 when interrupted, and 2 when an
    option is unknown. Where the output is a pipe that was closed, as by `| head`: with 1, silently.
    """
    # Without this, transformers reports at every start that PyTorch is missing; nothing needs it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except CalltuneError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to resume where it can", 130)
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        _leave_quietly()
    except MemoryError:
        _fail(_OUT_OF_MEMORY)
    except RuntimeError as error:
        # MLX's message on every backend: [malloc], [metal::malloc], cudaMalloc.
        if "malloc" not in str(error).lower():
            raise
        _fail(_OUT_OF_MEMORY)
    sys.exit(0)


def door(command: str) -> NoReturn:
    """Run one command with the program's arguments: what `src/load_data.py` and the like do."""
    main([command, *sys.argv[1:]])


def _run(arguments: list[str]) -> None:
    arguments, recipe = _take_recipe(arguments)
    app.config = () if recipe is None else (_from_recipe(recipe),)
    app(arguments, result_action="return_value")


def _from_recipe(recipe: Path) -> Callable[[App, tuple[str, ...], Any], None]:
    """A cyclopts config that reads the command's table of the recipe; plan reads train's."""
    toml = Toml(recipe, must_exist=True, search_parents=False)

    def read(app: App, commands: tuple[str, ...], arguments: Any) -> None:
        toml(app, tuple({"plan": "train"}.get(name, name) for name in commands), arguments)

    return read


def _take_recipe(arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--config FILE`, and the file."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-c"):
            following = arguments[index + 1 : index + 2]
            path = Path(value if equals else "".join(following))
            if not path.is_file():
                raise OptionError(f"No recipe {path}; give the path of a TOML file to --config")
            rest = arguments[index + (1 if equals else 2) :]
            return [*arguments[:index], *rest], path
    return arguments, None


def _fail(message: str, status: int = 1) -> NoReturn:
    print(f"calltune: {escape_line(message)}", file=sys.stderr)
    sys.exit(status)


def _output_is_closed() -> bool:
    """Whether the reader of the standard output is gone; other pipes may break as well."""
    watched = select.poll()
    watched.register(sys.stdout, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _leave_quietly() -> NoReturn:
    """Exit as rich does where its output is closed."""
    # Python flushes the standard output once more at exit, which would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


class _Command(NamedTuple):
    name: str
    """A second word is the name in a group of commands."""
    options: type[Any]
    """The dataclass whose fields are the command's options."""
    run: Callable[[Any], Path]
    help: str


_COMMANDS = (
    _Command(
        "quickstart",
        quickstart.QuickstartOptions,
        quickstart.run,
        "Run every step on a small model.",
    ),
    _Command("load", load.LoadOptions, load.run, "Load a dataset."),
    _Command("prep", prep.PrepOptions, prep.run, "Turn a dataset into prompts, and split it."),
    _Command("look", look.LookOptions, look.run, "Show rows as the trainer sees them."),
    _Command("plan", plan.PlanOptions, plan.run, "Estimate the memory that training needs."),
    _Command("train", train.TrainOptions, train.run, "Fine-tune a model: train an adapter."),
    _Command("infer", infer.InferOptions, infer.run, "Evaluate the base model."),
    _Command("test", test.TestOptions, test.run, "Evaluate the tuned model, and compare."),
    _Command(
        "analyze", analyze.AnalyzeOptions, analyze.run, "Compare two evaluations in a report."
    ),
    _Command("gate", gate.GateOptions, gate.run, "Fail if results fall behind a baseline."),
    _Command("bench bfcl", bench.BfclOptions, bench.run, "Run BFCL's Python categories."),
    _Command("overlap", overlap.OverlapOptions, overlap.run, "Find your rows that are in BFCL."),
    _Command("tools", tools.ToolsOptions, tools.run, "Make tools.json from functions or APIs."),
    _Command("call", call.CallOptions, call.run, "Ask one question, and print the calls."),
    _Command("chat", chat.ChatOptions, chat.run, "Chat with a model that runs its calls."),
    _Command("serve", serve.ServeOptions, serve.run, "Serve an OpenAI-compatible API."),
    _Command("export", export.ExportOptions, export.run, "Export a model for other programs."),
    _Command("model", model.ModelOptions, model.run, "Fetch or convert a model."),
    _Command("backend", backend.BackendOptions, backend.run, "Show where MLX computes, and why."),
)
"""All commands, in the order of `calltune --help`."""
_GROUPS = {"bench": "Run a public benchmark."}
"""Groups of commands, and their help."""


def _register(command: _Command) -> None:
    def execute(given: Any = None) -> None:
        command.run(command.options() if given is None else given)

    # Where pydantic is imported, cyclopts checks the default against the type: it must allow None.
    execute.__annotations__ = {
        "given": Annotated[command.options | None, Parameter(name="*")],
        "return": None,
    }
    if any(field.default is MISSING for field in fields(command.options)):
        # cyclopts takes a default as a sign that no option is required.
        execute.__defaults__ = None
    # One flag may take several values, except where it would take the arguments as well.
    takes_several = Parameter(consume_multiple=command.options is not tools.ToolsOptions)
    group, _, name = command.name.rpartition(" ")
    parent = _group(group) if group else app
    parent.command(
        execute,
        name=name,
        help=command.help,
        sort_key=len(list(parent)),
        default_parameter=takes_several,
    )


def _group(name: str) -> App:
    if name not in app:
        app.command(App(name=name, help=_GROUPS[name], sort_key=len(list(app))))
    return app[name]


for _command in _COMMANDS:
    _register(_command)
