"""MkDocs hook: pages made from the code at build time, so that they cannot go out of date.

Writes the command reference and the recipe keys from the options dataclasses, the file tree from
module docstrings, one entry for each line of benchmarks/results.jsonl, and the contributing guide
and changelog from the files at the root of the repository.
"""

import ast
import dataclasses
import functools
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "calltune"
FILE_TREE = "<!-- file tree -->"
"""In a page: where the file tree goes."""
BACKEND_QUESTIONS = "<!-- backend questions -->"
"""In a page: where the list of places that ask for the backend goes."""
BACKEND_QUESTION = re.compile(
    r"device [!=]= '(cpu|cuda|metal)'|sys\.platform|\.is_available\(|\b_?(is|on)_(cpu|eager)\b"
    r"|\.(is_gpu|runs_cuda_kernels)\b"
)
"""An expression that depends on the backend or on the operating system."""


class Command(NamedTuple):
    """A command of the program, and the dataclass that holds its options."""

    name: str
    help: str
    options: type[Any]


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site (an MkDocs event)."""
    from mkdocs.structure.files import File

    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts where a page asks for them (an MkDocs event)."""
    for place, write in ((FILE_TREE, file_tree), (BACKEND_QUESTIONS, backend_questions)):
        if place in markdown:
            markdown = markdown.replace(place, write())
    return markdown


def commands() -> Iterator[Command]:
    """Every command that the program registers, in the order of its help."""
    from calltune.cli import app

    yield from _commands_of(app, "")


def commands_page() -> str:
    """The reference of all commands and their options, in Markdown."""
    parts = [
        "# Commands",
        "Every command answers `--help`, and takes `--config RECIPE.toml`, which reads its options "
        "from the [table with the command's name](recipes.md); a flag overrides the file. "
        "Options may be written with dashes or underscores: `--num-examples` is "
        "`--num_examples`. This page is generated from the options that the program registers.",
        "| command | what it does |\n|---|---|\n"
        + "\n".join(
            f"| [`{c.name}`](#{_anchor(c.name)}) | {_cell(_prose(c.help))} |" for c in commands()
        ),
    ]
    for command in commands():
        parts.append(f"## calltune {command.name} {{ #{_anchor(command.name)} }}")
        parts.append(_prose(command.help))
        fields = [f for f in dataclasses.fields(command.options) if f.init]
        docs = field_docs(command.options)
        arguments = [field for field in fields if not field.kw_only]
        usage = " ".join(
            ["calltune", command.name, *(field.name.upper() for field in arguments), "[OPTIONS]"]
        )
        parts.append(f"```bash\n{usage}\n```")
        types_of = typing.get_type_hints(command.options)
        entries = [
            _option_entry(field, types_of[field.name], docs.get(field.name, "")) for field in fields
        ]
        parts.append("\n".join(entries))
    return "\n\n".join(parts) + "\n"


def recipes_page() -> str:
    """The keys that a recipe may have, in Markdown."""
    from calltune.commands.quickstart import STAGES

    parts = [
        "# Recipe keys",
        "A recipe is a TOML file with one table for each command. `calltune COMMAND --config "
        "FILE` reads the table with the command's name (`plan` reads that of `train`, and `bench "
        "bfcl` reads `[bench.bfcl]`); a flag overrides the file. A table or key that is unknown is "
        "an error before anything runs, wherever it stands. "
        f"`calltune quickstart --recipe FILE` runs the commands that have a table, in this order: "
        f"{', '.join(f'`{stage}`' for stage in STAGES)}.",
        "Keys are the option names with underscores. What each one does is in the [command "
        "reference](commands.md). These tables are generated from the same dataclasses.",
        "The recipes that come with calltune:",
    ]
    for recipe in sorted((ROOT / "recipes").glob("*.toml")):
        text = textwrap.indent(recipe.read_text("utf-8").strip(), "    ")
        parts.append(f'??? example "recipes/{recipe.name}"\n\n    ```toml\n{text}\n    ```')
    for command in commands():
        if command.name == "quickstart":
            continue
        table = ".".join(command.name.split())
        if command.name == "plan":
            continue
        parts.append(f"## [{table}] {{ #{_anchor(command.name)} }}")
        types_of = typing.get_type_hints(command.options)
        rows = [
            f"| `{field.name}` | {_cell(_toml_type(types_of[field.name]))} | "
            f"{_cell(_toml_default(field))} |"
            for field in dataclasses.fields(command.options)
            if field.init
        ]
        parts.append("| key | value | default |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def runs_page() -> str:
    """Every line of benchmarks/results.jsonl, with an anchor for each, in Markdown."""
    lines = (ROOT / "benchmarks" / "results.jsonl").read_text("utf-8").splitlines()
    parts = [
        "# Every run",
        "The lines of `benchmarks/results.jsonl`, as the benchmarks appended them: settings, "
        "measurements, versions, commit and machine. Names and keys are those of the commit that "
        "wrote the line.",
    ]
    for number, line in enumerate(lines, 1):
        run = json.loads(line)
        title = " · ".join(_run_title(run))
        text = textwrap.indent(json.dumps(run, indent=2, ensure_ascii=False), "    ")
        parts.append(f"## Line {number} {{ #line-{number} }}")
        parts.append(f'??? note "{title}"\n\n    ```json\n{text}\n    ```')
    return "\n\n".join(parts) + "\n"


def file_tree() -> str:
    """The packages and modules of calltune with the first line of each docstring, in Markdown."""
    parts = []
    for folder in [PACKAGE, *sorted(path for path in PACKAGE.rglob("*") if path.is_dir())]:
        modules = sorted(folder.glob("*.py"))
        if not modules:
            continue
        name = "/".join(folder.relative_to(PACKAGE.parent).parts) + "/"
        rows = [
            f"| `{path.name}` | {_cell(summary_of(path))} |"
            for path in modules
            if path.name != "__init__.py"
        ]
        heading = f"### {name}\n\n{summary_of(folder / '__init__.py')}"
        table = "| module | what it holds |\n|---|---|\n" + "\n".join(rows) if rows else ""
        parts.append(f"{heading}\n\n{table}".strip())
    return "\n\n".join(parts)


def backend_questions() -> str:
    """Every function that asks for the backend or the operating system, in Markdown."""
    rows = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE)
        tree = ast.parse(path.read_text("utf-8"))
        for name, function in _functions_of(tree, ""):
            found = dict.fromkeys(
                ast.unparse(node)
                for node in ast.walk(function)
                if isinstance(node, ast.Compare | ast.Call | ast.Attribute | ast.Name)
                and _asks_for_backend(node)
            )
            # Without what is part of another expression in the list.
            asked = [e for e in found if not any(e != other and e in other for other in found)]
            if asked:
                purpose = (ast.get_docstring(function) or "").partition("\n")[0]
                shown = ", ".join(f"`{expression}`" for expression in asked)
                rows.append(f"| `{module}` | `{name}` | {_cell(_prose(purpose))} | {shown} |")
    head = "| module | function | what the function does | what it asks |\n|---|---|---|---|\n"
    return head + "\n".join(rows)


def summary_of(path: Path) -> str:
    """The first line of a module's docstring.

    Raises:
        ValueError: the module has none.
    """
    text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring")
    return text.splitlines()[0]


@functools.cache
def field_docs(options: type[Any]) -> dict[str, str]:
    """The docstring under each field of a dataclass and its bases."""
    found: dict[str, str] = {}
    for cls in reversed(options.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
                and isinstance(following.value.value, str)
            ):
                found[statement.target.id] = inspect.cleandoc(following.value.value)
    return found


def _commands_of(app: App, prefix: str) -> Iterator[Command]:
    names = [name for name in app if not name.startswith("-")]
    for name in sorted(names, key=lambda name: app[name].sort_key):
        command = app[name]
        run = command.default_command
        if run is None:
            yield from _commands_of(command, f"{prefix}{name} ")
        else:
            yield Command(f"{prefix}{name}", command.help, _options_of(run))


def _options_of(run: Callable[..., Any]) -> type[Any]:
    for hint in run.__annotations__.values():
        for candidate in typing.get_args(hint) or (hint,):
            for each in typing.get_args(candidate) or (candidate,):
                if isinstance(each, type) and dataclasses.is_dataclass(each):
                    return each
    raise ValueError(f"{run} takes no options dataclass")


def _option_entry(field: dataclasses.Field[Any], hint: Any, text: str) -> str:
    dashed = field.name.replace("_", "-")
    name = f"--{dashed}" if field.kw_only else field.name.upper()
    if hint is bool:
        name = f"--{dashed} / --no-{dashed}"
    value = "" if hint is bool else f" *{_value_type(hint)}*"
    default = _default(field)
    told = f"Default: {default}." if default else "Required." if _is_required(field) else ""
    return f"`{name}`{value}\n:   {_prose(text)} {told}".rstrip() + "\n"


def _functions_of(
    tree: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of a module and of its classes, with their names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from _functions_of(node, f"{node.name}.")


def _asks_for_backend(node: ast.AST) -> bool:
    """Whether an expression asks, and no smaller one in it does."""
    if not BACKEND_QUESTION.search(ast.unparse(node)):
        return False
    if isinstance(node, ast.Compare):
        return True
    parts = [child for child in ast.walk(node) if child is not node]
    return not any(
        isinstance(part, ast.expr) and BACKEND_QUESTION.search(ast.unparse(part)) for part in parts
    )


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default_value(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _default(field: dataclasses.Field[Any]) -> str:
    if _is_required(field) or (value := _default_value(field)) in (None, (), ""):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return " ".join(f"`{each}`" for each in value)
    return f"`{value}`"


def _value_type(hint: Any) -> str:
    plain = _without_none(hint)
    if typing.get_origin(plain) is typing.Literal:
        return " | ".join(typing.get_args(plain))
    if typing.get_origin(plain) is tuple:
        return f"{_value_type(typing.get_args(plain)[0])} …"
    return {int: "integer", float: "number", str: "text", Path: "path"}.get(plain, str(plain))


def _toml_type(hint: Any) -> str:
    plain = _without_none(hint)
    if typing.get_origin(plain) is typing.Literal:
        return " or ".join(f'`"{value}"`' for value in typing.get_args(plain))
    if typing.get_origin(plain) is tuple:
        return f"array of {_toml_type(typing.get_args(plain)[0])}s"
    names = {int: "integer", float: "float", str: "string", Path: "string", bool: "boolean"}
    return names.get(plain, str(plain))


def _toml_default(field: dataclasses.Field[Any]) -> str:
    if _is_required(field):
        return "required"
    value = _default_value(field)
    if value is None:
        return "not set"
    if isinstance(value, (bool, int, float)):
        return f"`{json.dumps(value)}`"
    if isinstance(value, tuple):
        return f"`{json.dumps([str(each) for each in value])}`"
    return f"`{json.dumps(str(value))}`"


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    return hint


def _run_title(run: dict[str, Any]) -> Iterator[str]:
    yield run["benchmark"]
    for key in ("setting", "part", "engine"):
        if run.get(key):
            yield str(run[key])
    if run.get("batch_size"):
        yield f"batch {run['batch_size']}"
    if run.get("clients"):
        yield f"{run['clients']} clients{', streaming' if run.get('streaming') else ''}"
    yield run["created"][:10]
    yield run["commit"]


def _root_page(name: str) -> str:
    text = (ROOT / name).read_text("utf-8")
    return text.replace("](docs/", "](")


def _prose(text: str) -> str:
    """A help text as Markdown that shows it as it is written, with options as code."""
    parts = re.split(r"(`[^`]+`|(?<![\w-])--[a-z][\w-]*)", " ".join(text.split()))
    return "".join(_code_or_plain(part) for part in parts)


def _code_or_plain(part: str) -> str:
    if re.fullmatch("`[^`]+`", part):
        return part
    if part.startswith("--"):
        return f"`{part}`"
    # No accidental tag, emphasis or link.
    escaped = part.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\*_\[\]`])", r"\\\1", escaped)


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/recipes.md": recipes_page,
    "benchmarks/runs.md": runs_page,
    "contributing.md": lambda: _root_page("CONTRIBUTING.md"),
    "changelog.md": lambda: _root_page("CHANGELOG.md"),
}
"""The generated pages by their paths in docs/."""
