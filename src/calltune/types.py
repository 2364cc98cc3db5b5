"""Core records: tools, calls, answers, messages, examples, and the parsed output of a model.

No files and no MLX. A dict here is real JSON (arguments, schemas); everything else is a record.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = Any
"""A JSON value: None, bool, int, float, str, list or dict with str keys."""

MAX_DEPTH = 100
"""How deep the lists and objects of one JSON text may be nested; deeper ones are refused."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call."""

    name: str
    description: str
    parameters: dict[str, Json]
    """JSON Schema of the arguments: {"type": "object", "properties": {...}, "required": [...]}."""
    raw: dict[str, Json]
    """The tool as its source wrote it, without OpenAI's wrapper; prompts show this."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: a function's name and its arguments as JSON."""

    name: str
    arguments: dict[str, Json]
    malformed: str = ""
    """Arguments that are not a JSON object, as they were written; `arguments` is empty then. Only
    calls in the history of a conversation have any."""


@dataclass(frozen=True, slots=True)
class AcceptableObject:
    """An acceptable object each of whose keys has acceptable values of its own."""

    keys: dict[str, "AcceptableArgument"]


AcceptableValue = Json
"""A JSON value in which any object, at any depth, may be an `AcceptableObject` instead."""


@dataclass(frozen=True, slots=True)
class AcceptableArgument:
    """The acceptable values of one argument, and whether it may be left out."""

    values: tuple[AcceptableValue, ...]
    """Empty only if the argument is optional: then it must be left out."""
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One call that must be made: the function and, for each argument, what is acceptable."""

    name: str
    arguments: dict[str, AcceptableArgument]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    """"system", "user", "assistant" or "tool"."""
    content: str
    calls: tuple[ToolCall, ...] = ()
    """The calls of an assistant message."""
    tool_name: str = ""
    """For a tool message: the function whose result this is, if known."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example: messages and tools in, calls out. No answers: nothing is to be called."""

    id: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    answers: tuple[Answer, ...]
    source: str
    """The dataset that it is from: "xlam", "bfcl/simple_python", …"""

    @property
    def query(self) -> str:
        """The last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """What a model's text was parsed to: calls, or the reason why there are none."""

    calls: tuple[ToolCall, ...]
    problem: str | None = None


def nesting(value: Json) -> int:
    """How deep lists and objects are nested in a value; 0 for a value that is neither."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            part for item in level for part in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


_FIELDS = "$fields"
"""The key that marks `AcceptableObject` in JSON."""


def exact_answer(call: ToolCall) -> Answer:
    """The answer that accepts this call's arguments and nothing else."""
    return Answer(
        call.name, {key: AcceptableArgument((value,)) for key, value in call.arguments.items()}
    )


def reference_call(
    answer: Answer, query: str, parameters: dict[str, Json] | None = None
) -> ToolCall:
    """The one call, of all that an answer accepts, that a model is trained to write.

    Of several acceptable values it has the one that occurs in the query, else the first. It has an
    optional argument if one of its values occurs in the query, or if the tool's default for it is
    not acceptable.

    Args:
        answer: what is acceptable.
        query: the last user message.
        parameters: the tool's JSON Schema, for the defaults.
    """
    return ToolCall(answer.name, _reference_object(answer.arguments, query, parameters or {}))


def answers_to_json(answers: tuple[Answer, ...]) -> list[Json]:
    """`answers` as the JSON of prepared rows and results; `answers_from_json` reads it back."""
    return [{"name": a.name, "arguments": _choices_to_json(a.arguments)} for a in answers]


def answers_from_json(data: list[Json]) -> tuple[Answer, ...]:
    """The answers that `answers_to_json` wrote; it raises what Python raises for other JSON."""
    return tuple(Answer(a["name"], _choices_from_json(a["arguments"])) for a in data)


def _reference_object(
    choices: dict[str, AcceptableArgument], query: str, schema: dict[str, Json]
) -> dict[str, Json]:
    reference: dict[str, Json] = {}
    for key, choice in choices.items():
        part = _part(_part(schema, "properties"), key)
        named = next((v for v in choice.values if _occurs_in(v, query)), None)
        if named is not None:
            reference[key] = _reference_value(named, query, part)
        elif choice.values and not (choice.is_optional and _accepts_default(choice, part)):
            reference[key] = _reference_value(choice.values[0], query, part)
    return reference


def _accepts_default(choice: AcceptableArgument, schema: dict[str, Json]) -> bool:
    return "default" not in schema or schema["default"] in choice.values


def _part(schema: dict[str, Json], key: str) -> dict[str, Json]:
    part = schema.get(key)
    return part if isinstance(part, dict) else {}


def _reference_value(value: AcceptableValue, query: str, schema: dict[str, Json]) -> Json:
    if isinstance(value, AcceptableObject):
        return _reference_object(value.keys, query, schema)
    if isinstance(value, dict):
        return {key: _reference_value(item, query, {}) for key, item in value.items()}
    if isinstance(value, list):
        return [_reference_value(item, query, _part(schema, "items")) for item in value]
    return value


def _occurs_in(value: AcceptableValue, query: str) -> bool:
    leaves = [leaf for leaf in _leaves(value) if leaf not in ("", None)]
    if not leaves or any(isinstance(leaf, bool) for leaf in leaves):
        return False
    return all(str(leaf).lower() in query.lower() for leaf in leaves)


def _leaves(value: AcceptableValue) -> Iterator[Json]:
    if isinstance(value, AcceptableObject):
        for choice in value.keys.values():
            if choice.values and not choice.is_optional:
                yield from _leaves(choice.values[0])
    elif isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _choices_to_json(choices: dict[str, AcceptableArgument]) -> dict[str, Json]:
    return {
        key: {"values": [_acceptable_to_json(v) for v in choice.values]}
        | ({"optional": True} if choice.is_optional else {})
        for key, choice in choices.items()
    }


def _acceptable_to_json(value: AcceptableValue) -> Json:
    if isinstance(value, AcceptableObject):
        return {_FIELDS: _choices_to_json(value.keys)}
    if isinstance(value, dict):
        # A plain object that has only this key must not be read back as an AcceptableObject.
        escape = "$" if _has_only_fields_key(value) else ""
        return {escape + key: _acceptable_to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_acceptable_to_json(item) for item in value]
    return value


def _choices_from_json(data: dict[str, Json]) -> dict[str, AcceptableArgument]:
    return {
        key: AcceptableArgument(
            tuple(_acceptable_from_json(v) for v in choice["values"]),
            choice.get("optional", False),
        )
        for key, choice in data.items()
    }


def _acceptable_from_json(value: Json) -> AcceptableValue:
    if isinstance(value, dict) and value.keys() == {_FIELDS}:
        return AcceptableObject(_choices_from_json(value[_FIELDS]))
    if isinstance(value, dict):
        escaped = 1 if _has_only_fields_key(value) else 0
        return {key[escaped:]: _acceptable_from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_acceptable_from_json(item) for item in value]
    return value


def _has_only_fields_key(value: dict[str, Json]) -> bool:
    if len(value) != 1:
        return False
    (key,) = value
    return key.endswith(_FIELDS) and not key.removesuffix(_FIELDS).strip("$")
