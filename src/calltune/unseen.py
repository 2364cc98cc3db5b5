"""Which tools of a held-out example do not occur in the training rows."""

import json
from collections.abc import Iterable

from calltune.calls import Example, Json, Tool

_WORDS = ("description", "title")
"""Keywords of a JSON Schema that explain and do not constrain."""


def tools_in(examples: Iterable[Example]) -> set[str]:
    """The tools that these examples offer, to be given to `unseen_tools`."""
    return {_identity(tool) for example in examples for tool in example.tools}


def unseen_tools(example: Example, seen: set[str]) -> int:
    """How many tools the example needs, or offers where it needs none, that are not in `seen`."""
    needed = {answer.name for answer in example.answers}
    tools = [tool for tool in example.tools if not needed or tool.name in needed]
    return sum(_identity(tool) not in seen for tool in tools)


def _identity(tool: Tool) -> str:
    """A text that is equal for tools of one name and equal parameters, however these are described.

    Parameters are equal when they have the same names, types, defaults and other constraints, in
    any order, and the same ones are required.
    """
    return json.dumps([tool.name, _bare(tool.parameters)], sort_keys=True)


def _bare(schema: Json) -> Json:
    """The schema without the words that explain it."""
    if isinstance(schema, list):
        return [_bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {key: _bare(value) for key, value in schema.items() if key not in _WORDS}
    if isinstance(properties := schema.get("properties"), dict):
        # An argument may be called "description" itself.
        bare["properties"] = {name: _bare(part) for name, part in properties.items()}
    if isinstance(required := schema.get("required"), list):
        bare["required"] = sorted(required)
    return bare
