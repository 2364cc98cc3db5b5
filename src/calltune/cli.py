"""The command line: each command's options are the fields of its options dataclass."""

import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, Parameter
from cyclopts.config import Toml

from calltune import __version__
from calltune.commands import COMMANDS, options_of, recipe_tables
from calltune.errors import CalltuneError, OptionError
from calltune.terminal_text import escape_line

_OUT_OF_MEMORY = (
    "Memory ran out; use --grad-checkpoint, a smaller --batch-size or --max-seq-length, fewer "
    "--num-layers, or a 4-bit model"
)


class _HelpFormatter:
    """cyclopts' help, with every text shown as it is written.

    As Markdown, which is cyclopts' default, a text would lose what looks like a tag, a link or
    emphasis: `<name>_<n>`.
    """

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        for entry in panel.entries:
            text = entry.description.primary_renderable
            # Its lines are those of the source.
            text.plain = " ".join(text.plain.split())
        self._default()(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        self._default().render_usage(console, options, usage)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        self._default().render_description(console, options, description)

    def _default(self) -> Any:
        from cyclopts.help.formatters import DefaultFormatter

        return DefaultFormatter()


app = App(
    name="calltune",
    help_format="plaintext",
    help_formatter=_HelpFormatter(),
    help="Turn a small open model into one that calls your tools, with MLX.",
    help_epilogue="Every command reads options from a file with --config RECIPE.toml; "
    "options on the command line override it.",
    version=__version__,
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line with `arguments`, by default the program's own, and exit.

    Exits with 0, or with 1 after one line about what is wrong, 130 when interrupted, and 2 when an
    option, or a table or key of a recipe, is unknown. Where the output is a pipe that was closed,
    as by `| head`: with 1, silently.
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
    if recipe is not None:
        try:
            recipe_tables(recipe)
        except OptionError as error:
            _fail(str(error), 2)
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


_GROUPS = {"bench": "Run a public benchmark."}
"""Groups of commands, and their help."""


def __getattr__(name: str) -> Callable[..., None]:
    """The function that runs a command: `run_train`, made when cyclopts first needs it.

    cyclopts imports it by this name, so that a command line imports no other commands.
    """
    command = name.removeprefix("run_").replace("_", " ")
    if command not in COMMANDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"calltune.commands.{command.split()[0]}")
    return _runner(options_of(command), module.run)


def _runner(options: type[Any], run: Callable[[Any], Path]) -> Callable[..., None]:
    def execute(given: Any = None) -> None:
        run(options() if given is None else given)

    # Where pydantic is imported, cyclopts checks the default against the type: it must allow None.
    execute.__annotations__ = {
        "given": Annotated[options | None, Parameter(name="*")],
        "return": None,
    }
    if any(field.default is MISSING for field in fields(options)):
        # cyclopts takes a default as a sign that no option is required.
        execute.__defaults__ = None
    return execute


def _register(command: str, help: str) -> None:
    group, _, name = command.rpartition(" ")
    if group and group not in app:
        app.command(App(name=group, help=_GROUPS[group], sort_key=len(list(app))))
    parent = app[group] if group else app
    parent.command(
        f"{__name__}:run_{command.replace(' ', '_')}",
        name=name,
        help=help,
        sort_key=len(list(parent)),
        # One flag may take several values, except where it would take the arguments as well.
        default_parameter=Parameter(consume_multiple=command != "tools"),
    )


for _command, _help in COMMANDS.items():
    _register(_command, _help)
