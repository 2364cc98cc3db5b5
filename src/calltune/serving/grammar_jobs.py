"""Tools and schemas of a request -> what is offered, and the grammar that the answer keeps to.

Orders and answers are lines of JSON as well, for `bench`, where this is done.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from calltune.errors import UnusableSchema
from calltune.files import dumps
from calltune.formats import FORMATS
from calltune.formats.grammar import Grammar, OutputSpec
from calltune.schemas.lark import TooLarge
from calltune.schemas.validate import satisfies
from calltune.types import Json, Tool

STOPPED = dumps(None)
"""The answer to an order that had to be stopped."""
_REMARKS = ("title", "description", "default")


class Order(NamedTuple):
    """What is to be prepared."""

    prompt_format: str
    special: tuple[str, ...]
    """The family's markers that no text can spell with the model's tokenizer."""
    tools: tuple[dict[str, Json], ...]
    """Those that may be called: name, description and parameters, a JSON Schema."""
    wanted: OutputSpec
    is_strict: bool
    """Refuse what cannot be held in all it says."""


class Prepared(NamedTuple):
    """What an answer is made with."""

    tools: tuple[Tool, ...]
    original_names: dict[str, str]
    grammar: Grammar | None
    """What the answer keeps to; None where nothing is to be kept to."""


class Refused(Exception):
    """Tools or a schema that answers cannot be held to."""


class Stopped(Exception):
    """They took too long, or too much."""


def prepare(order: Order) -> Prepared:
    """Check the tools and make the grammar.

    Raises:
        Refused: with what is wrong, for the one who sent them.
    """
    from calltune.tools.toolset import ToolDraft, build_toolset

    drafts = [
        ToolDraft(each["name"], each["description"], each["parameters"]) for each in order.tools
    ]
    toolset = build_toolset(drafts, [])
    if lost := [note for note in toolset.notes if not note.text.startswith("called ")]:
        raise Refused(f"tool {lost[0].tool}: {lost[0].text}")
    schemas = [order.wanted.schema, *(tool.parameters for tool in toolset.tools)]
    for text in _spelled(schemas):
        # Spelled because it must, it would be the token, and end the answer.
        if marker := next((marker for marker in order.special if marker in text), None):
            raise Refused(f"{marker} in a name or a value is a control token; leave it out")
    try:
        grammar = FORMATS[order.prompt_format].grammar(
            toolset.tools, (), frozenset(order.special), order.wanted
        )
    except TooLarge:
        raise Refused("the schemas are too large together; offer fewer tools at once") from None
    except UnusableSchema as reason:
        raise Refused(str(reason)) from None
    if order.is_strict and grammar.notes:
        raise Refused(f"answers cannot be held to {grammar.notes[0]}; leave strict out")
    _compile(grammar)
    return Prepared(toolset.tools, toolset.original_names, grammar)


def order_line(order: Order) -> str:
    """The order for another process, one text for equal ones."""
    return dumps({"prepare": [*order[:3], list(order.wanted), order.is_strict]})


def check_line(value: Json, schema: Json) -> str:
    """The question to another process whether a value satisfies a schema."""
    return dumps({"check": [value, schema]})


def read_prepared(line: bytes) -> Prepared:
    """What the other process answered to an order.

    Raises:
        Refused: it refused.
        Stopped: it was stopped.
    """
    data = json.loads(line)
    if data is None:
        raise Stopped
    if "refused" in data:
        raise Refused(data["refused"])
    tools = tuple(Tool(*each) for each in data["tools"])
    return Prepared(tools, data["names"], Grammar(data["grammar"], tuple(data["notes"])))


def read_checked(line: bytes) -> bool:
    """What the other process answered to a check."""
    return json.loads(line) is True


def load() -> None:
    """Import and make what orders need, by way of one that has some of everything."""
    properties: dict[str, Json] = {
        kind: {"type": kind}
        for kind in ("string", "integer", "number", "boolean", "array", "object", "null")
    }
    properties |= {
        "choice": {"enum": ["a", 1]},
        "either": {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"$ref": "#/$defs/few"}]},
        "range": {"type": "integer", "minimum": 1, "maximum": 9},
    }
    few: Json = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 2}
    schema: Json = {"type": "object", "properties": properties, "$defs": {"few": few}}
    tool: dict[str, Json] = {"name": "any", "description": "", "parameters": schema}
    for prompt_format in FORMATS:
        answer(order_line(Order(prompt_format, (), (tool,), OutputSpec(), False)))
    answer(check_line({"string": "a"}, schema))


def answer(line: str) -> str:
    """The answer to a line of either kind."""
    return dumps(_answer(json.loads(line)))


def _answer(asked: dict[str, Any]) -> Json:
    if "check" in asked:
        return satisfies(*asked["check"])
    prompt_format, special, tools, wanted, is_strict = asked["prepare"]
    order = Order(prompt_format, tuple(special), tuple(tools), OutputSpec(*wanted), is_strict)
    try:
        prepared = prepare(order)
    except Refused as reason:
        return {"refused": str(reason)}
    except (MemoryError, RecursionError):
        return {"refused": "they take too much memory to be compiled"}
    assert prepared.grammar is not None
    listed: list[Json] = [
        [tool.name, tool.description, tool.parameters, tool.raw] for tool in prepared.tools
    ]
    return {
        "tools": listed,
        "names": dict(prepared.original_names),
        "grammar": prepared.grammar.text,
        "notes": list(prepared.grammar.notes),
    }


def _spelled(schema: Json) -> Iterator[str]:
    """Names and values in a schema, that answers may have to spell; not what only describes."""
    if isinstance(schema, str):
        yield schema
    elif isinstance(schema, list):
        for part in schema:
            yield from _spelled(part)
    elif isinstance(schema, dict):
        for key, part in schema.items():
            if not (key in _REMARKS and isinstance(part, str)):
                yield key
                yield from _spelled(part)


def _compile(grammar: Grammar) -> None:
    """See that llguidance takes it, with letters for tokens: that has most of the cost."""
    from llguidance import LLMatcher, LLTokenizer

    global _characters
    if _characters is None:
        _characters = LLTokenizer("byte")
    matcher = LLMatcher(_characters, grammar.text, log_level=0)
    matcher.compute_bitmask()
    if matcher.is_error():
        raise Refused(f"the schemas cannot be compiled ({matcher.get_error()[:200]})")


_characters: Any = None
