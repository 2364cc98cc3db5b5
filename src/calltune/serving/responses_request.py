"""Requests of OpenAI's Responses API, turned into chat requests.

The subset that openai-agents and the AI SDK need: text and items as input, functions, their
results, `text.format`. What belongs to OpenAI's own tools and to stored conversations is refused.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from calltune.serving.errors import APIError
from calltune.serving.request_body import checked, read_chat_request
from calltune.serving.request_schema import ChatRequest, Object
from calltune.types import Json

MAX_ITEMS = 4096
"""Output items that are kept; each is at most as long as an answer."""
_REFUSED = {
    "previous_response_id": "no response is kept here; send the whole conversation as input",
    "conversation": "no conversation is kept here; send the whole conversation as input",
    "background": "responses are answered at once; leave it out",
    "prompt": "no prompt template is kept here; send instructions and input",
}
"""Fields that ask for what is stored at OpenAI, and what to do without it."""
_SAME = ("model", "temperature", "top_p", "top_logprobs", "parallel_tool_calls", "stream")
_RENAMED = (
    (re.compile(r"\bresponse_format(\.json_schema)?"), "text.format"),
    (re.compile(r"(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"\bmax_completion_tokens"), "max_output_tokens"),
)
"""Fields of chat requests as this API names them, for errors."""


class TextOptions(BaseModel):
    """How an answer in text is written."""

    model_config = ConfigDict(frozen=True, strict=True)

    format: Object | None = None
    """`text`, `json_object`, or `json_schema` with name, schema and strict beside the type."""


class ResponsesRequest(BaseModel):
    """The body of `POST /v1/responses`."""

    model_config = ConfigDict(frozen=True, strict=True)

    model: str
    input: str | list[Object]
    instructions: str | None = None
    tools: list[Object] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    metadata: Object | None = None
    store: bool | None = None
    """Whether later requests may refer to this answer's items by id, for a while."""


@dataclass(frozen=True, slots=True)
class ResponsesQuery:
    """A request of this API, and the chat request that it comes to."""

    request: ResponsesRequest
    chat: ChatRequest
    places: Sequence[str]
    """The field that each message of the chat request came from."""

    def named(self, error: APIError) -> APIError:
        """The error with the fields of this API in place of those of chat requests."""
        return _named(error, self.places)


@dataclass(slots=True)
class ItemStore:
    """The last output items, in memory alone, for requests that refer to them by id.

    The AI SDK refers to items instead of sending them unless its option `store` is false. Ids are
    random, so that nobody can refer to items of others.
    """

    max_items: int = MAX_ITEMS
    _items: OrderedDict[str, dict[str, Json]] = field(default_factory=OrderedDict)

    def keep(self, items: Iterable[dict[str, Json]]) -> None:
        """Keep these, and forget the oldest beyond `max_items`."""
        for item in items:
            self._items[item["id"]] = item
        while len(self._items) > self.max_items:
            self._items.popitem(last=False)

    def get(self, item_id: Json) -> dict[str, Json] | None:
        """The item with this id, if it is still kept."""
        return self._items.get(item_id) if isinstance(item_id, str) else None


def read_responses_request(data: Mapping[str, Json], items: ItemStore) -> ResponsesQuery:
    """A request, and the chat request that asks for the same.

    Raises:
        APIError: a field cannot be used, or an item that is referred to is not kept (400).
    """
    for name, advice in _REFUSED.items():
        if data.get(name):
            raise APIError(400, f"{name}: {advice}", name)
    request = checked(ResponsesRequest, data)
    conversation = _Conversation(items)
    if request.instructions:
        conversation.add_message(
            {"role": "system", "content": request.instructions}, "instructions"
        )
    if isinstance(request.input, str):
        conversation.add_message({"role": "user", "content": request.input}, "input")
    else:
        for index, item in enumerate(request.input):
            conversation.add(item, f"input[{index}]")
    chat: dict[str, Json] = {name: data[name] for name in _SAME if name in data}
    chat |= {
        "messages": conversation.messages,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "max_completion_tokens": request.max_output_tokens,
        "response_format": request.text.format if request.text else None,
    }
    if not conversation.messages:
        raise APIError(400, "input is empty; give a text or items", "input")
    try:
        return ResponsesQuery(request, read_chat_request(chat), conversation.places)
    except APIError as error:
        raise _named(error, conversation.places) from None


class _Conversation:
    """Collects items as messages of a chat request."""

    def __init__(self, items: ItemStore) -> None:
        self.messages: list[dict[str, Json]] = []
        self.places: list[str] = []
        self._items = items

    def add(self, item: Mapping[str, Json], place: str) -> None:
        kind = item.get("type")
        if kind == "item_reference" or (kind is None and "role" not in item and "id" in item):
            item = self._kept(item.get("id"), place)
            kind = item["type"]
        match kind:
            case "message" | None:
                message = {key: value for key, value in item.items() if key != "type"}
                self.add_message(message, place)
            case "function_call":
                function = {key: item.get(key) for key in ("name", "arguments")}
                self._add_call({"id": item.get("call_id"), "function": function}, place)
            case "custom_tool_call":
                custom = {key: item.get(key) for key in ("name", "input")}
                self._add_call({"id": item.get("call_id"), "custom": custom}, place)
            case "function_call_output" | "custom_tool_call_output":
                result = {"tool_call_id": item.get("call_id"), "content": item.get("output")}
                self.add_message({"role": "tool", **result}, place)
            case "reasoning":
                # Of another model; this one's prompt has no place for it.
                pass
            case _:
                text = f"{place}.type is {kind!r:.60}, and such items cannot be read here"
                raise APIError(400, text, f"{place}.type")

    def add_message(self, message: dict[str, Json], place: str) -> None:
        self.messages.append(message)
        self.places.append(place)

    def _add_call(self, call: dict[str, Json], place: str) -> None:
        """Add a call to the turn that it is of: text and calls are one message."""
        if not self.messages or self.messages[-1].get("role") != "assistant":
            self.add_message({"role": "assistant"}, place)
        self.messages[-1] = {
            **self.messages[-1],
            "tool_calls": [*self.messages[-1].get("tool_calls", ()), call],
        }

    def _kept(self, item_id: Json, place: str) -> dict[str, Json]:
        found = self._items.get(item_id)
        if found is None:
            raise APIError(
                400,
                f"{place}.id is {item_id!r:.80}, which is not kept here; send the item itself "
                "(in the AI SDK with the provider option store: false)",
                f"{place}.id",
            )
        return found


def _named(error: APIError, places: Sequence[str]) -> APIError:
    def renamed(text: str) -> str:
        for index, place in enumerate(places):
            text = text.replace(f"messages[{index}]", place)
        for pattern, name in _RENAMED:
            text = pattern.sub(name, text)
        return "input" if text == "messages" else text

    param = None if error.param is None else renamed(error.param)
    return APIError(error.status, renamed(error.message), param, error.code)
