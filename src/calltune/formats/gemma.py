"""Gemma: tools in the user turn as fenced JSON, calls in the model turn as an OpenAI-style list.

The text is the manual's output format. Gemma 3's own chat template knows no tools, so it is not
used. Turn markers: https://ai.google.dev/gemma/docs/core/prompt-structure
"""

from collections.abc import Container, Sequence

from calltune.files import dumps
from calltune.formats.format import Format
from calltune.formats.grammar import ANY_CALLS, AnswerRules, Grammar, OutputSpec
from calltune.formats.parser import (
    JSON_SPACE,
    ParseError,
    Pieces,
    Steps,
    StreamingParser,
    next_call,
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
            "function": {"name": call.name, "arguments": dumps(call.arguments)},
        }
        for index, call in enumerate(calls)
    ]
    return f"{_FENCE}{dumps(listed)}{_END_OF_FENCE}"


def grammar(
    tools: Sequence[Tool],
    loose: Container[str],
    special: Container[str],
    wanted: OutputSpec = ANY_CALLS,
) -> Grammar:
    """What `render_calls` writes, arguments as JSON in a string, or what else is wanted.

    Words are what no reader takes for calls: no JSON fence, no bracket at the beginning, no marker.
    """
    rules = AnswerRules(tools, loose, wanted, is_quoted=True)
    start, end = literal(_FENCE + "["), literal("]" + _END_OF_FENCE)
    listed = ""
    for index in reversed(range(wanted.max_calls if rules.call else 0)):
        opening = (
            f'{", " if index else ""}{{"id": "call_id_{index}", "type": "function", "function": {{'
        )
        body = f"{literal(opening)} {rules.call} {literal('}}')} {listed}"
        is_needed = index < max(1, wanted.min_calls)
        listed = rules.lark.rule(body.strip() if is_needed else f"({body.strip()})?")
    calls = f"{start} {listed} {end}" if listed else None
    words = text_without(("```json", *_MARKERS), not_first="[{")
    return rules.grammar(f"{start} {end}", calls, words)


def parser() -> StreamingParser:
    """Reads calls in a fenced or bare JSON list (or a single object), and nothing after it."""
    return StreamingParser(_calls)


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
        raise ParseError("no JSON list of calls")
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
            raise ParseError(f"no comma and no end of the list at {text.position}")
        text.skip()
        if following == "]":
            return
        yield from text.past_space(JSON_SPACE)


def _end(text: Pieces) -> Steps[None]:
    if (yield from text.past_space()) and not (yield from text.takes("```")):
        raise ParseError("text after the calls")
    if (yield from text.past_space()):
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
