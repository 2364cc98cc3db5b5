"""`reply` with a model whose turns are given."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import pytest

from calltune.agent.caller import ModelTurn
from calltune.agent.dialogue import Reply, TextFrom, reply
from calltune.formats.grammar import OutputSpec
from calltune.tools import Toolset, from_openai
from calltune.types import Json, Message, ToolCall

TOOLS = from_openai(
    [
        {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"n": {"type": "integer"}},
                "required": ["n"],
            },
        }
        for name in ("add", "take")
    ]
)
QUESTION = [Message("user", "What is it?")]
ONE, TWO = ToolCall("add", {"n": 1}), ToolCall("take", {"n": 2})


@dataclass
class ScriptedModel:
    """Takes the given turns in order, and repeats the last one."""

    turns: list[ModelTurn]
    has_adapter: bool = True
    outputs: list[OutputSpec] = field(default_factory=list)
    seen: list[Sequence[Message]] = field(default_factory=list)
    told: list[tuple[Sequence[Message], bool]] = field(default_factory=list)

    def next_turn(
        self, messages: Sequence[Message], tools: Toolset, output: OutputSpec
    ) -> ModelTurn:
        assert tools is TOOLS
        self.outputs.append(output)
        self.seen.append(messages)
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]

    def next_text(self, messages: Sequence[Message], *, use_adapter: bool) -> str:
        self.told.append((messages, use_adapter))
        return "words"


@dataclass
class RecordingRunner:
    """Records calls, and returns their number as the result."""

    calls: list[ToolCall] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self, call: ToolCall) -> Json:
        self.calls.append(call)
        return {"got": call.arguments["n"]}

    def thinking(self) -> AbstractContextManager[object]:
        return nullcontext()

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def answer(
    model: ScriptedModel,
    runner: RecordingRunner,
    *,
    max_rounds: int = 8,
    text_from: TextFrom = "base",
) -> Reply:
    return reply(model, QUESTION, TOOLS, runner, max_rounds=max_rounds, text_from=text_from)


def test_results_come_back_in_order_and_the_model_is_asked_again() -> None:
    model, runner = (
        ScriptedModel(
            [ModelTurn((ONE, TWO)), ModelTurn((ToolCall("add", {"n": 3}),)), ModelTurn(())]
        ),
        RecordingRunner(),
    )
    found = answer(model, runner)
    assert [call.arguments["n"] for call in runner.calls] == [1, 2, 3]
    assert found == Reply(
        "words",
        (
            Message("assistant", "", (ONE, TWO)),
            Message("tool", '{"got": 1}', tool_name="add"),
            Message("tool", '{"got": 2}', tool_name="take"),
            Message("assistant", "", (ToolCall("add", {"n": 3}),)),
            Message("tool", '{"got": 3}', tool_name="add"),
            Message("assistant", "words"),
        ),
    )
    assert [len(seen) for seen in model.seen] == [1, 4, 6]
    # The words are asked for with all that was found out.
    assert model.told == [([*QUESTION, *found.messages[:-1]], False)]
    assert runner.warnings == []


def test_a_call_that_was_made_already_is_not_made_again() -> None:
    swapped = ToolCall("add", {"n": 1})
    model, runner = (
        ScriptedModel(
            [ModelTurn((ONE, ONE)), ModelTurn((TWO, swapped)), ModelTurn((swapped, TWO))]
        ),
        RecordingRunner(),
    )
    found = answer(model, runner)
    assert runner.calls == [ONE, TWO]
    results = [message.content for message in found.messages if message.role == "tool"]
    assert results == ['{"got": 1}', '{"got": 1}', '{"got": 2}', '{"got": 1}']
    assert len(model.seen) == 3 and found.text == "words"


@pytest.mark.parametrize(
    ("has_adapter", "text_from", "may_write"),
    [
        (True, "base", False),
        (True, "tuned", True),
        (True, "none", False),
        (False, "base", True),
        (False, "tuned", True),
        (False, "none", False),
    ],
)
def test_who_may_write_the_text(has_adapter: bool, text_from: TextFrom, may_write: bool) -> None:
    model = ScriptedModel([ModelTurn((ONE,)), ModelTurn(())], has_adapter)
    found = answer(model, RecordingRunner(), text_from=text_from)
    assert model.outputs == [OutputSpec(allows_text=may_write)] * 2
    if text_from == "none":
        assert found.text == "" and model.told == []
        assert [message.role for message in found.messages] == ["assistant", "tool"]
    else:
        assert found.text == "words"
        assert [is_tuned for _, is_tuned in model.told] == [text_from == "tuned"]


def test_a_text_of_the_model_itself_ends_the_rounds() -> None:
    model = ScriptedModel([ModelTurn((ONE,)), ModelTurn((), "It is one.")], has_adapter=False)
    found = answer(model, RecordingRunner())
    assert found.text == "It is one." == found.messages[-1].content
    assert model.told == [] and len(found.messages) == 3


def test_endless_rounds_end_in_a_text() -> None:
    model, runner = (
        ScriptedModel([ModelTurn((ToolCall("add", {"n": n}),)) for n in range(99)]),
        RecordingRunner(),
    )
    found = answer(model, runner, max_rounds=3)
    assert len(runner.calls) == 3 and found.text == "words"
    assert len(model.told[0][0]) == 1 + 6 and "3 rounds" in runner.warnings[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ToolCall("add", {"n": "one"}), "do not keep to its schema"),
        (ToolCall("add", {}), "do not keep to its schema"),
        (ToolCall("add", {"n": 1, "m": 2}), "do not keep to its schema"),
        (ToolCall("other", {"n": 1}), "no tool other"),
    ],
)
def test_the_model_is_told_of_a_wrong_call_which_never_runs(call: ToolCall, message: str) -> None:
    model, runner = (
        ScriptedModel([ModelTurn((call,)), ModelTurn((ONE,)), ModelTurn(())]),
        RecordingRunner(),
    )
    found = answer(model, runner)
    assert runner.calls == [ONE] and message in runner.warnings[0]
    assert message in found.messages[1].content and found.messages[1].role == "tool"


def test_an_answer_that_cannot_be_read_is_reported_and_followed_by_a_text() -> None:
    runner = RecordingRunner()
    found = answer(ScriptedModel([ModelTurn((), "", "unclosed brace: '['")]), runner)
    assert found == Reply("words", (Message("assistant", "words"),))
    assert runner.warnings == ["The model's calls cannot be read (unclosed brace: '[')"]


def test_what_the_user_should_know_is_told_once() -> None:
    model = ScriptedModel(
        [
            ModelTurn((ONE,), notes=("3 tools do not fit",)),
            ModelTurn((TWO,), notes=("3 tools do not fit", "cut")),
            ModelTurn(()),
        ]
    )
    runner = RecordingRunner()
    answer(model, runner)
    assert runner.warnings == ["3 tools do not fit", "cut"]
