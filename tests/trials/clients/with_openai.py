"""The openai package: its helpers for strict tools, structured answers and streams."""

import json
from typing import Any

from openai import OpenAI, pydantic_function_tool
from walls import CUT, PLAIN, QUESTION, URL, WRONG, Draw, Paint, run_all

client = OpenAI(base_url=URL, api_key="none", max_retries=0)
ASK: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}]}


def tools() -> Any:
    response = client.chat.completions.create(**ASK, tools=[PLAIN], tool_choice="required")
    (call,) = response.choices[0].message.tool_calls
    return json.loads(call.function.arguments)


def strict_tools() -> Any:
    strict = [pydantic_function_tool(Paint)]
    response = client.chat.completions.parse(**ASK, tools=strict, tool_choice="required")
    (call,) = response.choices[0].message.tool_calls
    return call.function.parsed_arguments.model_dump()


def union() -> Any:
    strict = [pydantic_function_tool(Draw)]
    chosen = {"type": "function", "function": {"name": "Draw"}}
    response = client.chat.completions.parse(**ASK, tools=strict, tool_choice=chosen)
    (call,) = response.choices[0].message.tool_calls
    return call.function.parsed_arguments.model_dump()


def structured_answer() -> Any:
    response = client.chat.completions.parse(**ASK, response_format=Draw)
    return response.choices[0].message.parsed.model_dump()


def stream() -> Any:
    strict = [pydantic_function_tool(Draw)]
    with client.chat.completions.stream(**ASK, tools=strict, tool_choice="required") as events:
        kinds = {event.type for event in events}
        (call,) = events.get_final_completion().choices[0].message.tool_calls
    assert "tool_calls.function.arguments.done" in kinds, kinds
    return call.function.parsed_arguments.model_dump()


def history() -> Any:
    call = {"id": "c1", "type": "function", "function": {"name": "Paint", "arguments": CUT}}
    messages = [
        *ASK["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": WRONG},
    ]
    asked = {"model": "tiny", "messages": messages, "tools": [PLAIN], "tool_choice": "required"}
    (call,) = client.chat.completions.create(**asked).choices[0].message.tool_calls
    return json.loads(call.function.arguments)


def responses() -> Any:
    strict = {**PLAIN["function"], "type": "function", "strict": False}
    response = client.responses.create(
        model="tiny", input=QUESTION, tools=[strict], tool_choice="required"
    )
    (call,) = [item for item in response.output if item.type == "function_call"]
    return json.loads(call.arguments)


def responses_stream() -> Any:
    kinds = []
    strict = {**PLAIN["function"], "type": "function", "strict": False}
    with client.responses.stream(
        model="tiny", input=QUESTION, tools=[strict], tool_choice="required"
    ) as events:
        kinds = [event.type for event in events]
        response = events.get_final_response()
    assert "response.function_call_arguments.done" in kinds, kinds
    (call,) = [item for item in response.output if item.type == "function_call"]
    return json.loads(call.arguments)


def responses_answer() -> Any:
    response = client.responses.parse(model="tiny", input=QUESTION, text_format=Draw)
    return response.output_parsed.model_dump()


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
)
