"""What the README and the documentation say exists, and the examples run."""

import ast
import dataclasses
import html
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import pytest
import yaml
from markdown_it import MarkdownIt

import calltune
from calltune.models import cpu_math

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *PAGES]
MODULES = sorted(Path(calltune.__file__).parent.rglob("*.py"))


def _docs_pages() -> ModuleType:
    """The hook that writes the generated pages; it is not part of a package."""
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "dev" / "docs_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs_pages = _docs_pages()
OPTIONS = {
    command.name: {field.name for field in dataclasses.fields(command.options)}
    for command in docs_pages.commands()
}


def _blocks(path: Path, language: str) -> list[str]:
    text = path.read_text("utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def _commands(path: Path) -> Iterator[tuple[str, str]]:
    """Each `calltune COMMAND` in a page's shell examples, with the rest of its line."""
    for block in _blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.findall(r"\bcalltune ((?:bench )?[a-z]\w*)([^#]*)", line)


def test_the_readme_is_short() -> None:
    assert len(README.split()) < 900


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_a_command_and_every_option_an_option(path: Path) -> None:
    for name, rest in _commands(path):
        assert name in OPTIONS
        given = {option.replace("-", "_") for option in re.findall(r"(?<=\s)--([\w-]+)", rest)}
        negated = {option.removeprefix("no_") for option in given}
        assert given - {"config"} <= OPTIONS[name] or negated <= OPTIONS[name], (name, rest)


def test_the_readme_shows_the_pipeline() -> None:
    assert {"quickstart", "train", "serve"} <= {name for name, _ in _commands(ROOT / "README.md")}


@pytest.mark.slow
@pytest.mark.real
def test_the_readme_example_runs(tuned_adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = _blocks(ROOT / "README.md", "python")
    adapter = 'Caller(adapter="adapters/quickstart")'
    assert adapter in code
    # The same lines with an adapter that the tests have: it was taught other tools.
    code = code.replace(adapter, f'Caller(adapter={str(tuned_adapter)!r}, device="cpu")')
    device = mx.default_device()
    try:
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    finally:
        mx.set_default_device(device)
        cpu_math.uninstall_cpu_patches()
    assert "get_weather {'city': 'Rome'" in capsys.readouterr().out


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_examples_use_what_there_is(path: Path) -> None:
    for code in _blocks(path, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("calltune"):
                module = importlib.import_module(node.module or "")
                assert [n.name for n in node.names if not hasattr(module, n.name)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_every_module_says_in_one_line_what_it_holds(path: Path) -> None:
    assert docs_pages.summary_of(path).endswith((".", ":"))


def test_every_page_of_the_navigation_exists_and_every_page_is_in_it() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))

    def leaves(nav: Any) -> Iterator[str]:
        for item in nav:
            for value in item.values():
                yield from [value] if isinstance(value, str) else leaves(value)

    written = {str(path.relative_to(ROOT / "docs")) for path in PAGES}
    assert set(leaves(config["nav"])) == written | set(docs_pages.PAGES)


def test_generated_pages_have_every_option_and_every_run() -> None:
    commands = docs_pages.commands_page()
    for name, options in OPTIONS.items():
        assert f"## calltune {name} " in commands
        for option in options:
            assert f"--{option.replace('_', '-')}" in commands or option.upper() in commands
    runs = (ROOT / "benchmarks" / "results.jsonl").read_text("utf-8").splitlines()
    assert docs_pages.runs_page().count("{ #line-") == len(runs)


@pytest.mark.parametrize(
    "text",
    [
        "the file <name>_<split>_<n>examples",
        "[a|b], [a](b), [a][b] and *all* of _it_, __x__ & &lt;",
        "with `--to` and --num_examples, `<x>` or a ` alone, and \\*",
    ],
)
def test_the_reference_shows_a_help_text_as_it_is_written(text: str) -> None:
    shown = MarkdownIt().render(docs_pages._prose(text))
    plain = html.unescape(re.sub(r"<[^>]*>", "", shown)).strip()
    assert plain.replace("`", "") == text.replace("`", "")


def test_every_option_has_a_help_text() -> None:
    for command in docs_pages.commands():
        docs = docs_pages.field_docs(command.options)
        assert [f.name for f in dataclasses.fields(command.options) if f.name not in docs] == []


def test_the_picture_of_the_architecture_has_every_package() -> None:
    picture = (ROOT / "docs" / "how-it-works" / "architecture.md").read_text("utf-8")
    picture = picture[picture.index("<svg") : picture.index("</svg>")]
    package = Path(calltune.__file__).parent
    names = {path.parent.name for path in package.glob("*/__init__.py")}
    names |= {path.stem for path in package.glob("*.py")} - {"__init__", "__main__", "cli"}
    assert {name for name in names if not re.search(rf"\b{name}\b", picture)} == set()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(path: Path) -> None:
    generated = {(ROOT / "docs" / page).resolve() for page in docs_pages.PAGES}
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8")):
        if "://" not in target:
            file = (path.parent / target).resolve()
            assert file.exists() or file in generated, target


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_of_the_code_that_are_named_exist(path: Path) -> None:
    folders = [ROOT, ROOT / "src" / "calltune", ROOT / "benchmarks"]
    for name in re.findall(r"`([\w/]+/[\w]+\.(?:py|toml|md))`", path.read_text("utf-8")):
        if "NAME" not in name:
            assert any((folder / name).is_file() for folder in folders), name
