import sys
from pathlib import Path

import pytest

from calltune.errors import DataError
from calltune.tools import from_python_file

SOURCE = '''
from __future__ import annotations
from dataclasses import dataclass
from os.path import join
from functools import cache
import beside

@dataclass
class Point:
    x: float

class Unused:
    def __call__(self): ...

unused = Unused()

def area(points: list[Point]) -> float:
    """The area."""

@cache
def cached(n: int) -> int: ...

def _private(): ...

if __name__ == "__main__":
    raise SystemExit(3)
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("def elsewhere(a: int): ...\n")
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


def test_public_functions_defined_in_the_file_are_tools(file: Path) -> None:
    before = list(sys.path)
    area, cached = from_python_file(file).tools
    assert (area.name, area.description, cached.name) == ("area", "The area.", "cached")
    assert area.parameters["properties"]["points"]["items"] == {"$ref": "#/$defs/Point"}
    assert sys.path == before


def test_named_functions_may_be_private_or_imported(file: Path) -> None:
    toolset = from_python_file(str(file), ["_private", "join"])
    assert [tool.name for tool in toolset.tools] == ["_private", "join"]


@pytest.mark.parametrize("name", ["nothing", "annotations.x", "__name__"])
def test_a_name_without_a_function_is_one_line(file: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"mine.py has no function {name}; check the name"):
        from_python_file(file, ["area", name])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n\ny = x / 0\n", "line 3: ZeroDivisionError: division by zero; fix it"),
        ("def f(:\n", "SyntaxError: "),
        ("import sys\nsys.exit(2)\n", "line 2: SystemExit: 2"),
        ("import no_such_module_x\n", "ModuleNotFoundError: No module named 'no_such_module_x'"),
        ("x = 1\n", "defines no public functions"),
    ],
)
def test_what_goes_wrong_in_a_file_is_one_line(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(DataError) as raised:
        from_python_file(tmp_path / "bad.py")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No file"):
        from_python_file(tmp_path / "none.py")


def test_a_file_called_like_a_library_does_not_stand_in_for_it(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def mine(a: int): ...\n")
    assert [tool.name for tool in from_python_file(tmp_path / "json.py").tools] == ["mine"]
    assert hasattr(sys.modules["json"], "loads")
