"""The tools of a request that fit into the context, and how a client learns of the others."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from calltune.data.batching import prompt_tokens
from calltune.files import dumps
from calltune.formats import Format
from calltune.serving.limits import CHARACTERS_PER_TOKEN
from calltune.tools.shortlist import Shortlist, fit_tools, left_out_text
from calltune.types import Json, Message, Tool

LEFT_OUT_HEADER = "X-Calltune-Tools-Left-Out"
MAX_HEADER_LENGTH = 2_000
"""Characters; servers and proxies refuse long headers."""
ANSWER_ROOM = 256
"""Tokens that a shortlist leaves for the answer, if the request allows as many."""
_TOOL_OVERHEAD = 12
"""Tokens that a prompt format writes around a tool, at most."""

log = logging.getLogger("calltune.serving")


def fitting_tools(
    offered: Sequence[Mapping[str, Json]],
    messages: Sequence[Message],
    tokenizer: Any,
    prompt_format: Format,
    context_tokens: int,
) -> Shortlist:
    """The tools of a request that fit into its prompt, those that suit the question first.

    All of them where not one fits: then the prompt is refused. Slow where there are many, so that
    it belongs into a thread.
    """
    tools = [
        Tool(each["name"], each["description"], each["parameters"], dict(each)) for each in offered
    ]

    def prompt_of(some: Sequence[Tool]) -> str:
        escaped = [prompt_format.escape_tool_control_tokens(tool) for tool in some]
        return prompt_format.render_prompt(messages, escaped)

    def n_tokens(some: Sequence[Tool]) -> int:
        prompt = prompt_of(some)
        if len(prompt) > CHARACTERS_PER_TOKEN * context_tokens:
            return len(prompt) // CHARACTERS_PER_TOKEN
        return len(prompt_tokens(tokenizer, prompt, prompt_format))

    def n_tool_tokens(tool: Tool) -> int:
        text = dumps(tool.raw)
        if len(text) > CHARACTERS_PER_TOKEN * context_tokens:
            return context_tokens
        return len(tokenizer.encode(text, add_special_tokens=False)) + _TOOL_OVERHEAD

    # No token has less than a byte.
    if len(prompt_of(tools).encode()) < context_tokens or n_tokens(tools) < context_tokens:
        return Shortlist(tuple(tools))
    max_tokens = context_tokens - min(ANSWER_ROOM, context_tokens // 4)
    found = fit_tools(
        tools, messages, max_tokens, prompt_tokens=n_tokens, tool_tokens=n_tool_tokens
    )
    return found if found.tools else Shortlist(tuple(tools))


def left_out_headers(shortlist: Shortlist) -> dict[str, str]:
    """The header that names the tools that were not offered; none if all were."""
    if not shortlist.left_out:
        return {}
    log.warning("%s", left_out_text(shortlist))
    return {LEFT_OUT_HEADER: _header_value(shortlist.left_out)}


def _header_value(names: Sequence[str]) -> str:
    """The count, then as many names as a header holds; headers are ASCII."""
    value = f"{len(names)}:"
    for index, name in enumerate(names):
        plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in name)
        added = f"{value}{',' if index else ''} {plain}"
        if len(added) > MAX_HEADER_LENGTH:
            return f"{value}, ..."
        value = added
    return value
