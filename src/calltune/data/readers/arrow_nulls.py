"""Nulls that Arrow made: its structs have one set of keys, so each gets the others' as null.

In a column of tools every tool has the properties of all tools; in a column of calls every call
has the arguments of all calls. Such nulls are no data. JSON Lines written from such a table have
them too, so they are told by the tool and not by the file.

Source: the struct type of Apache Arrow, https://arrow.apache.org/docs/format/Columnar.html
"""

from calltune.schemas.keywords import HOLD_DATA, HOLD_MAP, declared_types, items_schema
from calltune.schemas.parameters import allows
from calltune.schemas.validate import satisfies
from calltune.types import Json, Tool

_DEFINITIONS = ("$defs", "definitions")


def tools_without_nulls(tools: Json) -> Json:
    """Tools as a row has them, without the keys that are null.

    `default` and `const` may be null for a reason: they are kept unless other nulls show that
    Arrow wrote the tools. A property that is required stays, as one that takes any value.
    """
    if not isinstance(tools, list):
        return tools
    is_arrow = any(_has_null(tool) for tool in tools)
    return [_tool(tool) for tool in tools] if is_arrow else tools


def has_foreign_null(arguments: dict[str, Json], tool: Tool) -> bool:
    """Whether an argument that the tool does not have is null: only Arrow writes such a thing."""
    properties = tool.parameters["properties"]
    return any(value is None and key not in properties for key, value in arguments.items())


def without_nulls(
    arguments: dict[str, Json], schema: Json, root: dict[str, Json], is_arrow: bool
) -> dict[str, Json]:
    """Arguments, or an object in them, without the nulls that their schema does not take.

    Args:
        arguments: what a call gives.
        schema: the schema of this object.
        root: the schema of all arguments, which has the definitions.
        is_arrow: whether nulls are left out too where the schema does not say what it takes.
    """
    kept: dict[str, Json] = {}
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    for key, value in arguments.items():
        part = properties.get(key) if isinstance(properties, dict) else None
        if value is not None:
            kept[key] = _inner(value, part, root, is_arrow)
        elif part is None:
            # Closed objects do not have the key; open ones may mean it.
            if not is_arrow and _may_have(schema, key):
                kept[key] = None
        elif _takes_null(part, root) and not (is_arrow and part == {}):
            kept[key] = None
    return kept


def _inner(value: Json, schema: Json, root: dict[str, Json], is_arrow: bool) -> Json:
    if isinstance(value, dict):
        return without_nulls(value, schema or {}, root, is_arrow)
    if isinstance(value, list):
        return [_inner(item, items_schema(schema or {}), root, is_arrow) for item in value]
    return value


def _may_have(schema: Json, key: str) -> bool:
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return True
    return allows(schema, key)


def _takes_null(part: Json, root: dict[str, Json]) -> bool:
    if not isinstance(part, dict):
        return part is True
    # An enum that forgets the null which its type allows does not forbid it.
    if part.get("nullable") is True or "null" in declared_types(part):
        return True
    definitions = {key: root[key] for key in _DEFINITIONS if key in root}
    return satisfies(None, definitions | part)


def _tool(tool: Json) -> Json:
    if not isinstance(tool, dict):
        return tool
    kept = {key: value for key, value in tool.items() if value is not None}
    for key in ("parameters", "input_schema", "inputSchema"):
        if isinstance(kept.get(key), dict):
            kept[key] = _schema(kept[key])
    if isinstance(kept.get("function"), dict):
        kept["function"] = _tool(kept["function"])
    return kept


def _schema(written: dict[str, Json]) -> dict[str, Json]:
    required = written.get("required")
    names = required if isinstance(required, list) else []
    kept: dict[str, Json] = {}
    for key, value in written.items():
        if value is None:
            continue
        if key in HOLD_MAP and isinstance(value, dict):
            kept[key] = {
                name: _part(part) if part is not None else {}
                for name, part in value.items()
                if name in names or not _is_blank(part)
            }
        else:
            kept[key] = value if key in HOLD_DATA else _part(value)
    # In the flat form an argument of which nothing is said is another tool's.
    return {key: value for key, value in kept.items() if not _is_blank(value)}


def _part(value: Json) -> Json:
    if isinstance(value, dict):
        return _schema(value)
    return [_part(item) for item in value] if isinstance(value, list) else value


def _is_blank(value: Json) -> bool:
    """Whether there is nothing but nulls: a struct that Arrow filled."""
    if isinstance(value, dict):
        return bool(value) and all(map(_is_blank, value.values()))
    return value is None


def _has_null(value: Json, key: str = "") -> bool:
    """Whether a key of a tool is null that means nothing when it is."""
    if isinstance(value, dict):
        return any(
            (part is None and name not in ("default", "const")) or _has_null(part, name)
            for name, part in value.items()
            if name not in HOLD_DATA or part is None
        )
    if isinstance(value, list) and key not in HOLD_DATA:
        return any(map(_has_null, value))
    return False
