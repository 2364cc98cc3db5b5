"""Gemma's prompt format: tools in the user turn as fenced JSON, calls as an OpenAI-style list.

The text is that of the manual; Gemma 3's own chat template knows no tools.

Source: turns and control tokens, https://ai.google.dev/gemma/docs/core/prompt-structure; calls,
the `tool_calls` of OpenAI's API.
"""

from collections.abc import Collection, Container, Sequence

from calltune.files import dumps
from calltune.formats.format import Format, arguments_text
from calltune.formats.grammar import ANY_CALLS, AnswerGrammar, Grammar, OutputSpec
from calltune.formats.parser import (
    JSON_SPACE,
    ParseError,
    ParseSteps,
    StreamingParser,
    TextStream,
    parse_call,
)
from calltune.schemas.lark import literal, text_without
from calltune.types import Message, Tool, ToolCall

_FENCE, _END_OF_FENCE = "```json\n", "\n```"
_MARKERS = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
_PREAMBLE = "You are a helpful assistant with access to the following tools:"


def render_prompt(messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """The prompt: instructions and tools, if any, before the first user message, then the turns."""
    system = [message.content for message in messages if message.role == "system"]
    instructions = "\n\n".join([*system, *([_offer(tools)] if tools else [])])
    turns = [message for message in messages if message.role != "system"]
    texts = [_turn(message) for message in turns]
    opening = f"## Instructions\n{instructions}"
    if instructions and turns and turns[0].role == "user":
        texts[0] = _user_turn(f"{opening}\n\n## User\n{turns[0].content}")
    elif instructions:
        texts.insert(0, _user_turn(opening.rstrip("\n")))
    return f"<bos>{''.join(texts)}<start_of_turn>model\n"


def render_calls(calls: Sequence[ToolCall]) -> str:
    """The calls as a fenced JSON list; no calls is the empty list."""
    listed = [
        {
            "id": f"call_id_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": arguments_text(call)},
        }
        for index, call in enumerate(calls)
    ]
    return f"{_FENCE}{dumps(listed)}{_END_OF_FENCE}"


def grammar(
    tools: Sequence[Tool],
    unconstrained: Container[str],
    special: Collection[str],
    output: OutputSpec = ANY_CALLS,
) -> Grammar:
    """The grammar of what `render_calls` writes, or of what `output` admits in its place.

    Text in the place of calls is what the parser takes for none: no JSON fence, no bracket at the
    beginning, no control token.
    """
    rules = AnswerGrammar(tools, unconstrained, special, output, is_quoted=True)
    start, end = literal(_FENCE + "["), literal("]" + _END_OF_FENCE)
    listed = ""
    for index in reversed(range(output.max_calls if rules.call else 0)):
        opening = (
            f'{", " if index else ""}{{"id": "call_id_{index}", "type": "function", "function": {{'
        )
        body = f"{literal(opening)} {rules.call} {literal('}}')} {listed}"
        is_needed = index < max(1, output.min_calls)
        listed = rules.lark.rule(body.strip() if is_needed else f"({body.strip()})?")
    calls = f"{start} {listed} {end}" if listed else None
    words = text_without(("```json", *_MARKERS), not_first="[{")
    return rules.grammar(f"{start} {end}", calls, words)


def parser() -> StreamingParser:
    """A parser for calls in a fenced or bare JSON list, or one bare call, with no text after it."""
    return StreamingParser(_calls)


def _calls(text: TextStream) -> ParseSteps[None]:
    first = yield from text.skip_space()
    if first not in ("[", "{"):
        # Words before the fence do no harm; what follows it must be the calls alone.
        yield from text.skip_past("```json")
        first = yield from text.skip_space()
    if first == "[":
        yield from _listed(text)
    elif first == "{":
        yield (yield from parse_call(text))
    else:
        raise ParseError("no JSON list of calls")
    yield from _end(text)


def _listed(text: TextStream) -> ParseSteps[None]:
    text.advance()
    if (yield from text.skip_space(JSON_SPACE)) == "]":
        text.advance()
        return
    while True:
        yield (yield from parse_call(text))
        following = yield from text.skip_space(JSON_SPACE)
        if following not in (",", "]"):
            raise ParseError(f"no comma and no end of the list at {text.position}")
        text.advance()
        if following == "]":
            return
        yield from text.skip_space(JSON_SPACE)


def _end(text: TextStream) -> ParseSteps[None]:
    if (yield from text.skip_space()) and not (yield from text.accept("```")):
        raise ParseError("text after the calls")
    if (yield from text.skip_space()):
        raise ParseError("text after the calls")


def _offer(tools: Sequence[Tool]) -> str:
    listing = dumps([tool.raw for tool in tools])
    return f"{_PREAMBLE}\n\n```json\n{listing}\n```"


def _turn(message: Message) -> str:
    if message.role == "assistant":
        content = "\n".join(filter(None, [message.content, _written(message.calls)]))
        return f"<start_of_turn>model\n{content}<end_of_turn>\n"
    if message.role == "tool":
        title = f"## Result of {message.tool_name}" if message.tool_name else "## Result"
        return _user_turn(f"{title}\n{message.content}")
    return _user_turn(f"## User\n{message.content}")


def _written(calls: Sequence[ToolCall]) -> str:
    return render_calls(calls) if calls else ""


def _user_turn(content: str) -> str:
    return f"<start_of_turn>user\n{content}<end_of_turn>\n"


GEMMA = Format(
    name="gemma",
    render_prompt=render_prompt,
    render_calls=render_calls,
    grammar=grammar,
    call_prefix=_FENCE + "[",
    parser=parser,
    bos="<bos>",
    completion_end="<end_of_turn><eos>",
    stop_tokens=("<end_of_turn>", "<eos>"),
    markers=_MARKERS,
)
