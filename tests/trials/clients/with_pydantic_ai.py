"""pydantic-ai: output by tools and by schema, over both of OpenAI's APIs."""

import asyncio
from typing import Any

from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from walls import CUT, QUESTION, URL, Circle, Draw, Paint, Square, run_all

provider = OpenAIProvider(base_url=URL, api_key="none")
model = OpenAIChatModel("tiny", provider=provider)


def tools() -> Any:
    return Agent(model, output_type=Paint).run_sync(QUESTION).output.model_dump()


def strict_tools() -> Any:
    output = ToolOutput(Paint, strict=True)
    return Agent(model, output_type=output).run_sync(QUESTION).output.model_dump()


def union() -> Any:
    output = ToolOutput(Draw, strict=True)
    return Agent(model, output_type=output).run_sync(QUESTION).output.model_dump()


def union_of_tools() -> Any:
    found = Agent(model, output_type=[Circle, Square]).run_sync(QUESTION).output
    return {"shape": found.model_dump()}


def structured_answer() -> Any:
    return Agent(model, output_type=NativeOutput(Draw)).run_sync(QUESTION).output.model_dump()


def stream() -> Any:
    async def streamed() -> Any:
        async with Agent(model, output_type=Draw).run_stream(QUESTION) as run:
            return (await run.get_output()).model_dump()

    return asyncio.run(streamed())


def history() -> Any:
    messages = [
        ModelRequest([UserPromptPart(QUESTION)]),
        ModelResponse([ToolCallPart("final_result", CUT, "c1")]),
        ModelRequest([RetryPromptPart("not JSON", tool_name="final_result", tool_call_id="c1")]),
    ]
    agent = Agent(model, output_type=Paint)
    return agent.run_sync("Again, please.", message_history=messages).output.model_dump()


def responses() -> Any:
    with_responses = OpenAIResponsesModel("tiny", provider=provider)
    return Agent(with_responses, output_type=Paint).run_sync(QUESTION).output.model_dump()


run_all(tools, strict_tools, union, union_of_tools, structured_answer, stream, history, responses)
