from dataclasses import replace
from pathlib import Path

import pytest

from calltune.data.prepared import prepare_example
from calltune.evaluation.results import Results
from calltune.files import file_digest, write_rows
from calltune.formats import FORMATS
from calltune.report.html import prompts_of
from calltune.types import Answer, Example, Json, Message, Tool

from support import verdicts

TOOLS = tuple(
    Tool(name, "", {}, {"name": name, "description": f"Does {name} or <b>è</b>.", "parameters": {}})
    for name in ("f", "g", "h")
)


def example(id: str, *tools: Tool) -> Example:
    said = (Message("system", "Be brief."), Message("user", f"Do {id}"))
    return Example(id, said, tools, (Answer(tools[0].name, {}),), "xlam")


EXAMPLES = [
    example("a", *TOOLS[:2]),
    example("b", *TOOLS[1:]),
    example("c", TOOLS[0]),
    # Twice the same conversation.
    replace(example("a", *TOOLS[:2]), id="d"),
]


def results(tmp_path: Path, name: str = "gemma") -> Results:
    rows = [prepare_example(one, FORMATS[name], True).to_json() for one in EXAMPLES]
    write_rows(tmp_path / "test.jsonl", rows)
    test_set = {
        "path": str(tmp_path / "test.jsonl"),
        "sha256": file_digest(tmp_path / "test.jsonl"),
    }
    return verdicts.results(tmp_path / "results.json", test_set=test_set)


def joined(prompts: dict[str, Json], place: int) -> str:
    return "".join(prompts["pieces"][piece] for piece in prompts["rows"][place])


@pytest.mark.parametrize("name", FORMATS)
def test_prompts_are_put_together_as_the_model_saw_them(tmp_path: Path, name: str) -> None:
    prompts = prompts_of(results(tmp_path, name), ["d", "b", "a"])
    assert prompts is not None
    seen = [FORMATS[name].render_prompt(EXAMPLES[i].messages, EXAMPLES[i].tools) for i in (3, 1, 0)]
    assert [joined(prompts, place) for place in range(3)] == seen


@pytest.mark.parametrize("name", FORMATS)
def test_every_second_piece_is_a_tool_and_what_is_shared_is_kept_once(
    tmp_path: Path, name: str
) -> None:
    prompts = prompts_of(results(tmp_path, name), ["a", "b", "c", "d"])
    assert prompts is not None
    pieces = prompts["pieces"]
    assert len(pieces) == len(set(pieces))
    tools = [piece for piece in pieces if piece.startswith('{"name"')]
    assert len(tools) == 3
    for row, n_tools in zip(prompts["rows"], (2, 2, 1, 2), strict=True):
        assert len(row) == 2 * n_tools + 1
        assert all(pieces[place] in tools for place in row[1::2])
    assert prompts["rows"][0] == prompts["rows"][3]


def test_there_are_none_where_the_test_set_is_gone_or_another(tmp_path: Path) -> None:
    found = results(tmp_path)
    file = tmp_path / "test.jsonl"
    file.write_bytes(file.read_bytes() + b"\n")
    assert prompts_of(found, ["a"]) is None
    file.unlink()
    assert prompts_of(found, ["a"]) is None
    assert prompts_of(replace(found, test_path="x" * 5000), ["a"]) is None
