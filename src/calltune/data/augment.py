"""Augmentation: examples made of others, without the needed tool or with random names.

A model trained only on rows that need a call always makes one; one trained on descriptive names
relies on names rather than on descriptions. These examples teach otherwise.

Source: Lin et al., Hammer, https://arxiv.org/abs/2410.04587.
"""

import random
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import replace

from calltune.schemas.tools import UnusableRow, read_tools
from calltune.types import Answer, Example, Json, Tool

N_CANDIDATES = 200
"""How many tools, drawn at random, are compared to find a near miss."""
MAX_SIMILARITY = 0.3
"""A tool at least as similar as this to the needed one might do instead of it."""
STOP_WORDS = frozenset(
    """
    a add and api at by calculate check compute convert create current data delete details
    determine do estimate fetch find for from function generate get in info information is list
    make name new of on or predict retrieve search set start the to update value with
    """.split()  # noqa: SIM905
)
"""Words in the names of tools that do not say what a tool is about."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_NAME_LENGTH = 6
_STEM = 4


def without_needed_tools(
    example: Example, pool: Sequence[Tool], rng: random.Random
) -> Example | None:
    """The example with the tools it needs replaced by near misses, so that nothing can be called.

    A near miss shares many words with the needed tool, but none that says what that is about, nor
    do the words of its name occur in the query: otherwise it might do.

    Args:
        example: an example that needs a call.
        pool: the tools to choose near misses from.
        rng: draws the candidates.

    Returns:
        The new example; None if this one needs no call, or no tool is a near miss.
    """
    needed = {answer.name for answer in example.answers}
    if not needed:
        return None
    candidates = rng.sample(list(pool), min(N_CANDIDATES, len(pool)))
    taken = {tool.name for tool in example.tools}
    tools: list[Tool] = []
    for tool in example.tools:
        if tool.name not in needed:
            tools.append(tool)
            continue
        near = [
            c for c in candidates if c.name not in taken and not _could_replace(c, example, needed)
        ]
        if near:
            found = max(near, key=lambda candidate: _similarity(candidate, tool))
            taken.add(found.name)
            tools.append(found)
    if not tools:
        return None
    return replace(example, id=f"{example.id}/no-call", tools=tuple(tools), answers=())


def with_random_names(example: Example, rng: random.Random) -> Example | None:
    """The example with random names for its functions and arguments, in tools and answers alike.

    None if earlier messages have calls, or a tool is written in a way that cannot be renamed.
    """
    if any(message.calls or message.tool_name for message in example.messages):
        return None
    tools, renamed = [], {}
    for tool in example.tools:
        new = {name: _random_name(rng) for name in tool.parameters.get("properties", {})}
        renamed[tool.name] = (_random_name(rng), new)
        try:
            tools.append(_rename(tool, *renamed[tool.name]))
        except (UnusableRow, KeyError, TypeError, AttributeError):
            return None
    answers = []
    for answer in example.answers:
        name, new = renamed[answer.name]
        if not answer.arguments.keys() <= new.keys():
            return None
        arguments = {new[key]: choice for key, choice in answer.arguments.items()}
        answers.append(Answer(name, arguments))
    return replace(example, id=f"{example.id}/masked", tools=tuple(tools), answers=tuple(answers))


def _could_replace(tool: Tool, example: Example, needed: set[str]) -> bool:
    """Whether a tool might do for one that is needed; in doubt, yes."""
    told = _topics(_WORD.findall(example.query))
    for other in example.tools:
        if other.name in needed:
            told |= _topics(_name_words(other))
            if _similarity(tool, other) >= MAX_SIMILARITY:
                return True
    return not told.isdisjoint(_topics(_name_words(tool)))


def _topics(words: Iterable[str]) -> set[str]:
    """The stems of the words that are not stop words: one for rank, ranks and ranking."""
    return {word.lower()[:_STEM] for word in words if word.lower() not in STOP_WORDS}


def _similarity(one: Tool, other: Tool) -> float:
    """The Jaccard index of two tools' words, from 0 to 1."""
    ours, theirs = _words(one), _words(other)
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def _words(tool: Tool) -> set[str]:
    return _name_words(tool) | {word.lower() for word in _WORD.findall(tool.description)}


def _name_words(tool: Tool) -> set[str]:
    return {word.lower() for word in _WORD.findall(tool.name)}


def _random_name(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=_NAME_LENGTH))


def _rename(tool: Tool, name: str, arguments: dict[str, str]) -> Tool:
    """The raw tool renamed, and read again."""
    parameters = tool.raw.get("parameters") or {}
    renamed = {"name": name, "parameters": _renamed_parameters(parameters, arguments)}
    (found,) = read_tools([tool.raw | renamed]).tools
    # The arguments must be exactly the renamed ones.
    if set(found.parameters["properties"]) != set(arguments.values()):
        raise UnusableRow("parameters that cannot be renamed")
    return found


def _renamed_parameters(written: dict[str, Json], names: dict[str, str]) -> dict[str, Json]:
    if isinstance(written.get("properties"), dict) and set(written["properties"]) == set(names):
        properties = {names[key]: value for key, value in written["properties"].items()}
        required = [names[key] for key in written.get("required") or []]
        return written | {"properties": properties} | ({"required": required} if required else {})
    return {names[key]: value for key, value in written.items()}
