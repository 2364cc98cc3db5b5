"""Questions answered by a model whose turns are put in its mouth."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import pytest

from calltune.agent.caller import Turn
from calltune.agent.dialogue import Reply, Words, reply
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
class Said:
    """Says its turns one after the other, then for ever the last one."""

    turns: list[Turn]
    has_adapter: bool = True
    wanted: list[OutputSpec] = field(default_factory=list)
    seen: list[Sequence[Message]] = field(default_factory=list)
    told: list[tuple[Sequence[Message], bool]] = field(default_factory=list)

    def turn(self, messages: Sequence[Message], tools: Toolset, wanted: OutputSpec) -> Turn:
        assert tools is TOOLS
        self.wanted.append(wanted)
        self.seen.append(messages)
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]

    def words(self, messages: Sequence[Message], *, tuned: bool) -> str:
        self.told.append((messages, tuned))
        return "words"


@dataclass
class Ran:
    """Runs calls by giving their number back."""

    calls: list[ToolCall] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self, call: ToolCall) -> Json:
        self.calls.append(call)
        return {"got": call.arguments["n"]}

    def thinking(self) -> AbstractContextManager[object]:
        return nullcontext()

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def answer(model: Said, host: Ran, *, max_rounds: int = 8, words: Words = "base") -> Reply:
    return reply(model, QUESTION, TOOLS, host, max_rounds=max_rounds, words=words)


def test_results_come_back_in_order_and_the_model_is_asked_again() -> None:
    model, host = Said([Turn((ONE, TWO)), Turn((ToolCall("add", {"n": 3}),)), Turn(())]), Ran()
    found = answer(model, host)
    assert [call.arguments["n"] for call in host.calls] == [1, 2, 3]
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
    assert host.warnings == []


def test_a_call_that_was_made_already_is_not_made_again() -> None:
    swapped = ToolCall("add", {"n": 1})
    model, host = Said([Turn((ONE, ONE)), Turn((TWO, swapped)), Turn((swapped, TWO))]), Ran()
    found = answer(model, host)
    assert host.calls == [ONE, TWO]
    results = [message.content for message in found.messages if message.role == "tool"]
    assert results == ['{"got": 1}', '{"got": 1}', '{"got": 2}', '{"got": 1}']
    assert len(model.seen) == 3 and found.words == "words"


@pytest.mark.parametrize(
    ("has_adapter", "words", "may_speak"),
    [
        (True, "base", False),
        (True, "tuned", True),
        (True, "none", False),
        (False, "base", True),
        (False, "tuned", True),
        (False, "none", False),
    ],
)
def test_who_may_speak(has_adapter: bool, words: Words, may_speak: bool) -> None:
    model = Said([Turn((ONE,)), Turn(())], has_adapter)
    found = answer(model, Ran(), words=words)
    assert model.wanted == [OutputSpec(allows_text=may_speak)] * 2
    if words == "none":
        assert found.words == "" and model.told == []
        assert [message.role for message in found.messages] == ["assistant", "tool"]
    else:
        assert found.words == "words"
        assert [is_tuned for _, is_tuned in model.told] == [words == "tuned"]


def test_words_of_the_model_itself_end_the_rounds() -> None:
    model = Said([Turn((ONE,)), Turn((), "It is one.")], has_adapter=False)
    found = answer(model, Ran())
    assert found.words == "It is one." == found.messages[-1].content
    assert model.told == [] and len(found.messages) == 3


def test_rounds_without_end_end_in_words() -> None:
    model, host = Said([Turn((ToolCall("add", {"n": n}),)) for n in range(99)]), Ran()
    found = answer(model, host, max_rounds=3)
    assert len(host.calls) == 3 and found.words == "words"
    assert len(model.told[0][0]) == 1 + 6 and "3 rounds" in host.warnings[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ToolCall("add", {"n": "one"}), "do not keep to its schema"),
        (ToolCall("add", {}), "do not keep to its schema"),
        (ToolCall("add", {"n": 1, "m": 2}), "do not keep to its schema"),
        (ToolCall("other", {"n": 1}), "no tool other"),
    ],
)
def test_a_wrong_call_is_told_to_the_model_and_never_run(call: ToolCall, message: str) -> None:
    model, host = Said([Turn((call,)), Turn((ONE,)), Turn(())]), Ran()
    found = answer(model, host)
    assert host.calls == [ONE] and message in host.warnings[0]
    assert message in found.messages[1].content and found.messages[1].role == "tool"


def test_an_answer_that_cannot_be_read_is_said_and_followed_by_words() -> None:
    host = Ran()
    found = answer(Said([Turn((), "", "unclosed brace: '['")]), host)
    assert found == Reply("words", (Message("assistant", "words"),))
    assert host.warnings == ["The model's calls cannot be read (unclosed brace: '[')"]
