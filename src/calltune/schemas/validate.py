"""Checks of values against JSON Schemas.

Source: JSON Schema draft 2020-12, by its reference implementation in Python, `jsonschema`; patterns
are ECMAScript's, which `regex` is nearer to than Python's `re`.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

from calltune.schemas.keyword_values import to_python
from calltune.types import Json

_MAX_SEARCH_S = 1.0
"""Seconds for one pattern and one text, since some patterns take hours for some texts."""


def satisfies(value: Json, schema: dict[str, Json]) -> bool:
    """Whether a value satisfies a JSON Schema of draft 2020-12.

    A pattern that cannot be read, or takes too long, refuses nothing. Also true where the schema is
    broken in a way that stops the check: a value is not blamed for its schema. References to other
    documents are never fetched.
    """
    return violation(value, schema) is None


def violation(value: Json, schema: dict[str, Json]) -> str | None:
    """How a value breaks a schema: the place in it and the first broken keyword, in one line.

    None where it satisfies the schema, as `satisfies`.
    """
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
    validator = _validator_class()(schema, registry=Registry())
    try:
        error = next(validator.iter_errors(value), None)
    except broken:
        return None
    if error is None:
        return None
    place = ".".join(map(str, error.absolute_path))
    return f"{place}: {error.message}" if place else str(error.message)


@functools.cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    return extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": _pattern}
    )


def _pattern(validator: Any, pattern: Json, value: Json, schema: Json) -> Iterator[Any]:
    """The `pattern` keyword, for jsonschema."""
    from jsonschema import ValidationError

    if validator.is_type(value, "string") and not matches(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def matches(pattern: str, text: str) -> bool:
    """Whether an ECMAScript pattern matches somewhere in a text; yes if that cannot be told."""
    import regex

    try:
        return regex.search(to_python(pattern), text, timeout=_MAX_SEARCH_S) is not None
    except (regex.error, TimeoutError, RecursionError, OverflowError, ValueError, TypeError):
        return True
