"""JSON Schemas: whether a value satisfies one, and what a reference within one points at."""

import re
from urllib.parse import unquote

from calltune.calls import Json


def satisfies(value: Json, schema: dict[str, Json]) -> bool:
    """Whether it does, by the reference implementation of draft 2020-12 in Python.

    What a broken schema says is not held against anybody.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import UnknownType
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    broken = (
        UnknownType,
        Unresolvable,
        re.error,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    )
    # An empty registry: a reference to some address is never fetched.
    validator = Draft202012Validator(schema, registry=Registry())
    try:
        return bool(validator.is_valid(value))
    except broken:
        return True


def pointed_at(reference: str, root: Json) -> Json:
    """What a reference within `root` (`#/a/b`, RFC 6901) points at; None where it points out."""
    if not reference.startswith("#"):
        return None
    found = root
    for token in reference[1:].split("/")[1:]:
        key = unquote(token).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found
