"""What the README says can be typed is there to be typed."""

import ast
import dataclasses
import importlib
import re
from pathlib import Path

from calltune.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_command_is_a_command_and_every_option_an_option() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    commands = re.findall(r"\bcalltune (\w+)([^\n#]*)", blocks)
    assert len(commands) >= 7
    for name, rest in commands:
        options = importlib.import_module(f"calltune.commands.{name}").__dict__
        known = {
            field.name
            for value in options.values()
            if dataclasses.is_dataclass(value)
            for field in dataclasses.fields(value)
        }
        assert app[name]
        assert {o.replace("-", "_") for o in re.findall(r"--([\w-]+)", rest)} <= known


def test_the_python_example_uses_what_there_is() -> None:
    code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        assert isinstance(node.func.value, ast.Name)
        stage = importlib.import_module(f"calltune.commands.{node.func.value.id}")
        called = getattr(stage, node.func.attr)
        if dataclasses.is_dataclass(called):
            fields = {field.name for field in dataclasses.fields(called)}
            assert {keyword.arg for keyword in node.keywords} <= fields


def test_the_tree_names_every_room_and_module() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    package = ROOT / "src" / "calltune"
    names = [path.name for path in package.iterdir() if not path.name.startswith(("_", "."))]
    names = [name for name in names if name != "py.typed"]
    missing = [n for n in names if n not in tree and f"{n}/" not in tree]
    assert missing == []
