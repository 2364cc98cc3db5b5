"""Whether a JSON value satisfies a JSON Schema, by the reference implementation in Python."""

import re

from calltune.calls import Json


def satisfies(value: Json, schema: dict[str, Json]) -> bool:
    """By draft 2020-12. What a broken schema says is not held against anybody."""
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
