"""The command line: one subcommand a stage, its options the fields of the stage's dataclass."""

import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

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
    help_epilogue="Every command takes --config RECIPE.toml; a flag beats the file.",
    version=__version__,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions(train.TrainOptions):
    """Options of `calltune plan`: those of train, and another machine's memory."""

    memory_gb: float | None = None
    """Plan for a machine with so many GB, 10⁹ bytes each; with --device gpu, of a GPU."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, or 1 with one line about what is wrong.

    Where the output goes to a pipe that is closed, as by `| head`: 1 and no line.
    """
    # transformers says at every start that it found no PyTorch; nothing here wants it.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except CalltuneError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where it can", 130)
    except BrokenPipeError:
        if not _output_is_closed():
            raise
        _leave_quietly()
    except MemoryError:
        _fail(_OUT_OF_MEMORY)
    except RuntimeError as error:
        # MLX says it so on every backend: [malloc], [metal::malloc], cudaMalloc.
        if "malloc" not in str(error).lower():
            raise
        _fail(_OUT_OF_MEMORY)
    sys.exit(0)


def door(stage: str) -> NoReturn:
    """Run one stage with the program's arguments, for the commands that the manual names."""
    main([stage, *sys.argv[1:]])


def _run(arguments: list[str]) -> None:
    arguments, recipe = _take_recipe(arguments)
    app.config = () if recipe is None else (_from_recipe(recipe),)
    app(arguments, result_action="return_value")


def _from_recipe(recipe: Path) -> Callable[[App, tuple[str, ...], Any], None]:
    """What reads the recipe's table of the command; plan reads that of train."""
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
    """Whether nobody reads the standard output; other pipes may break as well."""
    watched = select.poll()
    watched.register(sys.stdout, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _leave_quietly() -> NoReturn:
    """Exit as rich does where its output is closed."""
    # Python writes what it still holds once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def _add(
    name: str, options: type[Any], run: Callable[[Any], Path], help: str, to: App = app
) -> None:
    def command(given: Any = None) -> None:
        run(options() if given is None else given)

    # cyclopts holds the default against the hint as well, where pydantic is imported.
    command.__annotations__ = {
        "given": Annotated[options | None, Parameter(name="*")],
        "return": None,
    }
    if any(field.default is MISSING for field in fields(options)):
        # cyclopts wants a default just where every option has one.
        command.__defaults__ = None
    # Several values behind one flag, unless a flag would swallow what belongs to no flag.
    takes_several = Parameter(consume_multiple=options is not tools.ToolsOptions)
    order = len(list(to))
    to.command(command, name=name, help=help, sort_key=order, default_parameter=takes_several)


_add("quickstart", quickstart.QuickstartOptions, quickstart.run, "See it work: every stage, small.")
_add("load", load.LoadOptions, load.run, "Fetch rows of a dataset.")
_add("prep", prep.PrepOptions, prep.run, "Make train, valid and test splits of the rows.")
_add("look", look.LookOptions, look.run, "Show rows as the trainer sees them.")
_add("plan", PlanOptions, plan.run, "Say how much memory a training would take.")
_add("train", train.TrainOptions, train.run, "Fine-tune: an adapter for the model.")
_add("infer", infer.InferOptions, infer.run, "Test the base model.")
_add("test", test.TestOptions, test.run, "Test the fine-tuned model and compare.")
_add("analyze", analyze.AnalyzeOptions, analyze.run, "Compare base and tuned results.")
_add("gate", gate.GateOptions, gate.run, "Fail where results are worse than a baseline's.")
_bench = App(name="bench", help="Run a public benchmark.", sort_key=len(list(app)))
app.command(_bench)
_add("bfcl", bench.BfclOptions, bench.run, "BFCL's single-turn Python categories.", _bench)
_add("overlap", overlap.OverlapOptions, overlap.run, "Find rows that stand in BFCL, too.")
_add("tools", tools.ToolsOptions, tools.run, "Make tools.json of functions, OpenAPI or MCP.")
_add("call", call.CallOptions, call.run, "Ask one question; print the calls.")
_add("chat", chat.ChatOptions, chat.run, "Talk to a model whose calls are run.")
_add("serve", serve.ServeOptions, serve.run, "Answer OpenAI's API, with your tools.")
_add("export", export.ExportOptions, export.run, "Hand the tuned model over to other programs.")
_add("model", model.ModelOptions, model.run, "Fetch or convert a model; print its folder.")
_add("backend", backend.BackendOptions, backend.run, "Say where MLX computes, and why.")
