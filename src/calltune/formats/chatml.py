"""ChatML with `<tool_call>`: Qwen, SmolLM2 and the models that follow Hermes.

Tools stand in the system turn within `<tools>`, one JSON object a line; every call is a JSON object
within `<tool_call>`; results come back within `<tool_response>` in a user turn. That is the wire
format of Hermes function calling, which Qwen2.5 and Qwen3 took over. A decision to call nothing is
written as an empty list, so that it differs from text in which no call could be read.
"""

from collections.abc import Container, Sequence

from calltune.files import dumps
from calltune.formats.format import Format
from calltune.formats.grammar import (
    ANY_CALLS,
    AnswerRules,
    Grammar,
    OutputSpec,
    marker,
)
from calltune.formats.parser import (
    ParseError,
    Pieces,
    Steps,
    StreamingParser,
    next_call,
    next_value,
)
from calltune.schemas.lark import literal, repeated, text_without
from calltune.types import Message, Tool, ToolCall

_LINE = "\n"
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", _OPEN, _CLOSE)
_CALL_SHAPE = '{"name": <function-name>, "arguments": <args-json-object>}'


def render_prompt(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """The prompt: a system turn that lists the tools, if any, then the turns."""
    system = [message.content for message in messages if message.role == "system"]
    instructions = "\n\n".join([*system, *(_offer(tools) if tools else ())])
    opening = f"<|im_start|>system\n{instructions}<|im_end|>\n" if instructions else ""
    turns = [_turn(message) for message in messages if message.role != "system"]
    return f"{opening}{''.join(turns)}<|im_start|>assistant\n"


def render_calls(calls: Sequence[ToolCall]) -> str:
    """One `<tool_call>` block for each call; a block with an empty list for none."""
    if not calls:
        return f"{_OPEN}\n[]\n{_CLOSE}"
    return "\n".join(
        f"{_OPEN}\n{dumps({'name': call.name, 'arguments': call.arguments})}\n{_CLOSE}"
        for call in calls
    )


def grammar(
    tools: Sequence[Tool],
    loose: Container[str],
    special: Container[str],
    wanted: OutputSpec = ANY_CALLS,
) -> Grammar:
    """What `render_calls` writes, or what else is wanted; words are all that holds no marker."""
    rules = AnswerRules(tools, loose, wanted, is_quoted=False)
    opening, closing = marker(_OPEN, special), marker(_CLOSE, special)
    none = f"{opening} {literal(_LINE + '[]' + _LINE)} {closing}"
    if rules.call is None:
        return rules.grammar(none, None, text_without(_MARKERS))
    call = f"{opening} {literal(_LINE + '{')} {rules.call} {literal('}' + _LINE)} {closing}"
    block = rules.lark.rule(call)
    least, most = max(0, wanted.min_calls - 1), wanted.max_calls - 1
    more = repeated(f"{literal(_LINE)} {block}", least, most)
    return rules.grammar(none, f"{block} {more}", text_without(_MARKERS))


def parser() -> StreamingParser:
    """Reads calls in `<tool_call>` blocks; text before the first block is passed over."""
    return StreamingParser(_calls)


def _calls(text: Pieces) -> Steps[None]:
    if not (yield from text.past(_OPEN)):
        raise ParseError("no <tool_call>")
    yield from _block(text)
    while (yield from text.past_space()):
        if not (yield from text.takes(_OPEN)):
            raise ParseError("text after the calls")
        yield from _block(text)


def _block(text: Pieces) -> Steps[None]:
    if (yield from text.past_space()) != "[":
        yield (yield from next_call(text))
    elif (yield from next_value(text)) != []:
        raise ParseError("a call without a name")
    # A model that stops right after the last object has still said all that matters.
    if (yield from text.past_space()) and not (yield from text.takes(_CLOSE)):
        raise ParseError("text after the call's JSON")


def _offer(tools: Sequence[Tool]) -> tuple[str, str]:
    listing = "\n".join(dumps({"type": "function", "function": tool.raw}) for tool in tools)
    return (
        f"# Tools\n\nThe functions you may call:\n<tools>\n{listing}\n</tools>",
        f"Answer with one JSON object for each call:\n{_OPEN}\n{_CALL_SHAPE}\n{_CLOSE}",
    )


def _turn(message: Message) -> str:
    if message.role == "assistant":
        written = render_calls(message.calls) if message.calls else ""
        content = "\n".join(filter(None, [message.content, written]))
        return f"<|im_start|>assistant\n{content}<|im_end|>\n"
    if message.role == "tool":
        return _user_turn(f"<tool_response>\n{message.content}\n</tool_response>")
    return _user_turn(message.content)


def _user_turn(content: str) -> str:
    return f"<|im_start|>user\n{content}<|im_end|>\n"


CHATML = Format(
    name="chatml",
    render_prompt=render_prompt,
    render_calls=render_calls,
    grammar=grammar,
    call_prefix=_OPEN,
    parser=parser,
    bos="",
    completion_end="<|im_end|>",
    stop_tokens=("<|im_end|>", "<|endoftext|>"),
    markers=_MARKERS,
    tool_parser="json_tools",
)
