"""Gemma: tools in the user turn as fenced JSON, calls in the model turn as an OpenAI-style list.

The text is the manual's output format. Gemma 3's own chat template knows no tools, so it is not
used. Turn markers: https://ai.google.dev/gemma/docs/core/prompt-structure
"""

from collections.abc import Container, Sequence

from calltune.calls import Message, Tool, ToolCall
from calltune.formats.format import Format
from calltune.formats.grammar import MOST_CALLS, CallRules, Grammar
from calltune.formats.json_calls import next_call
from calltune.formats.lark import literal
from calltune.formats.pieces import JSON_SPACE, Pieces, Reader, Steps, Unreadable
from calltune.jsonl import dumps

_FENCE, _END_OF_FENCE = "```json\n", "\n```"
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
    return f"{_FENCE}{dumps(listed)}{_END_OF_FENCE}"


def grammar(tools: Sequence[Tool], loose: Container[str], special: Container[str]) -> Grammar:
    """What `write` writes, up to `MOST_CALLS` calls; arguments are JSON in a string."""
    rules = CallRules(tools, is_quoted=True, loose=loose)
    listed = ""
    for index in reversed(range(MOST_CALLS if rules.call else 0)):
        opening = (
            f'{", " if index else ""}{{"id": "call_id_{index}", "type": "function", "function": {{'
        )
        body = f"{literal(opening)} {rules.call} {literal('}}')} {listed}"
        listed = rules.lark.rule(f"({body.strip()})?")
    return rules.grammar(f"{literal(_FENCE + '[')} {listed} {literal(']' + _END_OF_FENCE)}")


def reader() -> Reader:
    """Reads calls in a fenced or bare JSON list (or a single object), and nothing after it."""
    return Reader(_calls)


def _calls(text: Pieces) -> Steps[None]:
    first = yield from text.past_space()
    if first not in ("[", "{"):
        # Words before the fence do no harm; what follows it must be the calls alone.
        yield from text.past("```json")
        first = yield from text.past_space()
    if first == "[":
        yield from _listed(text)
    elif first == "{":
        yield (yield from next_call(text))
    else:
        raise Unreadable("no JSON list of calls")
    yield from _end(text)


def _listed(text: Pieces) -> Steps[None]:
    text.skip()
    if (yield from text.past_space(JSON_SPACE)) == "]":
        text.skip()
        return
    while True:
        yield (yield from next_call(text))
        following = yield from text.past_space(JSON_SPACE)
        if following not in (",", "]"):
            raise Unreadable(f"no comma and no end of the list at {text.position}")
        text.skip()
        if following == "]":
            return
        yield from text.past_space(JSON_SPACE)


def _end(text: Pieces) -> Steps[None]:
    if (yield from text.past_space()) and not (yield from text.takes("```")):
        raise Unreadable("text after the calls")
    if (yield from text.past_space()):
        raise Unreadable("text after the calls")


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
    grammar=grammar,
    reader=reader,
    bos="<bos>",
    end="<end_of_turn><eos>",
    stops=("<end_of_turn>", "<eos>"),
    markers=("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
)
