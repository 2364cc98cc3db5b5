"""Functions run with the arguments of a call, and what they return as JSON."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from calltune.calls import Json


def run_function(function: Callable[..., Any], arguments: dict[str, Json]) -> Json:
    """What a function returns, as JSON; what it raises comes through.

    Arguments come as its type hints say: dataclasses, enums and the like are made of their JSON.
    What an async function gives is waited for. What has no JSON is given as its text.
    """
    from pydantic import validate_call
    from pydantic_core import to_jsonable_python

    returned = validate_call(function)(**arguments)
    if inspect.isawaitable(returned):
        returned = asyncio.run(_awaited(returned))
    return to_jsonable_python(returned, fallback=str, inf_nan_mode="strings")


async def _awaited(value: Any) -> Any:
    return await value
