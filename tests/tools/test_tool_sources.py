"""Sources opened together: each call runs where its tool came from, with what that calls it."""

import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from calltune.errors import OptionError
from calltune.tools.sources import MCPOptions, mcp_options, open_sources, read_source

SERVER = Path(__file__).parents[1] / "support" / "mcp_server.py"
COMMAND = "mcp:" + shlex.join([sys.executable, str(SERVER)])
MINE = '''
from dataclasses import dataclass
from datetime import date


@dataclass
class Point:
    x: int
    y: int = 0


def price(thing: str) -> str:
    """Mine."""
    return f"{thing} is dear"


def move(to: Point) -> Point:
    """Move."""
    return Point(to.x + 1, to.y)


async def later(when: date) -> date:
    """Wait."""
    return when


def größe(of: object) -> object:
    """Size."""
    return object


def fail(how: str) -> None:
    """Fail."""
    raise LookupError(how)
'''


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def test_functions_run_with_what_their_hints_say_and_give_json(mine: str) -> None:
    with ExitStack() as stack:
        runs = open_sources([mine], MCPOptions(), stack).runs
        assert runs["price"]({"thing": "tea"}) == "tea is dear"
        assert runs["move"]({"to": {"x": 1}}) == {"x": 2, "y": 0}
        assert runs["later"]({"when": "2024-05-06"}) == "2024-05-06"
        # Under the name that can be carried; what it returns has no JSON.
        assert runs["gro_e"]({"of": 1}) == "<class 'object'>"
        with pytest.raises(LookupError, match="so"):
            runs["fail"]({"how": "so"})


def test_two_tools_of_one_name_run_each_where_they_came_from(mine: str, tmp_path: Path) -> None:
    listed = {"name": "note", "description": "", "parameters": {"type": "object"}}
    (tmp_path / "tools.json").write_text(json.dumps([listed]))
    sources = [mine, COMMAND, mine, str(tmp_path / "tools.json")]
    with ExitStack() as stack:
        toolset, runs = open_sources(sources, MCPOptions(), stack)
        names = {tool.name: tool.description.split(".")[0] for tool in toolset.tools}
        assert names["price"] == "Mine" and names["price_2"] == "Tell a price"
        assert runs["price"]({"thing": "tea"}) == "tea is dear"
        assert runs["price_2"]({"thing": "tea", "count": 2}) == {"result": 2.0}
        assert runs["shop_open"]({"day": "today"}) == {"result": True}
        # A list alone runs nothing.
        assert "note" in names and "note" not in runs
        assert len(toolset.tools) == 5 + 3 + 1


def test_headers_go_to_one_server_and_are_headers() -> None:
    one = "http://127.0.0.1:9/mcp"
    options = mcp_options(["a.py", one], 5, ["Authorization: Bearer a:b", "X-Y:  z "])
    assert options == MCPOptions(5, {"Authorization": "Bearer a:b", "X-Y": "z"})
    assert mcp_options(["a.py"], 5, []) == MCPOptions(5, {})
    for sources in (["a.py", "mcp:server --to http://x"], [one, "https://127.0.0.1:9/other"]):
        with pytest.raises(OptionError, match="goes to one MCP server"):
            mcp_options(sources, 5, ["X: y"])
    for header in ("no colon", ": x", "X:", "X: a\nY: b"):
        with pytest.raises(OptionError, match="is not a header"):
            mcp_options([one], 5, [header])


def test_a_source_is_read_without_being_kept_open() -> None:
    assert [tool.name for tool in read_source(COMMAND, MCPOptions()).tools][:2] == [
        "price",
        "shop_open",
    ]
