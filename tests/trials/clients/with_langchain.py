"""langchain-openai: bound tools, structured output and a history with an invalid call."""

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from walls import CUT, QUESTION, URL, WRONG, Draw, Paint, run_all

model = ChatOpenAI(
    model="tiny", base_url=URL, api_key="none", max_retries=0, use_responses_api=False
)


def tools() -> Any:
    (call,) = model.bind_tools([Paint], tool_choice="required").invoke(QUESTION).tool_calls
    return call["args"]


def strict_tools() -> Any:
    bound = model.bind_tools([Paint], tool_choice="Paint", strict=True)
    (call,) = bound.invoke(QUESTION).tool_calls
    return call["args"]


def union() -> Any:
    bound = model.bind_tools([Paint, Draw], tool_choice="Draw", strict=True)
    (call,) = bound.invoke(QUESTION).tool_calls
    return call["args"]


def structured_answer() -> Any:
    return model.with_structured_output(Draw).invoke(QUESTION).model_dump()


def structured_by_tool() -> Any:
    chain = model.with_structured_output(Draw, method="function_calling")
    return chain.invoke(QUESTION).model_dump()


def stream() -> Any:
    pieces = list(model.bind_tools([Draw], tool_choice="any").stream(QUESTION))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole = whole + piece
    (call,) = whole.tool_calls
    return call["args"]


def history() -> Any:
    wrong = {"name": "Paint", "args": CUT, "id": "c1", "error": "not JSON"}
    messages = [
        HumanMessage(QUESTION),
        AIMessage("", invalid_tool_calls=[{**wrong, "type": "invalid_tool_call"}]),
        ToolMessage(WRONG, tool_call_id="c1"),
    ]
    (call,) = model.bind_tools([Paint], tool_choice="required").invoke(messages).tool_calls
    return call["args"]


def responses() -> Any:
    with_responses = ChatOpenAI(
        model="tiny", base_url=URL, api_key="none", max_retries=0, use_responses_api=True
    )
    (call,) = with_responses.bind_tools([Paint], tool_choice="required").invoke(QUESTION).tool_calls
    return call["args"]


run_all(
    tools, strict_tools, union, structured_answer, structured_by_tool, stream, history, responses
)
