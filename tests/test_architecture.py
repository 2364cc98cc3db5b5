"""The order of the rooms, read from the tree: imports point down, and never in a circle."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import calltune

PACKAGE = Path(calltune.__file__).parent
MAX_ROOT_MODULES = 7
FOUNDATIONS = {"errors", "types", "files", "provenance", "terminal_text", "downloads"}
"""Root modules that any room may import, and that import no room."""
ENTRANCES = {"", "cli", "__main__"}
"""What a user starts; no room may import them."""
FOR_COMMANDS_ONLY = {"report"}
GRAB_BAGS = {"utils", "util", "common", "helpers", "core", "misc"}


def module_name(path: Path) -> str:
    """The module in `path` without the package: "evaluation.judge"; "" is the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


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
        for name in full:
            if name.startswith("calltune.") and (found := _module_of(name)) is not None:
                yield found


def _module_of(name: str) -> str | None:
    """The module that an imported name is, or is in: "calltune.files.dumps" is in "files"."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or None


def room_of(module: str) -> str:
    return module.split(".")[0]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle in who imports whom; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def faults(module: str, imported: Iterator[str]) -> list[str]:
    """What is wrong with the imports of one module, apart from circles."""
    room = room_of(module)
    found = []
    for name in imported:
        other = room_of(name)
        if other in ENTRANCES and room not in ENTRANCES:
            found.append(f"{module} imports {name}, which is an entrance")
        elif room in FOUNDATIONS and other not in FOUNDATIONS:
            found.append(f"{module} imports {name}, which is above it")
        elif other == room == "commands" and "." in module and "." in name:
            found.append(f"{module} imports {name}: commands share the layers below")
        elif other == "commands" and room not in {*ENTRANCES, "commands"}:
            found.append(f"{module} imports {name}, which is above it")
        elif other in FOR_COMMANDS_ONLY and room not in {other, "commands"}:
            found.append(f"{module} imports {name}, which is for commands only")
    return found


IMPORTS = {
    module: set(imports(path.read_text("utf-8"), module, path.name == "__init__.py"))
    for module, path in MODULES.items()
}


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_imports_point_down(module: str) -> None:
    assert faults(module, iter(IMPORTS[module])) == []


def test_rooms_do_not_import_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for module, imported in IMPORTS.items():
        if module not in ENTRANCES:
            others = {room_of(name) for name in imported} - {room_of(module)}
            rooms.setdefault(room_of(module), set()).update(others)
    assert circle(rooms) == []


def test_modules_do_not_import_in_a_circle() -> None:
    assert circle({module: others - {module} for module, others in IMPORTS.items() if module}) == []


def test_few_modules_stand_at_the_root() -> None:
    root = {module for module in MODULES if "." not in module and MODULES[module].parent == PACKAGE}
    assert root - ENTRANCES <= FOUNDATIONS
    assert len(root - {"", "__main__"}) <= MAX_ROOT_MODULES


def test_no_module_is_a_grab_bag() -> None:
    parts = {part for module in MODULES for part in module.split(".")}
    assert parts & GRAB_BAGS == set()


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("types", "from calltune.formats import FORMATS", "types imports formats, which is above"),
        ("evaluation.judge", "import calltune.commands.test", "which is above it"),
        (
            "gguf.read",
            "def f():\n    from calltune import cli",
            "imports cli, which is an entrance",
        ),
        ("evaluation.judge", "from ..commands import train", "imports commands.train, which is"),
        ("commands.test", "from calltune.commands.infer import run", "share the layers below"),
        ("commands.test", "from .infer import run", "share the layers below"),
        ("serving.app", "from calltune.report.tables import print_summary", "for commands only"),
        ("cli", "from calltune.report import tables", "for commands only"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, source: str, fault: str) -> None:
    (found,) = faults(module, imports(source, module, False))
    assert fault in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("evaluation.judge", "from calltune.types import Answer\nfrom . import metrics"),
        ("commands.test", "from calltune.report.tables import print_summary"),
        ("cli", "from calltune import __version__\nfrom calltune.commands import test"),
        ("training.loop", "import json\nimport mlx.core as mx\nfrom calltunelike import x"),
    ],
)
def test_an_import_that_points_down_or_out_is_let_be(module: str, source: str) -> None:
    assert faults(module, imports(source, module, False)) == []


def test_a_circle_is_found() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
