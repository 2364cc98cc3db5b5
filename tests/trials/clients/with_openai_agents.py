"""openai-agents: strict functions by default, over both of OpenAI's APIs."""

import asyncio
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from walls import CUT, QUESTION, URL, WRONG, Circle, Draw, Paint, Square, run_all

set_tracing_disabled(True)
LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)
client = AsyncOpenAI(base_url=URL, api_key="none", max_retries=0)
CHAT = OpenAIChatCompletionsModel(model="tiny", openai_client=client)
RESPONSES = OpenAIResponsesModel(model="tiny", openai_client=client)
RAN: list[Any] = []


def paint(wall: Paint) -> str:
    """Paint a wall."""
    RAN.append(wall.model_dump())
    return "painted"


def draw(shape: Circle | Square) -> str:
    """Draw a shape on a wall."""
    RAN.append({"shape": shape.model_dump()})
    return "drawn"


def agent(function: Any, model: Any = CHAT, is_strict: bool = True, **more: Any) -> Agent[Any]:
    return Agent(
        name="painter",
        model=model,
        model_settings=ModelSettings(tool_choice="required"),
        tools=[function_tool(function, strict_mode=is_strict)],
        tool_use_behavior="stop_on_first_tool",
        **more,
    )


def ran(asked: Agent[Any], question: Any = QUESTION) -> Any:
    RAN.clear()
    Runner.run_sync(asked, question, max_turns=2)
    (found,) = RAN
    return found


def tools() -> Any:
    return ran(agent(paint, is_strict=False))


def strict_tools() -> Any:
    return ran(agent(paint))


def union() -> Any:
    return ran(agent(draw))


def structured_answer() -> Any:
    asked = Agent(name="drawer", model=CHAT, output_type=Draw)
    return Runner.run_sync(asked, QUESTION).final_output.model_dump()


def streamed(model: Any) -> Any:
    async def run() -> None:
        result = Runner.run_streamed(agent(draw, model), QUESTION, max_turns=2)
        async for _ in result.stream_events():
            pass

    RAN.clear()
    LOOP.run_until_complete(run())
    (found,) = RAN
    return found


def stream() -> Any:
    return streamed(CHAT)


HISTORY = [
    {"role": "user", "content": QUESTION},
    {"type": "function_call", "call_id": "c1", "name": "paint", "arguments": CUT},
    {"type": "function_call_output", "call_id": "c1", "output": WRONG},
]


def history() -> Any:
    return ran(agent(paint), HISTORY)


def responses_history() -> Any:
    return ran(agent(paint, RESPONSES), HISTORY)


def responses() -> Any:
    return ran(agent(paint, RESPONSES))


def responses_stream() -> Any:
    return streamed(RESPONSES)


def responses_answer() -> Any:
    asked = Agent(name="drawer", model=RESPONSES, output_type=Draw)
    return Runner.run_sync(asked, QUESTION).final_output.model_dump()


run_all(
    tools,
    strict_tools,
    union,
    structured_answer,
    stream,
    history,
    responses,
    responses_stream,
    responses_answer,
    responses_history,
)
