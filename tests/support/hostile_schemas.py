"""Hostile JSON Schemas for a server that compiles them, and any number of ordinary ones."""

import json
import random
import string
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from support.hostile_kinds import KINDS, of

SCHEMA = '"@schema@"'
"""Placeholder for the schema in a body: some are too deep for Python's json to write."""


class Hostile(NamedTuple):
    """One schema as JSON text."""

    kind: str
    text: str


def hostile(count: int) -> list[Hostile]:
    """`count` different schemas, one of each kind in turn; the same in every run."""
    kinds = [*_made(), islice(_named("mutated", _mutated()), 100)]
    by_turns = (each for row in zip_longest(*kinds) for each in row if each is not None)
    found = list(islice(_different(by_turns), count))
    assert len(found) == count, len(found)
    return found


def ordinary(number: int) -> dict[str, Any]:
    """An ordinary schema; a different one for every number."""
    chosen = random.Random(number)
    values: list[dict[str, Any]] = [
        {"type": "string", "description": f"Name {number}."},
        {"type": "integer", "minimum": chosen.randrange(9), "maximum": 10 + number},
        {"enum": [f"{word}{number}" for word in ("red", "green", "blue")]},
        {"type": "array", "items": {"type": "number"}, "maxItems": 1 + number % 9},
        {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
        {"type": ["string", "null"]},
    ]
    properties = {f"{_word(chosen)}_{i}": chosen.choice(values) for i in range(3)}
    properties[f"number_{number}"] = {"type": "integer"}
    return {"type": "object", "properties": properties, "required": list(properties)}


def body(schema: Hostile | dict[str, Any], model: str, **more: Any) -> bytes:
    """A request that must call a tool with this schema."""
    function = {"name": "do", "description": "Do it.", "parameters": "@schema@"}
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "Do it."}],
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "max_tokens": 40,
    }
    text = schema.text if isinstance(schema, Hostile) else json.dumps(schema)
    return json.dumps(asked | more).replace(SCHEMA, text).encode()


def _made() -> list[Iterator[Hostile]]:
    return [_named(kind, made()) for kind, made in KINDS.items()]


def _named(kind: str, made: Iterator[Any]) -> Iterator[Hostile]:
    for schema in made:
        yield Hostile(kind, schema if isinstance(schema, str) else json.dumps(schema))


def _different(schemas: Iterator[Hostile]) -> Iterator[Hostile]:
    seen: set[str] = set()
    for each in schemas:
        if each.text not in seen:
            seen.add(each.text)
            yield each


def _word(chosen: random.Random) -> str:
    return "".join(chosen.choices(string.ascii_lowercase, k=6))


def _mutated() -> Iterator[dict[str, Any]]:
    """An endless stream of random combinations of keywords."""
    chosen = random.Random(1)
    texts = [each.text for kind in _made() for each in islice(kind, 40)]
    parts: list[Any] = [json.loads(text) for text in texts if len(text) < 2_000]
    while True:
        made = chosen.sample(parts, 3)
        keyword = chosen.choice(["allOf", "anyOf", "oneOf", "prefixItems"])
        first, second, third = made
        inner = {**first, "properties": {"x": second, "y": third}}
        yield chosen.choice([of({keyword: made}), first | second, inner])
