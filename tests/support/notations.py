"""Calls written in each notation that readers know, for the tests of readers."""

import json
from collections.abc import Callable

from calltune.types import Json, ToolCall

TOOLS: list[dict[str, Json]] = [
    {
        "type": "function",
        "function": {
            "name": "tide_table",
            "description": "High and low water of a harbour.",
            "parameters": {
                "type": "object",
                "properties": {
                    "harbour": {"type": "string"},
                    "days": {"type": "integer"},
                    "is_exact": {"type": "boolean"},
                    "height": {"type": "number"},
                    "marks": {"type": "array", "items": {"type": "string"}},
                    "at": {"type": "object", "properties": {"quay": {"type": "string"}}},
                },
                "required": ["harbour"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "book_ferry",
            "description": "Book seats on a ferry.",
            "parameters": {"type": "object", "properties": {"route": {"type": "string"}}},
        },
    },
]


def plain(call: ToolCall, key: str = "arguments") -> dict[str, Json]:
    return {"name": call.name, key: call.arguments}


def dumped(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def listed(calls: list[ToolCall]) -> str:
    return dumped([plain(call) for call in calls])


def python(call: ToolCall) -> str:
    return f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})"


def glaive(call: ToolCall) -> str:
    return f"""{{"name": "{call.name}", "arguments": '{dumped(call.arguments)}'}}"""


def each(write: Callable[[ToolCall], str], between: str = "\n") -> Callable[[list[ToolCall]], str]:
    return lambda calls: between.join(map(write, calls))


def xml_value(value: Json) -> str:
    return value if isinstance(value, str) else dumped(value)


def qwen_coder(call: ToolCall) -> str:
    parameters = "".join(
        f"<parameter={key}>\n{xml_value(value)}\n</parameter>\n"
        for key, value in call.arguments.items()
    )
    return f"<tool_call>\n<function={call.name}>\n{parameters}</function>\n</tool_call>"


def invoke(call: ToolCall) -> str:
    parameters = "".join(
        f'<parameter name="{key}">{xml_value(value)}</parameter>\n'
        for key, value in call.arguments.items()
    )
    return f'<invoke name="{call.name}">\n{parameters}</invoke>'


def dsml(call: ToolCall) -> str:
    parameters = "".join(
        f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">'
        f"{xml_value(value)}</｜DSML｜parameter>\n"
        for key, value in call.arguments.items()
    )
    return f'<｜DSML｜invoke name="{call.name}">\n{parameters}</｜DSML｜invoke>'


def glm(call: ToolCall) -> str:
    arguments = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{xml_value(value)}</arg_value>\n"
        for key, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}\n{arguments}</tool_call>"


def gemma_value(value: Json, quote: str) -> str:
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, dict):
        inner = ",".join(f"{key}:{gemma_value(part, quote)}" for key, part in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{','.join(gemma_value(part, quote) for part in value)}]"
    return dumped(value)


def function_gemma(call: ToolCall) -> str:
    arguments = gemma_value(call.arguments, "<escape>")
    return f"<start_function_call>call:{call.name}{arguments}<end_function_call>"


def gemma_4(call: ToolCall) -> str:
    arguments = gemma_value(call.arguments, '<|"|>')
    return f"<|tool_call>call:{call.name}{arguments}<tool_call|>"


def deepseek(call: ToolCall) -> str:
    return (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n```json\n{dumped(call.arguments)}"
        "\n```<｜tool▁call▁end｜>"
    )


def kimi(call: ToolCall) -> str:
    return (
        f"<|tool_call_begin|>functions.{call.name}:0<|tool_call_argument_begin|>"
        f"{dumped(call.arguments)}<|tool_call_end|>"
    )


def react(call: ToolCall) -> str:
    return (
        f"Thought: I need it.\nAction: {call.name}\nAction Input: {dumped(call.arguments)}"
        "\nObservation:"
    )


NOTATIONS: dict[str, Callable[[list[ToolCall]], str]] = {
    "hermes": each(lambda c: f"<tool_call>\n{dumped(plain(c))}\n</tool_call>"),
    "hermes in Python": each(lambda c: f"<tool_call>\n{plain(c)!r}\n</tool_call>"),
    "hermes, a list": lambda calls: f"<tool_call>{listed(calls)}</tool_call>",
    "functioncall": each(lambda c: f"<functioncall> {dumped(plain(c))} <|endoftext|>"),
    "glaive": each(lambda c: f"<functioncall> {glaive(c)} <|endoftext|>"),
    "mistral": lambda calls: f"[TOOL_CALLS] {listed(calls)}</s>",
    "mistral 11": each(lambda c: f"[TOOL_CALLS]{c.name}[ARGS]{dumped(c.arguments)}", ""),
    "python tag": lambda calls: (
        "<|python_tag|>" + "; ".join(dumped(plain(call, "parameters")) for call in calls)
    ),
    "python start": lambda calls: (
        f"<|python_start|>[{', '.join(map(python, calls))}]<|python_end|>"
    ),
    "nemotron": lambda calls: f"<TOOLCALL>{listed(calls)}</TOOLCALL>",
    "toolace": lambda calls: f"[{', '.join(map(python, calls))}]",
    "tool_code": lambda calls: "```tool_code\n" + "\n".join(map(python, calls)) + "\n```",
    "tool_code, printed": lambda calls: (
        "```tool_code\n"
        + "\n".join(f"print(default_api.{python(call)})" for call in calls[:1])
        + "\n```"
    ),
    "fenced": lambda calls: f"```json\n{listed(calls)}\n```",
    "bare": listed,
    "bare, one": lambda calls: "\n".join(dumped(plain(call)) for call in calls),
    "openai": lambda calls: dumped(
        {"tool_calls": [{"type": "function", "function": plain(call)} for call in calls]}
    ),
    "qwen coder": each(qwen_coder),
    "claude": lambda calls: f"<function_calls>\n{each(invoke)(calls)}\n</function_calls>",
    "minimax": lambda calls: f"<minimax:tool_call>\n{each(invoke)(calls)}\n</minimax:tool_call>",
    "deepseek 3.2": lambda calls: (
        f"<｜DSML｜function_calls>\n{each(dsml)(calls)}\n</｜DSML｜function_calls>"
    ),
    "deepseek 3": lambda calls: (
        f"<｜tool▁calls▁begin｜>{each(deepseek)(calls)}<｜tool▁calls▁end｜>"
    ),
    "function tag": each(lambda c: f"<function={c.name}>{dumped(c.arguments)}</function>"),
    "olmo": lambda calls: f"<function_calls>\n{each(python)(calls)}\n</function_calls>",
    "lfm": lambda calls: f"<|tool_call_start|>[{', '.join(map(python, calls))}]<|tool_call_end|>",
    "granite": lambda calls: f"<|tool_call|>{listed(calls)}",
    "phi": lambda calls: f"<|tool_call|>{listed(calls)}<|/tool_call|>",
    "phi functools": lambda calls: f"functools{listed(calls)}",
    "cohere": lambda calls: (
        "<|START_ACTION|>"
        + dumped([{"tool_name": c.name, "parameters": c.arguments} for c in calls])
        + "<|END_ACTION|>"
    ),
    "apertus": lambda calls: (
        "<|tools_prefix|>" + dumped([{c.name: c.arguments} for c in calls]) + "<|tools_suffix|>"
    ),
    "glm": each(glm),
    "kimi": lambda calls: (
        f"<|tool_calls_section_begin|>{each(kimi, '')(calls)}<|tool_calls_section_end|>"
    ),
    "gpt-oss": each(
        lambda c: (
            f"<|channel|>commentary to=functions.{c.name} <|constrain|>json<|message|>"
            f"{dumped(c.arguments)}<|call|>"
        )
    ),
    "internlm": each(
        lambda c: f"<|action_start|><|plugin|>{dumped(plain(c, 'parameters'))}<|action_end|>"
    ),
    "function_gemma": each(function_gemma, ""),
    "gemma 4": each(gemma_4, ""),
    "react": lambda calls: react(calls[0]),
    "langchain": lambda calls: (
        "Action:\n```json\n"
        + dumped({"action": calls[0].name, "action_input": calls[0].arguments})
        + "\n```"
    ),
    "jamba": lambda calls: f"<tool_calls>{listed(calls)}</tool_calls>",
    "qwen agent": lambda calls: (
        f"✿FUNCTION✿: {calls[0].name}\n✿ARGS✿: {dumped(calls[0].arguments)}\n✿RESULT✿"
    ),
}
ONE_CALL = {"tool_code, printed", "react", "langchain", "qwen agent"}
"""Notations of one call in a turn."""
