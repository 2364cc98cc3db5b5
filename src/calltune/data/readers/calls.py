"""Calls as datasets write them in JSON: a name and arguments, under any of their usual keys.

A call that cannot be read as it was meant drops its row: its arguments are never emptied.

Source: the calls of OpenAI's API (`arguments`), Llama (`parameters`), LangChain (`args`,
`tool_input`, `action_input`), Anthropic and Bedrock (`input`), Gemini (`args`) and Cohere.
"""

from calltune.data.readers.arrow_nulls import has_foreign_null, without_nulls
from calltune.data.readers.offer import RowTools
from calltune.data.readers.values import decode_text
from calltune.schemas.parameters import allows
from calltune.schemas.tools import UnusableRow, shortened
from calltune.types import Json, Tool, ToolCall

NAME_KEYS = ("name", "tool_name", "function_name", "tool", "function", "action", "recipient_name")
ARGUMENT_KEYS = (
    *("arguments", "parameters", "args", "input", "kwargs", "params"),
    *("tool_input", "action_input", "function_args", "tool_arguments", "tool_args"),
)
WRAPPERS = (
    *("function", "function_call", "functionCall", "tool_call", "toolCall"),
    *("tool_use", "toolUse", "custom"),
)
"""Keys under which a call may stand in an object of its own."""
_LABELS = frozenset({"id", "type", "index", "call_id", "tool_call_id", "toolUseId", "status"})
"""Keys beside a call that say nothing about its arguments."""


class UnusableCall(UnusableRow):
    """A row that cannot be used because of one of its calls.

    They are counted apart: the rows that are left call less often than the dataset does.
    """


def read_calls(written: Json, offer: RowTools) -> tuple[ToolCall, ...]:
    """Calls written as a list (or one), each to a tool that is offered.

    Raises:
        UnusableCall: it is not a list, or as `read_call`.
    """
    if isinstance(written, dict):
        listed = written.get("tool_calls")
        written = listed if isinstance(listed, list) else [written]
    if not isinstance(written, list):
        raise UnusableCall("answers are not a list of calls", written)
    return tuple(read_call(item, offer) for item in written)


def read_call(written: Json, offer: RowTools) -> ToolCall:
    """One call; arguments may be an object, or an object in a string.

    Arguments that are null, blank or absent are none. What Arrow filled with null is left out.

    Raises:
        UnusableCall: it has no name, its arguments are not an object or stand under a key that is
            not known, or as `check_call`.
    """
    if not isinstance(written, dict):
        raise UnusableCall("call without a name", written)
    levels = _levels(written, offer)
    name = next((named for level in levels if (named := _name(level)) is not None), None)
    if name is None:
        raise UnusableCall("call without a name", written)
    name = _offered_name(name, offer)
    arguments = _arguments(levels, name)
    if (tool := offer.by_name.get(name)) is not None:
        is_arrow = has_foreign_null(arguments, tool)
        kept = without_nulls(arguments, tool.parameters, tool.parameters, is_arrow)
        if kept != arguments:
            offer.note("nulls that the tool does not take are left out of a call's arguments")
        arguments = kept
    check_call(name, arguments, offer)
    return ToolCall(name, arguments)


def is_call(value: Json, offer: RowTools) -> bool:
    """Whether a JSON value is a call, or a list with one: by an offered name, or by its keys."""
    if isinstance(value, list):
        return any(is_call(item, offer) for item in value)
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("tool_calls"), list) and value["tool_calls"]:
        return True
    levels = _levels(value, offer)
    name = next((named for level in levels if (named := _name(level)) is not None), None)
    has_arguments = any(level.get(key) is not None for level in levels for key in ARGUMENT_KEYS)
    if name is None:
        return "arguments" in value
    return _offered_name(name, offer) in offer.by_name or has_arguments


def check_call(name: str, arguments: dict[str, Json], offer: RowTools) -> Tool:
    """The tool that a call is to.

    Raises:
        UnusableCall: the tool is not offered, or does not take one of the arguments.
    """
    tool = offer.by_name.get(name)
    if tool is None:
        raise UnusableCall("call to a tool that is not offered", name)
    for argument, value in arguments.items():
        if not allows(tool.parameters, argument):
            told = f"{name}: {shortened(argument, 40)}: {shortened(value, 40)}"
            raise UnusableCall("argument the tool does not have", told)
    return tool


def _levels(written: dict[str, Json], offer: RowTools) -> list[dict[str, Json]]:
    """The objects that a call is in, the inner one first; nulls in them are left out."""
    kept = {key: value for key, value in written.items() if value is not None}
    for wrapper in WRAPPERS:
        if isinstance(inner := kept.get(wrapper), dict):
            outer = {key: value for key, value in kept.items() if key != wrapper}
            return [*_levels(inner, offer), outer]
    keys = kept.keys() - _LABELS
    # BFCL and Apertus write {"f": {"x": 1}}.
    name = next(iter(keys)) if len(keys) == 1 else ""
    if name in offer.by_name and isinstance(kept[name], dict):
        return [{"name": name, "arguments": kept[name]}]
    return [kept]


def _name(level: dict[str, Json]) -> str | None:
    return next((level[key] for key in NAME_KEYS if isinstance(level.get(key), str)), None)


def _offered_name(name: str, offer: RowTools) -> str:
    """The name without what Kimi, Gemini and Llama write around it; as it is if none is offered."""
    if name in offer.by_name:
        return name
    for prefix in ("functions.", "default_api.", "tools.", "api."):
        if name.removeprefix(prefix) in offer.by_name:
            return name.removeprefix(prefix)
    called = name.removesuffix(".call")
    return called if called in offer.by_name else name


def _arguments(levels: list[dict[str, Json]], name: str) -> dict[str, Json]:
    found: list[dict[str, Json]] = []
    for level in levels:
        for key in ARGUMENT_KEYS:
            if key in level and (decoded := _decoded(level[key])) is not None:
                found.append(decoded)
    if not found:
        known = {*NAME_KEYS, *ARGUMENT_KEYS, *_LABELS}
        unknown = [key for level in levels for key in level if key not in known]
        if unknown:
            raise UnusableCall(
                "arguments under a key that is not known", f"{name}: {', '.join(unknown)}"
            )
        return {}
    if any(other != found[0] for other in found[1:]):
        raise UnusableCall("arguments of one call under two keys", f"{name}: {found}")
    return found[0]


def _decoded(written: Json) -> dict[str, Json] | None:
    """The arguments in what stands under their key; None where that is blank."""
    for _ in range(3):
        if not isinstance(written, str):
            break
        if not written.strip():
            return None
        try:
            written = decode_text(written, "arguments are not JSON")
        except UnusableRow as unusable:
            raise UnusableCall(unusable.reason, unusable.detail) from None
    if written is None or written == []:
        # PHP writes an empty object as an empty list.
        return None
    if not isinstance(written, dict):
        raise UnusableCall("arguments are not an object", written)
    return written
