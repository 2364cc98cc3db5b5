"""`Caller` on tiny models with random weights, and on answers that stand in for the model's."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import calltune
from calltune import Caller
from calltune.agent.caller import ModelTurn
from calltune.errors import OptionError, UnusableAnswer
from calltune.formats.grammar import OutputSpec
from calltune.models import cpu_math
from calltune.tools import from_functions, from_openai
from calltune.types import Json, Message, ToolCall


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: int = 0


def paint(color: Color, at: Point, twice: bool = False) -> str:
    """Paint a point."""
    return f"{color.name} at {at.x}, {at.y}{', twice' if twice else ''}"


def größe(of: int) -> int:
    """A function whose name prompts cannot contain."""
    return of * 2


@pytest.fixture(scope="module", autouse=True)
def left_as_it_was() -> Iterator[None]:
    """Undo what a caller settles about how this process computes."""
    device = mx.default_device()
    yield
    mx.set_default_device(device)
    cpu_math.uninstall_cpu_patches()


@pytest.fixture(scope="module", params=["gemma", "chatml"])
def caller(request: pytest.FixtureRequest, tiny_gemma: Path, tiny_llama: Path) -> Caller:
    folder = tiny_gemma if request.param == "gemma" else tiny_llama
    made = Caller(str(folder), device="cpu", max_tokens=4000)
    assert made.prompt_format.name == request.param
    return made


@pytest.fixture
def answers(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the model answers."""

    def set_answer(*calls: ToolCall, text: str | None = None) -> None:
        answer = caller.prompt_format.render_calls(calls) if text is None else text
        monkeypatch.setattr(Caller, "_answer", lambda *_: answer)

    return set_answer


def test_a_model_of_random_weights_makes_calls_that_can_be_made(caller: Caller) -> None:
    for question in ("Paint it red.", "How large is it?", "Nothing."):
        for call in caller.call(question, [größe]):
            assert call.name == "größe" and isinstance(call.arguments["of"], int)


def test_functions_are_run_with_what_their_hints_say(
    caller: Caller, answers: Callable[..., None]
) -> None:
    first = ToolCall("paint", {"color": "red", "at": {"x": 3}})
    second = ToolCall("paint", {"color": "blue", "at": {"x": 1, "y": 2}, "twice": True})
    answers(first, second)
    found = caller.run("Paint.", [paint, größe])
    assert [outcome.call for outcome in found] == [first, second]
    assert [outcome.value for outcome in found] == ["RED at 3, 0", "BLUE at 1, 2, twice"]
    answers()
    assert caller.run("Do nothing.", [paint]) == []


def test_no_function_is_run_where_one_call_is_wrong(
    caller: Caller, answers: Callable[..., None]
) -> None:
    ran: list[int] = []

    def note(number: int) -> None:
        ran.append(number)

    right = ToolCall("note", {"number": 1})
    for wrong in (
        ToolCall("note", {"number": "one"}),
        ToolCall("note", {}),
        ToolCall("note", {"number": 1, "more": 2}),
        ToolCall("other", {}),
    ):
        answers(right, wrong)
        with pytest.raises(UnusableAnswer, match=wrong.name):
            caller.run("Note it.", [note])
    answers(text="I had rather not.")
    with pytest.raises(UnusableAnswer, match="I had rather not"):
        caller.run("Note it.", [note])
    assert ran == []


def test_a_turn_is_calls_text_or_a_problem(caller: Caller, answers: Callable[..., None]) -> None:
    tools, asked = from_functions([paint]), [Message("user", "Paint.")]
    call = ToolCall("paint", {"color": "red", "at": {"x": 3}})
    answers(call)
    assert caller.next_turn(asked, tools) == ModelTurn((call,))
    answers()
    assert caller.next_turn(asked, tools) == ModelTurn(())
    answers(text=" Which color? ")
    assert caller.next_turn(asked, tools) == ModelTurn((), "Which color?")
    # A text is a problem where only calls are allowed.
    assert caller.next_turn(asked, tools, OutputSpec()).problem
    answers(text=caller.prompt_format.render_calls([call])[:-30])
    cut = caller.next_turn(asked, tools)
    assert cut.calls == () and cut.text == "" and cut.problem


def test_a_constrained_turn_is_as_its_output_spec_says(caller: Caller) -> None:
    tools, asked = from_functions([größe]), [Message("user", "How large is it?")]
    for _ in range(2):
        turn = caller.next_turn(asked, tools, OutputSpec(min_calls=1, max_calls=1))
        (call,) = turn.calls
        assert call.name == tools.tools[0].name and isinstance(call.arguments["of"], int)


def test_control_tokens_in_what_is_asked_start_no_turn(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []
    monkeypatch.setattr(Caller, "_answer", lambda _, prompt, *__: prompts.append(prompt) or "Yes.")
    for text in ("Hello.", "".join(caller.prompt_format.markers)):
        asked = [Message("user", text)]
        caller.next_turn(asked, from_functions([paint]))
        caller.next_text(asked)
        with pytest.raises(UnusableAnswer):
            caller.call(asked, [paint])
    for marker in caller.prompt_format.markers:
        counts = [prompt.count(marker) for prompt in prompts]
        assert counts[:3] == counts[3:]


def test_a_call_that_breaks_what_the_grammar_leaves_out_is_answered_again(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    twins: Json = {"type": "array", "items": {"enum": [0, 1]}, "uniqueItems": True}
    parameters: Json = {"type": "object", "properties": {"x": twins}}
    tools = from_openai([{"name": "pair", "parameters": parameters}])
    wrong, right = ToolCall("pair", {"x": [1, 1]}), ToolCall("pair", {"x": [1, 0]})
    coming = [wrong, right]
    samplings = []

    def answer(_: Caller, *given: Any) -> str:
        samplings.append(given[2:])
        return caller.prompt_format.render_calls([coming.pop(0)])

    monkeypatch.setattr(Caller, "_answer", answer)
    found = caller.ask("Make a pair.", tools)
    assert found.calls == (right,) and len(samplings) == 2 and samplings[0] != samplings[1]
    assert found.notes == ("Not enforced while answering: pair: uniqueItems",)
    coming = [wrong, wrong]
    with pytest.raises(UnusableAnswer, match="pair do not keep to its schema"):
        caller.call("Make a pair.", tools)


def test_calls_before_a_cut_are_kept_and_the_cut_is_told(
    caller: Caller, answers: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    first = ToolCall("paint", {"color": "red", "at": {"x": 3}})
    second = ToolCall("paint", {"color": "blue", "at": {"x": 1}})
    whole = caller.prompt_format.render_calls([first, second])
    answers(text=whole[:-45])
    assert caller.call("Paint.", [paint]) == (first,)
    assert "cut after 1 complete calls" in caplog.text
    with pytest.raises(UnusableAnswer, match="cut after 1"):
        caller.run("Paint.", [paint])
    turn = caller.next_turn([Message("user", "Paint.")], from_functions([paint]))
    assert turn.calls == (first,) and "cut after 1" in turn.notes[0]
    # What is broken is no cut.
    answers(text=f"{whole} and so on")
    with pytest.raises(UnusableAnswer, match="cannot be read"):
        caller.call("Paint.", [paint])


def test_a_base_model_makes_the_same_call_once(
    caller: Caller, answers: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ToolCall("paint", {"color": "red", "at": {"x": 3}})
    other = ToolCall("paint", {"color": "red", "at": {"x": 4}})
    answers(call, other, call, call)
    assert caller.ask("Paint.", [paint]) == (
        (call, other),
        ("2 calls that repeat others were left out",),
        False,
    )
    tools, asked = from_functions([paint]), [Message("user", "Paint.")]
    assert caller.next_turn(asked, tools).calls == (call, other)
    # An adapter was trained on which calls to make.
    monkeypatch.setattr(caller, "_drops_repeats", False)
    assert caller.call("Paint.", [paint]) == (call, other, call, call)


def test_what_the_context_cannot_hold_is_left_out_or_refused(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(number: int) -> Callable[..., None]:
        def tool(x: bool) -> None: ...

        tool.__name__ = f"tool_{number}"
        tool.__doc__ = f"Does number {number}."
        return tool

    functions = [*(many(number) for number in range(20)), größe]
    monkeypatch.setattr(caller, "_context_tokens", 1500)
    shown: list[str] = []
    prompt = Caller._prompt

    def recording(self: Caller, *given: Any) -> str:
        shown.append(prompt(self, *given))
        return shown[-1]

    monkeypatch.setattr(Caller, "_prompt", recording)
    monkeypatch.setattr(Caller, "_answer", lambda *_: caller.prompt_format.render_calls([]))
    answer = caller.ask("How large is number 7?", functions)
    (note,) = answer.notes
    assert "of 21 tools do not fit" in note and "tool_7" in shown[0]
    assert "tool_19" not in shown[0]
    turn = caller.next_turn([Message("user", "Number 7?")], from_functions(functions))
    assert turn.notes
    monkeypatch.undo()
    monkeypatch.setattr(caller, "_context_tokens", 40)
    with pytest.raises(OptionError, match="the model's context is 40"):
        caller.call("How large is it?", [größe])


def test_a_truncated_answer_is_reported(tiny_gemma: Path) -> None:
    with pytest.raises(UnusableAnswer, match="allow more tokens"):
        Caller(str(tiny_gemma), device="cpu", max_tokens=9).call("Paint it.", [paint])


def test_mistakes_are_refused(tiny_gemma: Path, caller: Caller) -> None:
    with pytest.raises(OptionError, match="No model"):
        Caller()
    with pytest.raises(OptionError, match="No format x"):
        Caller(str(tiny_gemma), format="x", device="cpu")
    other = "chatml" if caller.prompt_format.name == "gemma" else "gemma"
    with pytest.raises(OptionError, match="has no token"):
        Caller(str(caller._loaded.folder), format=other, device="cpu")
    with pytest.raises(OptionError, match="same name"):
        caller.run("?", [paint, paint])
    with pytest.raises(AttributeError):
        calltune.Nothing  # noqa: B018


def test_the_command_prints_calls_and_nothing_else(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "mine.py").write_text('def count(to: int) -> None:\n    """Count."""\n')
    command = [sys.executable, "-m", "calltune"]
    made = subprocess.run([*command, "tools", "mine.py"], cwd=tmp_path, check=True)
    assert made.returncode == 0
    asked = [*command, "call", "Count to 3.", "--model", str(tiny_llama), "--device", "cpu"]
    ended = subprocess.run(
        [*asked, "--max-tokens", "4000"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    calls = json.loads(ended.stdout)
    assert all(isinstance(call["arguments"]["to"], int) for call in calls)
    cut = subprocess.run(
        [*asked, "--max-tokens", "3"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert cut.returncode == 1 and cut.stderr.startswith("calltune: The answer cannot be read")
    assert from_openai(tmp_path / "tools.json").tools[0].name == "count"
