"""Examples made of others: some that need no call, some whose names say nothing.

Models trained on rows that all need a call make one always; those trained on telling names lean on
names more than on descriptions. Rows without the needed tool, and rows with random names, teach
otherwise. Source: Lin et al., Hammer, https://arxiv.org/abs/2410.04587.
"""

import random
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import replace

from calltune.schemas.tools import UnusableRow, read_tools
from calltune.types import Answer, Example, Json, Tool

LOOKED_AT = 200
"""Tools among which near misses are looked for."""
TOO_NEAR = 0.3
"""A tool that shares this part of its words with the needed one might do instead of it."""
EMPTY_WORDS = frozenset(
    """
    a add and api at by calculate check compute convert create current data delete details
    determine do estimate fetch find for from function generate get in info information is list
    make name new of on or predict retrieve search set start the to update value with
    """.split()  # noqa: SIM905
)
"""Words in the names of tools that do not say what a tool is about."""
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_MAX_NAME_LENGTH = 6
_STEM = 4


def without_needed_tools(
    example: Example, pool: Sequence[Tool], rng: random.Random
) -> Example | None:
    """The example with the tools it needs replaced by near misses, so that nothing is to be called.

    `pool` has the tools to choose from. Near misses are those that share most words with the needed
    one, but none that says what it is about, and none of their names with the query: they might
    do. None where the example needs no call, or there is no such tool.
    """
    needed = {answer.name for answer in example.answers}
    if not needed:
        return None
    candidates = rng.sample(list(pool), min(LOOKED_AT, len(pool)))
    taken = {tool.name for tool in example.tools}
    tools: list[Tool] = []
    for tool in example.tools:
        if tool.name not in needed:
            tools.append(tool)
            continue
        near = [c for c in candidates if c.name not in taken and not _might_do(c, example, needed)]
        if near:
            found = max(near, key=lambda candidate: _likeness(candidate, tool))
            taken.add(found.name)
            tools.append(found)
    if not tools:
        return None
    return replace(example, id=f"{example.id}/no-call", tools=tuple(tools), answers=())


def with_random_names(example: Example, rng: random.Random) -> Example | None:
    """The example with random names for its functions and arguments, in tools and answers alike.

    None where earlier turns have calls, or a tool is written in a way that cannot be renamed.
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


def _might_do(tool: Tool, example: Example, needed: set[str]) -> bool:
    """Whether a tool could do for one that is needed; rather once too often than too seldom."""
    told = _topics(_WORD.findall(example.query))
    for other in example.tools:
        if other.name in needed:
            told |= _topics(_name_words(other))
            if _likeness(tool, other) >= TOO_NEAR:
                return True
    return not told.isdisjoint(_topics(_name_words(tool)))


def _topics(words: Iterable[str]) -> set[str]:
    """The beginnings of the words that say what something is about: rank, ranks and ranking."""
    return {word.lower()[:_STEM] for word in words if word.lower() not in EMPTY_WORDS}


def _likeness(one: Tool, other: Tool) -> float:
    """The part of both tools' words that they share, from 0 to 1 (Jaccard's index)."""
    ours, theirs = _words(one), _words(other)
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.0


def _words(tool: Tool) -> set[str]:
    return _name_words(tool) | {word.lower() for word in _WORD.findall(tool.description)}


def _name_words(tool: Tool) -> set[str]:
    return {word.lower() for word in _WORD.findall(tool.name)}


def _random_name(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase, k=_MAX_NAME_LENGTH))


def _rename(tool: Tool, name: str, arguments: dict[str, str]) -> Tool:
    """The tool as its dataset wrote it, renamed, and read again."""
    parameters = tool.raw.get("parameters") or {}
    renamed = {"name": name, "parameters": _renamed_parameters(parameters, arguments)}
    (found,) = read_tools([tool.raw | renamed]).tools
    # Read as it was meant: nothing more, nothing less.
    if set(found.parameters["properties"]) != set(arguments.values()):
        raise UnusableRow("parameters that cannot be renamed")
    return found


def _renamed_parameters(written: dict[str, Json], names: dict[str, str]) -> dict[str, Json]:
    if isinstance(written.get("properties"), dict) and set(written["properties"]) == set(names):
        properties = {names[key]: value for key, value in written["properties"].items()}
        required = [names[key] for key in written.get("required") or []]
        return written | {"properties": properties} | ({"required": required} if required else {})
    return {names[key]: value for key, value in written.items()}
