"""Judges whether a server's response to a hostile schema is acceptable."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from calltune.schemas.validate import satisfies

MAX_SECONDS = 5.0
"""Limit for a refusal. The time of an answer depends on the model and on its length."""
CHECK_SECONDS = 5.0
"""Limit for validating an answer, since a pattern may take forever to match."""


class Verdict(NamedTuple):
    """How a server handled a schema."""

    what: Literal["refused", "held", "cut", "noted", "forgiven", "fault"]
    """Refused with a typed 4xx; held, a call that satisfies the schema; cut off by the limit, as
    its finish reason says; noted, a call that breaks what no grammar enforces, as text that says
    so; forgiven, a call for a schema that is not valid JSON Schema; or a fault,
    which is anything else."""
    why: str = ""


def judge(status: int, answer: Any, schema: str, seconds: float) -> Verdict:
    """The verdict on a JSON response to a request that must call the tool of this schema."""
    if 400 <= status < 500:
        if seconds > MAX_SECONDS:
            return Verdict("fault", f"{status} after {seconds:.1f} s")
        return Verdict("refused") if is_typed(answer) else Verdict("fault", f"untyped: {answer!r}")
    if status != 200:
        return Verdict("fault", f"status {status}: {str(answer)[:200]}")
    choice = answer["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    if choice["finish_reason"] == "length" and not calls:
        return Verdict("cut")
    if not calls and choice.get("note", {}).get("type") == "call_off_schema":
        return Verdict("noted")
    if not calls:
        return Verdict("fault", f"no call, {choice['finish_reason']}: {choice['message']}")
    return _kept_to(json.loads(schema), [json.loads(c["function"]["arguments"]) for c in calls])


def is_typed(body: Any) -> bool:
    """Whether a body is an error object of OpenAI's API."""
    error = body.get("error") if isinstance(body, dict) else None
    return (
        isinstance(error, dict)
        and set(error) == {"message", "type", "param", "code"}
        and isinstance(error["message"], str)
        and isinstance(error["type"], str)
        and bool(error["message"])
    )


def _kept_to(schema: Any, arguments: list[Any]) -> Verdict:
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError):
        return Verdict("forgiven")
    for each in arguments:
        try:
            with _at_most(CHECK_SECONDS):
                is_satisfied = isinstance(each, dict) and satisfies(each, schema)
        except TimeoutError:
            return Verdict("fault", "a 200 with arguments that take for ever to be checked")
        if not is_satisfied:
            return Verdict("fault", f"a 200 with {str(each)[:200]}")
    return Verdict("held")


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after `seconds`; in the main thread only."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
