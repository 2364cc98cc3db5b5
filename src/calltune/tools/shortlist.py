"""A shortlist of tools by the question, where a model's context cannot hold a whole list.

Tools are ranked by BM25 over their names, descriptions and names of arguments; those that fit are
offered in the order of the list.

Source: S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond"
(2009); the inverse document frequency is that of Lucene, which is never negative.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from calltune.files import dumps
from calltune.formats import Format
from calltune.types import Json, Message, Tool

K1, B = 1.5, 0.75
"""How soon more of the same word counts no more, and how much long texts are held back."""
EARLIER_WEIGHT = 0.5
"""What a question counts beside the one after it: "and now in Rome" needs the one before."""
MAX_QUESTIONS = 4
ANSWER_ROOM = 256
"""Tokens that a shortlist leaves for the answer, or a quarter of a small context."""
MAX_CHARACTERS_PER_TOKEN = 16
"""More than any text has on average; a prompt that is longer by this measure is not tokenized."""
_TOOL_OVERHEAD = 12
"""Tokens that a prompt format writes around a tool, at most."""
_NAME_WEIGHT, _ARGUMENT_WEIGHT = 3.0, 0.5
"""How much a word counts in the names of a tool and of its arguments, beside one in its
description."""
_STOP_WORDS = frozenset(
    (
        *("a", "an", "and", "are", "as", "at", "be", "by", "can", "do", "does", "for", "from"),
        *("has", "have", "how", "i", "if", "in", "is", "it", "me", "my", "of", "on", "or"),
        *("please", "that", "the", "then", "there", "this", "to", "was", "what", "when"),
        *("where", "which", "who", "will", "with", "you", "your"),
    )
)
"""Words that say nothing of what is wanted; in a short list of tools they can be rare."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
"""Words of text and of names: `getHTTPStatus_code2` has get, HTTP, Status, code and 2."""


class Shortlist(NamedTuple):
    """The tools to offer, in the order of the list, and the names of the others."""

    tools: tuple[Tool, ...]
    left_out: tuple[str, ...] = ()


def fit_prompt(
    tools: Sequence[Tool],
    messages: Sequence[Message],
    prompt_format: Format,
    count_tokens: Callable[[str], int],
    context_tokens: int,
) -> Shortlist:
    """The tools that fit into a model's context with the conversation and room for an answer.

    All of them where not one fits: then the prompt itself is too long. Slow for long lists.

    Args:
        tools: the tools on offer.
        messages: the conversation, its control tokens escaped.
        prompt_format: how both are written.
        count_tokens: how many tokens a text has.
        context_tokens: the tokens of prompt and answer together.
    """

    def prompt_of(some: Sequence[Tool]) -> str:
        escaped = [prompt_format.escape_tool_control_tokens(tool) for tool in some]
        return prompt_format.render_prompt(messages, escaped)

    def count(text: str) -> int:
        # It would take long, and is too long in any case.
        if len(text) > MAX_CHARACTERS_PER_TOKEN * context_tokens:
            return len(text) // MAX_CHARACTERS_PER_TOKEN
        return count_tokens(text)

    # No token has less than a byte.
    whole = prompt_of(tools)
    if len(whole.encode()) < context_tokens or count(whole) < context_tokens:
        return Shortlist(tuple(tools))
    found = fit_tools(
        tools,
        messages,
        context_tokens - min(ANSWER_ROOM, context_tokens // 4),
        prompt_tokens=lambda some: count(prompt_of(some)),
        tool_tokens=lambda tool: count(dumps(tool.raw)) + _TOOL_OVERHEAD,
    )
    return found if found.tools else Shortlist(tuple(tools))


def count_tokens(tokenizer: Any, text: str) -> int:
    """How many tokens a tokenizer of transformers makes of a text, however long it is."""
    # Otherwise it warns of texts beyond the context, which is what is to be found out here.
    return len(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def fit_tools(
    tools: Sequence[Tool],
    messages: Sequence[Message],
    max_tokens: int,
    *,
    prompt_tokens: Callable[[Sequence[Tool]], int],
    tool_tokens: Callable[[Tool], int],
) -> Shortlist:
    """The tools that fit into a prompt: all of them, or those that suit the question.

    Tools that were called in the conversation come first, then the best by BM25.

    Args:
        tools: the tools on offer.
        messages: the conversation.
        max_tokens: how many tokens the prompt may have.
        prompt_tokens: the length of the prompt with some tools, in tokens.
        tool_tokens: about what one tool adds to it.
    """
    if prompt_tokens(tools) <= max_tokens:
        return Shortlist(tuple(tools))
    called = {call.name for message in messages for call in message.calls}
    order = rank_tools(tools, questions_of(messages))
    order.sort(key=lambda index: tools[index].name not in called)
    costs = [tool_tokens(tool) for tool in tools]
    without = prompt_tokens(())
    room = max_tokens - without
    while True:
        kept = _greedy(order, costs, room)
        chosen = tuple(tools[index] for index in sorted(kept))
        needed = prompt_tokens(chosen) if chosen else 0
        if needed <= max_tokens:
            left = [tool.name for index, tool in enumerate(tools) if index not in kept]
            return Shortlist(chosen, tuple(left))
        # They cost more than was estimated; in proportion, and less each time.
        cost = sum(costs[index] for index in kept)
        room = min(cost - 1, cost * (max_tokens - without) // max(1, needed - without))


def rank_tools(tools: Sequence[Tool], questions: Sequence[str]) -> list[int]:
    """The indexes of `tools`, the best for the last question first; equally good ones in order.

    Questions before the last count less, each half as much as the one after it.
    """
    scores = [0.0] * len(tools)
    texts = [_weighted_words(tool) for tool in tools]
    lengths = [sum(text.values()) for text in texts]
    mean_length = sum(lengths) / max(1, len(lengths))
    weight = 1.0
    for question in reversed(questions[-MAX_QUESTIONS:]):
        for word in dict.fromkeys(words(question)):
            n_with = sum(word in text for text in texts)
            idf = math.log(1 + (len(texts) - n_with + 0.5) / (n_with + 0.5))
            for index, text in enumerate(texts):
                if n := text.get(word):
                    norm = K1 * (1 - B + B * lengths[index] / mean_length)
                    scores[index] += weight * idf * n * (K1 + 1) / (n + norm)
        weight *= EARLIER_WEIGHT
    return sorted(range(len(tools)), key=lambda index: -scores[index])


def questions_of(messages: Sequence[Message]) -> list[str]:
    """What the user asked, the last question at the end."""
    return [message.content for message in messages if message.role == "user"]


def left_out_text(shortlist: Shortlist, n_shown: int = 5) -> str:
    """What was left out, as a sentence without a full stop."""
    names = list(shortlist.left_out)
    n_tools = len(names) + len(shortlist.tools)
    shown = ", ".join(names[:n_shown]) + (", …" if len(names) > n_shown else "")
    return (
        f"{len(names)} of {n_tools} tools do not fit into the context and are not offered, as they "
        f"suit the question least: {shown}"
    )


def words(text: str) -> list[str]:
    """The words of a text, without case, accents, the plural's s and words like "the"."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    found = [word.lower() for word in _WORD.findall(plain)]
    return [_stem(word) for word in found if word not in _STOP_WORDS]


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _weighted_words(tool: Tool) -> dict[str, float]:
    """How often each word occurs, weighted by where."""
    found: dict[str, float] = {}
    for weight, written in (
        (_NAME_WEIGHT, words(tool.name)),
        (1.0, words(tool.description)),
        (_ARGUMENT_WEIGHT, _argument_words(tool.parameters)),
    ):
        for word in written:
            found[word] = found.get(word, 0.0) + weight
    return found


def _argument_words(schema: Json) -> list[str]:
    """The words of the arguments' names, at every depth.

    Their descriptions have examples in them ("octo-org/octo-repo"), whose rare words would outweigh
    what a tool is for.
    """
    found: list[str] = []
    open_values: list[Json] = [schema]
    while open_values:
        value = open_values.pop()
        if isinstance(value, list):
            open_values += value
        elif isinstance(value, dict):
            properties = value.get("properties")
            if isinstance(properties, dict):
                found += [word for name in properties for word in words(name)]
            open_values += value.values()
    return found


def _greedy(order: Sequence[int], costs: Sequence[int], room: int) -> Collection[int]:
    """The first of `order` that fit; one that is too large does not stop those after it."""
    kept: set[int] = set()
    for index in order:
        if costs[index] <= room:
            kept.add(index)
            room -= costs[index]
    return kept
