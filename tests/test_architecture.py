"""The rooms of the package and which of them may import which."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import calltune

PACKAGE = Path(calltune.__file__).parent

LADDER = (
    {"errors"},
    {"calls", "answering"},
    {"jsonl", "journal", "schema", "validation", "visible", "wheels", "runs"},
    {"formats", "sources", "splits", "unseen"},
    {"augment", "tools"},
    {"models"},
    {"batches", "rows"},
    {"score", "decode", "tune"},
    {"questions"},
    {"caller"},
    {"trial", "dialogue"},
    {"pages", "serve", "exports"},
    {"stages"},
    {"cli"},
    {"__main__"},
)
"""The rooms from the bottom up; each may import its own step and those before it."""

LEVELS = {room: level for level, rooms in enumerate(LADDER) for room in rooms}
GRAB_BAGS = {"utils", "util", "common", "helpers", "core", "misc"}


def module_name(path: Path) -> str:
    """The module in `path`, without the package's own name: "score.match"; "" is the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """The modules of calltune that this source imports anywhere, in functions as well."""
    here = ["calltune", *module.split(".")] if module else ["calltune"]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = node.level - (1 if is_package else 0)
            base = here[: len(here) - up] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            full = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("calltune.") for name in full if name.startswith("calltune."))


def faults(module: str, imported: Iterator[str]) -> list[str]:
    """What is wrong with the imports of one module."""
    room = module.split(".")[0]
    found = []
    for name in imported:
        other = name.split(".")[0]
        if other.startswith("__"):
            continue  # calltune.__version__
        if other not in LEVELS:
            found.append(f"{module} imports {name}, which has no place in the ladder")
        elif LEVELS[other] > LEVELS[room]:
            found.append(f"{module} imports {name}, which is above it")
        elif other == room == "stages" and module != "stages":
            found.append(f"{module} imports {name}: stages share files, not imports")
        elif other == "pages" and room not in ("pages", "stages"):
            found.append(f"{module} imports {name}, which is for stages only")
    return found


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_imports_point_down(module: str) -> None:
    path = MODULES[module]
    assert module.split(".")[0] in LEVELS, f"give {module} a place in LADDER"
    source = path.read_text("utf-8")
    assert faults(module, imports(source, module, path.name == "__init__.py")) == []


def test_the_package_itself_imports_only_what_it_hands_on() -> None:
    found = imports(MODULES[""].read_text("utf-8"), "", True)
    assert {name.split(".")[0] for name in found} == {"caller"}


def test_no_module_is_a_grab_bag() -> None:
    parts = {part for module in MODULES for part in module.split(".")}
    assert parts & GRAB_BAGS == set()


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("calls", "from calltune.jsonl import dumps", "calls imports jsonl.dumps, which is above"),
        ("score.match", "import calltune.stages.test", "which is above it"),
        ("models.gguf", "def f():\n    from calltune import tune", "imports tune, which is above"),
        ("score.match", "from ..stages import train", "imports stages.train, which is above"),
        ("score.match", "from . import metrics\nfrom .. import cli", "imports cli, which is above"),
        ("stages.test", "from calltune.stages.infer import run", "stages share files"),
        ("stages.test", "from .infer import run", "stages share files"),
        ("serve.app", "from calltune.pages.tables import print_summary", "for stages only"),
        ("cli", "from calltune.pages import tables", "for stages only"),
        ("score.match", "from calltune.extras import f", "no place in the ladder"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, source: str, fault: str) -> None:
    (found,) = faults(module, imports(source, module, False))
    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("score.match", "from calltune.calls import Answer\nfrom . import metrics"),
        ("stages.test", "from calltune.pages.tables import print_summary"),
        ("cli", "from calltune import __version__\nfrom calltune.stages import test"),
        ("tune.loop", "import json\nimport mlx.core as mx\nfrom calltunelike import x"),
    ],
)
def test_an_import_that_points_down_or_out_is_let_be(module: str, source: str) -> None:
    assert faults(module, imports(source, module, False)) == []
