"""Chats without a terminal, with a model whose turns are given."""

import io
import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from calltune.agent.caller import ModelTurn
from calltune.commands.chat import ChatOptions, talk
from calltune.errors import OptionError
from calltune.formats.grammar import OutputSpec
from calltune.report import chat as terminal_chat
from calltune.report.chat import Screen
from calltune.tools import Toolset
from calltune.tools.sources import MCPOptions, RunnableTools, open_sources
from calltune.types import Message, ToolCall

from support import cli

MINE = '''
import sys


def double(n: int) -> int:
    """Double a number."""
    with open("ran.txt", "a") as file:
        file.write(f"{n} ")
    return 2 * n


def fail(how: str) -> None:
    """Fail."""
    if how == "leave":
        sys.exit(3)
    if how == "interrupted":
        raise KeyboardInterrupt
    raise LookupError(how)
'''
LISTED = {"name": "look_up", "parameters": {"type": "object", "properties": {}}}
DOUBLE = ToolCall("double", {"n": 3})


class ScriptedModel:
    """Makes one given call for each question, then answers with its result; keeps its messages."""

    has_adapter = True

    def __init__(self, *calls: ToolCall) -> None:
        self.calls = list(calls)
        self.seen: list[Sequence[Message]] = []

    def next_turn(
        self, messages: Sequence[Message], tools: Toolset, output: OutputSpec
    ) -> ModelTurn:
        if messages[-1].role == "tool" or not self.calls:
            return ModelTurn(())
        return ModelTurn((self.calls.pop(0),))

    def next_text(self, messages: Sequence[Message], *, use_adapter: bool) -> str:
        self.seen.append(messages)
        return f"It is {messages[-1].content}"


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunnableTools:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("tools.json").write_text(json.dumps([LISTED]))
    with ExitStack() as stack:
        return open_sources(["mine.py", "tools.json"], MCPOptions(), stack)


def ran() -> str:
    return Path("ran.txt").read_text() if Path("ran.txt").exists() else ""


def screen(*lines: str) -> Screen:
    waiting = list(lines)
    return Screen(lambda prompt: waiting.pop(0) if waiting else None)


def test_a_call_runs_once_it_is_confirmed_and_its_result_goes_back(
    offer: RunnableTools, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ScriptedModel(DOUBLE)
    talk(model, offer, screen("Twice three?", "y", "And now?"), ChatOptions(system="Be brief."))
    assert ran() == "3 "
    out = capsys.readouterr().out
    assert '→ double\n  {\n    "n": 3\n  }\n← 6\nIt is 6\n' in out
    assert [message.role for message in model.seen[1]] == [
        *("system", "user", "assistant", "tool", "assistant", "user")
    ]
    assert model.seen[1][3] == Message("tool", "6", tool_name="double")
    assert model.seen[1][4] == Message("assistant", "It is 6")


@pytest.mark.parametrize("said", ["n", "", "no", "yes please"])
def test_a_call_that_is_not_confirmed_does_not_run_and_the_model_is_told(
    offer: RunnableTools, said: str
) -> None:
    model = ScriptedModel(DOUBLE)
    talk(model, offer, screen("Twice three?", said), ChatOptions())
    assert ran() == "" and "declined" in model.seen[0][-1].content


def test_nothing_runs_where_the_input_ends_before_the_consent(offer: RunnableTools) -> None:
    talk(ScriptedModel(DOUBLE), offer, screen("Twice three?"), ChatOptions())
    assert ran() == ""


def test_always_holds_for_one_tool(offer: RunnableTools) -> None:
    more = [DOUBLE, ToolCall("double", {"n": 4}), ToolCall("fail", {"how": "so"}), DOUBLE]
    model = ScriptedModel(*more)
    talk(model, offer, screen("a?", "a", "b?", "c?", "n", "d?"), ChatOptions())
    assert ran() == "3 4 3 "
    assert [seen[-1].content for seen in model.seen] == [
        *("6", "8", '{"error": "The user declined this call."}', "6")
    ]


@pytest.mark.parametrize(("how", "told"), [("so", "LookupError: so"), ("leave", "SystemExit: 3")])
def test_an_exception_of_a_function_is_a_result(offer: RunnableTools, how: str, told: str) -> None:
    model = ScriptedModel(ToolCall("fail", {"how": how}))
    talk(model, offer, screen("Fail.", "y"), ChatOptions())
    assert json.loads(model.seen[0][-1].content) == {"error": told}


def test_an_interrupted_question_is_forgotten_and_the_next_one_answered(
    offer: RunnableTools, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ScriptedModel(ToolCall("fail", {"how": "interrupted"}))
    talk(model, offer, screen("Fail.", "y", "Hello?"), ChatOptions())
    assert "Interrupted" in capsys.readouterr().out
    assert model.seen == [[Message("user", "Hello?")]]


def test_without_words_calls_are_run_and_that_is_all(
    offer: RunnableTools, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ScriptedModel(DOUBLE)
    talk(model, offer, screen("Twice three?", "y", "And now?"), ChatOptions(words="none"))
    out = capsys.readouterr().out
    assert ran() == "3 " and model.seen == []
    assert out.endswith("← 6\n(The model calls nothing more.)\n(It calls nothing.)\n")


def test_a_conversation_can_begin_anew(offer: RunnableTools) -> None:
    model = ScriptedModel()
    talk(model, offer, screen("One.", "Two.", "/new", "Three."), ChatOptions(system="Be brief."))
    assert [len(seen) for seen in model.seen] == [2, 4, 2]
    assert model.seen[2][0].content == "Be brief."


@pytest.mark.parametrize(
    ("typed", "told"),
    [('{"a": [1]}', '{"a": [1]}'), ("it rains", '"it rains"'), ("", "no result"), ("0", "0")],
)
def test_the_user_says_what_a_tool_returns_that_nothing_here_runs(
    offer: RunnableTools, typed: str, told: str
) -> None:
    model = ScriptedModel(ToolCall("look_up", {}))
    talk(model, offer, screen("Look it up.", typed), ChatOptions(yes=True))
    assert told in model.seen[0][-1].content


def test_what_a_model_or_a_tool_writes_is_shown_and_not_obeyed(
    offer: RunnableTools, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ScriptedModel(ToolCall("fail", {"how": "\x1b[2J[red]\u202e"}))
    talk(model, offer, screen("Fail.", "y"), ChatOptions())
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and "[red]" in out


def test_keys_edit_and_recall_what_is_asked() -> None:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        read = terminal_chat._terminal_reader()
        up, left, backspace, ctrl_c, ctrl_d = "\x1b[A", "\x1b[D", "\x7f", "\x03", "\x04"
        keys.send_text(f"what?{left}{backspace}T\r")
        assert read("> ") == "whaT?"
        keys.send_text("y\r")
        assert read("Run it? ") == "y"
        # What was confirmed is no question, and is not recalled as one.
        keys.send_text(f"{up}!\r")
        assert read("> ") == "whaT?!"
        keys.send_text(f"away{ctrl_c}")
        with pytest.raises(KeyboardInterrupt):
            read("> ")
        keys.send_text(ctrl_d)
        assert read("> ") is None


def test_impossible_options_are_refused() -> None:
    for options in ({"max_rounds": 0}, {"max_tokens": 0}, {"timeout": 0.0}):
        with pytest.raises(OptionError, match="--"):
            ChatOptions(**options)  # type: ignore[arg-type]


def chat(here: Path, model: Path, *more: str) -> subprocess.CompletedProcess[str]:
    given = ["--model", str(model), "--device", "cpu", "--max-tokens", "300", "--max-rounds", "2"]
    typed = "Double three.\n\nAnd four?"
    return cli.run("chat", "--tools", "mine.py", *given, *more, cwd=here, typed=typed)


@pytest.mark.parametrize(
    ("is_allowed", "told", "left"), [(False, "declined", ""), (True, "6", "3 ")]
)
def test_where_nobody_can_be_asked_calls_run_only_if_all_are_allowed(
    offer: RunnableTools, monkeypatch: pytest.MonkeyPatch, is_allowed: bool, told: str, left: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Twice three?\n\ny\n"))
    model = ScriptedModel(DOUBLE)
    talk(model, offer, Screen(), ChatOptions(yes=is_allowed))
    assert told in model.seen[0][-1].content and ran() == left
    # The line after the question is the next question, not a consent.
    assert model.seen[1][-1] == Message("user", "y")


def test_nobody_is_asked_for_a_result_where_nobody_is_there(
    offer: RunnableTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Look it up.\n5\n"))
    model = ScriptedModel(ToolCall("look_up", {}))
    talk(model, offer, Screen(), ChatOptions(yes=True))
    assert "no result" in model.seen[0][-1].content


def test_questions_can_be_piped_into_the_command(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    given = ["--model", str(tiny_llama), "--device", "cpu", "--max-tokens", "300"]
    typed = "Double three.\n\nAnd four?"
    ended = cli.run("chat", "--tools", "mine.py", *given, cwd=tmp_path, typed=typed)
    assert ended.returncode == 0 and ended.stderr == "" and ended.stdout.strip()
    wrong = cli.run("chat", "--tools", "yours.py", *given, cwd=tmp_path)
    assert wrong.returncode == 1 and wrong.stderr == (
        "calltune: No file yours.py; check the path\n"
    )
