"""ChatML with `<tool_call>`: the prompt format of Qwen, SmolLM2 and models that follow Hermes.

Tools are listed in the system turn within `<tools>`, one JSON object a line; every call is a JSON
object within `<tool_call>`; results come back within `<tool_response>` in a user turn. A decision
to call nothing is written as an empty list, so that it differs from text without a call.

Source: Hermes function calling, https://github.com/NousResearch/Hermes-Function-Calling, which
Qwen2.5 and Qwen3 took over.
"""

from collections.abc import Collection, Container, Sequence

from calltune.files import dumps
from calltune.formats.format import Format, arguments_text
from calltune.formats.grammar import (
    ANY_CALLS,
    AnswerGrammar,
    Grammar,
    OutputSpec,
    marker,
)
from calltune.formats.parser import (
    ParseError,
    ParseSteps,
    StreamingParser,
    TextStream,
    parse_call,
    parse_value,
)
from calltune.schemas.lark import literal, repeat, text_without
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
    """The calls, one `<tool_call>` block each; no calls are a block with an empty list."""
    if not calls:
        return f"{_OPEN}\n[]\n{_CLOSE}"
    return "\n".join(
        f'{_OPEN}\n{{"name": {dumps(call.name)}, "arguments": {arguments_text(call)}}}\n{_CLOSE}'
        for call in calls
    )


def grammar(
    tools: Sequence[Tool],
    unconstrained: Container[str],
    special: Collection[str],
    output: OutputSpec = ANY_CALLS,
) -> Grammar:
    """The grammar of what `render_calls` writes, or of what `output` admits in its place.

    Text in the place of calls is any text without a control token.
    """
    rules = AnswerGrammar(tools, unconstrained, special, output, is_quoted=False)
    opening, closing = marker(_OPEN, special), marker(_CLOSE, special)
    no_call = f"{opening} {literal(_LINE + '[]' + _LINE)} {closing}"
    if rules.call is None:
        return rules.grammar(no_call, None, text_without(_MARKERS))
    call = f"{opening} {literal(_LINE + '{')} {rules.call} {literal('}' + _LINE)} {closing}"
    block = rules.lark.rule(call)
    min_more, max_more = max(0, output.min_calls - 1), output.max_calls - 1
    more = repeat(f"{literal(_LINE)} {block}", min_more, max_more)
    return rules.grammar(no_call, f"{block} {more}", text_without(_MARKERS))


def parser() -> StreamingParser:
    """A parser for calls in `<tool_call>` blocks; text before the first block is skipped."""
    return StreamingParser(_calls)


def _calls(text: TextStream) -> ParseSteps[None]:
    if not (yield from text.skip_past(_OPEN)):
        raise ParseError("no <tool_call>")
    yield from _block(text)
    while (yield from text.skip_space()):
        if not (yield from text.accept(_OPEN)):
            raise ParseError("text after the calls")
        yield from _block(text)


def _block(text: TextStream) -> ParseSteps[None]:
    if (yield from text.skip_space()) != "[":
        yield (yield from parse_call(text))
    elif (yield from parse_value(text)) != []:
        raise ParseError("a call without a name")
    # A model that stops right after the last object has still written the whole call.
    if (yield from text.skip_space()) and not (yield from text.accept(_CLOSE)):
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
