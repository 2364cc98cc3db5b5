"""Gemma: tools in the user turn as fenced JSON, calls in the model turn as an OpenAI-style list.

The text is the manual's output format. Gemma 3's own chat template knows no tools, so it is not
used. Turn markers: https://ai.google.dev/gemma/docs/core/prompt-structure
"""

from collections.abc import Sequence

from calltune.calls import Message, Reading, Tool, ToolCall
from calltune.formats.format import Format
from calltune.formats.json_calls import Unreadable, call_from_json, decode
from calltune.jsonl import dumps

_PREAMBLE = "You are a helpful assistant with access to the following tools:"


def render(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """The prompt: instructions and tools before the first user message, then the turns."""
    system = [message.content for message in messages if message.role == "system"]
    listing = dumps([tool.written for tool in tools])
    instructions = "\n\n".join([*system, f"{_PREAMBLE}\n\n```json\n{listing}\n```"])
    turns = [message for message in messages if message.role != "system"]
    opening = f"## Instructions\n{instructions}\n\n"
    texts = [_turn(message) for message in turns]
    if not turns or turns[0].role != "user":
        texts.insert(0, _user_turn(opening.rstrip("\n")))
    else:
        texts[0] = _user_turn(f"{opening}## User\n{turns[0].content}")
    return f"<bos>{''.join(texts)}<start_of_turn>model\n"


def write(calls: Sequence[ToolCall]) -> str:
    """The calls as a fenced JSON list; no calls is the empty list."""
    listed = [
        {
            "id": f"call_id_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": dumps(call.arguments)},
        }
        for index, call in enumerate(calls)
    ]
    return f"```json\n{dumps(listed)}\n```"


def read(text: str) -> Reading:
    """The calls in a fenced or bare JSON list (or a single object), and nothing after it."""
    try:
        return Reading(tuple(_calls(text)))
    except Unreadable as problem:
        return Reading((), str(problem))


def _calls(text: str) -> list[ToolCall]:
    body = text.strip()
    if not body.startswith(("[", "{")):
        # Words before the fence do no harm; what follows it must be the calls alone.
        body = text.partition("```json")[2].strip()
    if not body.startswith(("[", "{")):
        raise Unreadable("no JSON list of calls")
    decoded = decode(body, 0)
    if body[decoded.end :].strip() not in ("", "```"):
        raise Unreadable("text after the calls")
    listed = decoded.value if isinstance(decoded.value, list) else [decoded.value]
    return [call_from_json(item) for item in listed]


def _turn(message: Message) -> str:
    if message.role == "assistant":
        content = "\n".join(filter(None, [message.content, _written(message.calls)]))
        return f"<start_of_turn>model\n{content}<end_of_turn>\n"
    if message.role == "tool":
        title = f"## Result of {message.tool_name}" if message.tool_name else "## Result"
        return _user_turn(f"{title}\n{message.content}")
    return _user_turn(f"## User\n{message.content}")


def _written(calls: Sequence[ToolCall]) -> str:
    return write(calls) if calls else ""


def _user_turn(content: str) -> str:
    return f"<start_of_turn>user\n{content}<end_of_turn>\n"


GEMMA = Format(
    name="gemma",
    render=render,
    write=write,
    read=read,
    bos="<bos>",
    end="<end_of_turn><eos>",
    stops=("<end_of_turn>", "<eos>"),
    markers=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
)
