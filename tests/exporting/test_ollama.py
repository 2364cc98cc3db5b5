"""The Go templates write what the formats render; Go itself runs them."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from calltune.exporting.ollama import template, write_modelfile
from calltune.formats import FORMATS
from calltune.types import Json, Message, Tool, ToolCall

from support.commands_needed import GO, find_command, needs

MAIN = Path(__file__).parent / "ollama_template" / "main.go"

SYSTEM = Message("system", "Be brief.\nBe kind.")
USER = Message("user", 'What about "Rome" & Zürich?\n<b>{x}</b> 😀')
CALLS = (
    ToolCall("weather", {"city": "Rome \\ é\n<1>", "days": 3}),
    ToolCall("add", {"x": 1.5, "y": True}),
)
ASKED = Message("assistant", "", calls=CALLS)
SAID = Message("assistant", "Let me look.", calls=CALLS[:1])
RESULT = Message("tool", '{"sun": true}', tool_name="weather")
NAMELESS = Message("tool", "7")
ANSWER = Message("assistant", "Sunny.")
THANKS = Message("user", "Thanks.")


class Talk(NamedTuple):
    """A conversation and the tools on offer."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()


def tool(name: str, properties: dict[str, Json], description: str = "Says.") -> Tool:
    parameters = {"type": "object", "properties": properties, "required": [*properties][:1]}
    written = {"name": name, "description": description, "parameters": parameters}
    return Tool(name, description, parameters, written)


WEATHER = tool(
    "weather",
    {
        "city": {"type": "string", "description": 'Where, as "Rome" < é.'},
        "days": {"type": "integer"},
        "places": {"type": "array", "items": {"type": "string"}, "description": "More."},
        "unit": {"type": "string", "description": "Which.", "enum": ["C", "F"]},
    },
)
ADD = tool("add", {"x": {"type": "number"}, "y": {"type": "boolean", "description": "Or not."}})
TALKS = [
    Talk([USER], [WEATHER]),
    Talk([USER], [WEATHER, ADD]),
    Talk([SYSTEM, USER], [ADD]),
    Talk([USER, ASKED, RESULT, NAMELESS, ANSWER, THANKS], [WEATHER, ADD]),
    Talk([SYSTEM, USER, SAID, RESULT], [WEATHER]),
    Talk([ANSWER, USER], [ADD]),
    Talk([RESULT], [ADD]),
    Talk([SYSTEM], [ADD]),
    Talk([USER]),
    Talk([SYSTEM, USER, SAID, THANKS]),
    Talk([RESULT, ANSWER]),
    Talk([SYSTEM]),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = find_command(GO)
    assert go is not None
    built = tmp_path_factory.mktemp("go") / "render"
    alone = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    subprocess.run([go, "build", "-o", built, MAIN], check=True, cwd=MAIN.parent, env=alone)
    return built


def as_ollama_gets_it(talk: Talk) -> dict[str, Json]:
    return {
        "messages": [
            {
                "role": message.role,
                "content": message.content,
                "tool_name": message.tool_name,
                "tool_calls": [
                    {"function": {"name": call.name, "arguments": call.arguments}}
                    for call in message.calls
                ],
            }
            for message in talk.messages
        ],
        "tools": [{"type": "function", "function": tool.raw} for tool in talk.tools],
    }


def run(program: Path, prompt_format: str, talks: Sequence[Talk]) -> Any:
    cases = [as_ollama_gets_it(talk) for talk in talks]
    given = json.dumps({"template": template(prompt_format), "cases": cases})
    done = subprocess.run([program], input=given, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@needs(GO)
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_the_template_writes_what_the_format_renders(program: Path, prompt_format: str) -> None:
    found = run(program, prompt_format, TALKS)["texts"]
    for talk, text in zip(TALKS, found, strict=True):
        prompt = FORMATS[prompt_format].render_prompt(talk.messages, talk.tools)
        # Ollama puts BOS in front, as the file's tokenizer says.
        assert text == prompt.removeprefix(FORMATS[prompt_format].bos)


@needs(GO)
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_the_sign_of_a_call_is_what_answers_begin_with(program: Path, prompt_format: str) -> None:
    tag = run(program, prompt_format, [])["tag"]
    assert len(tag) > 3
    assert FORMATS[prompt_format].render_calls(CALLS).startswith(tag)


@needs(GO)
@pytest.mark.parametrize("prompt_format", FORMATS)
def test_what_is_not_spaced_out_is_still_there_as_json(program: Path, prompt_format: str) -> None:
    place = {
        "type": "object",
        "description": "Where.",
        "properties": {"at": {"type": ["number", "null"]}},
        "required": ["at"],
    }
    other = tool("go", {"by": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "place": place})
    (text,) = run(program, prompt_format, [Talk([USER], [other])])["texts"]
    line = next(line for line in text.splitlines() if '"name": "go"' in line)
    listed = json.loads(line)
    function = listed[0] if prompt_format == "gemma" else listed["function"]
    assert function == other.raw


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_a_modelfile_names_its_file_and_how_to_decode(prompt_format: str, tmp_path: Path) -> None:
    path = write_modelfile(tmp_path / "mine.gguf", prompt_format, n_context=2048)
    text = path.read_text()
    assert path == tmp_path / "Modelfile"
    assert "\nFROM ./mine.gguf\n" in text
    assert text.count('"""') == 2
    assert f'TEMPLATE """{template(prompt_format)}"""\n' in text
    for stop in FORMATS[prompt_format].stop_tokens:
        assert f'\nPARAMETER stop "{stop}"\n' in text
    assert "\nPARAMETER temperature 0\n" in text
    assert "\nPARAMETER num_ctx 2048\n" in text
    assert "@" not in text
