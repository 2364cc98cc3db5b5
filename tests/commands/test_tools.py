import json
import subprocess
import sys
from pathlib import Path

import pytest

from calltune.commands.tools import ToolsOptions, run
from calltune.errors import CalltuneError, DataError, OptionError
from calltune.formats import FORMATS
from calltune.tools import from_openai

PYTHON = '''
def weather(city: str, days: int = 3) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """

def add(a: float, b, *more) -> float:
    """Add numbers."""
'''
OPENAPI = {"openapi": "3.1.0", "paths": {"/a": {"get": {"operationId": "a.get"}}}}
LISTED = [{"type": "function", "function": {"name": "add", "parameters": {}}}]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PYTHON)
    (tmp_path / "api.json").write_text(json.dumps(OPENAPI))
    (tmp_path / "api.yml").write_text(json.dumps(OPENAPI))
    (tmp_path / "list.json").write_text(json.dumps(LISTED))
    return tmp_path


def names(file: Path) -> list[str]:
    return [each["function"]["name"] for each in json.loads(file.read_text())]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("mine.py", ["weather", "add"]),
        ("mine.py:add, weather", ["add", "weather"]),
        ("api.json", ["a_get"]),
        ("api.yml", ["a_get"]),
        ("list.json", ["add"]),
    ],
)
def test_a_source_is_known_by_its_end_or_content(here: Path, source: str, found: list[str]) -> None:
    assert names(run(ToolsOptions((source,)))) == found


def test_several_sources_become_one_list(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run(ToolsOptions(("mine.py", "list.json", "api.json"), output=here / "new" / "t.json"))
    assert names(file) == ["weather", "add", "add_2", "a_get"]
    assert json.loads(file.read_text())[3]["x-original-name"] == "a.get"
    shown = capsys.readouterr().out
    assert "weather  city, days?  Tell the weather." in shown
    assert "  note: add: *more is left out: calls give names\n" in shown
    assert "  note: add: b has no type hint; any value is allowed\n" in shown
    assert "  note: add: called add_2 here: its name is taken\n" in shown
    assert shown.endswith(f"Wrote {file}\n")


@pytest.mark.parametrize("name", FORMATS)
def test_prompts_show_the_tools_that_were_written(here: Path, name: str) -> None:
    toolset = from_openai(run(ToolsOptions(("mine.py", "api.json"))))
    prompt = FORMATS[name].render_prompt((), toolset.tools)
    assert prompt.count('"name": "weather"') == 1 and "x-original-name" not in prompt


@pytest.mark.parametrize(
    ("sources", "kind", "message"),
    [
        (("mine.txt",), "auto", "say what it is with --kind python, openapi, mcp, openai"),
        (("none.json",), "auto", "No file none.json"),
        (("api.json",), "openai", "api.json has no list of tools"),
        (("list.json",), "openapi", "list.json is not an OpenAPI document"),
        (("mine.py", "mcp:no-such-program-x"), "auto", "No tools from no-such-program-x ("),
        (("no-such-program-x",), "mcp", "No tools from no-such-program-x ("),
    ],
)
def test_a_bad_source_is_one_line_and_nothing_is_written(
    here: Path, sources: tuple[str, ...], kind: str, message: str
) -> None:
    with pytest.raises(CalltuneError) as raised:
        run(ToolsOptions(sources, kind=kind))  # type: ignore[arg-type]
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (here / "tools.json").exists()


def test_where_no_tool_can_be_made_the_notes_say_why(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "none.py").write_text("def f(a, /): ...\n")
    with pytest.raises(DataError, match="No tool can be made of none.py; nothing is written"):
        run(ToolsOptions(("none.py",)))
    assert "note: f: left out: a is positional-only" in capsys.readouterr().out
    assert not (here / "tools.json").exists()


def test_impossible_options_are_refused() -> None:
    with pytest.raises(OptionError, match="No sources"):
        ToolsOptions(())
    with pytest.raises(OptionError, match="--timeout is 0"):
        ToolsOptions(("x.py",), timeout=0)


def test_the_command_takes_sources_by_their_place(here: Path) -> None:
    given = ["mine.py", "list.json", "--output", "t.json"]
    command = [sys.executable, "-m", "calltune", "tools", *given]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert names(here / "t.json") == ["weather", "add", "add_2"]


def test_help_and_other_commands_import_no_library_for_tools() -> None:
    code = (
        "import sys; from calltune.cli import app; import calltune.tools;"
        "app(['tools', '--help'], result_action='return_value');"
        "print([m for m in ('pydantic', 'mcp', 'yaml', 'jsonschema') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.endswith("[]\n"), ended.stdout + ended.stderr
