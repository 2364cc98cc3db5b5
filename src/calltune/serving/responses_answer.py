"""Answers of OpenAI's Responses API: one response object, or a stream of its events.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

import secrets
import time
from collections.abc import AsyncGenerator, Iterator

from calltune.files import dumps
from calltune.serving.answer_parser import CompletedCall, Event, Finished, SchemaNote, TextDelta
from calltune.serving.answers import Answers
from calltune.serving.errors import APIError
from calltune.serving.response_schema import (
    IncompleteDetails,
    InputTokens,
    ItemStatus,
    Note,
    OutputCall,
    OutputMessage,
    OutputText,
    OutputTokens,
    ResponseObject,
    ResponseUsage,
    to_json,
)
from calltune.serving.responses import tool_call, within
from calltune.serving.responses_request import ItemStore, ResponsesQuery
from calltune.types import Json, ToolCall


class ResponseWriter:
    """Writes one response, whole or as a stream; its items are kept where that was asked for."""

    def __init__(self, query: ResponsesQuery, answers: Answers, items: ItemStore) -> None:
        """Nothing is generated before `whole` or `stream` is waited for."""
        self._query = query
        self._answers = answers
        self._items = items
        self._id = f"resp_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._output: list[OutputMessage | OutputCall] = []
        self._message_id: str | None = None
        """The id of the message that is being written, if one is."""
        self._text = ""
        self._is_cut = False
        self._note: SchemaNote | None = None
        self._n_events = 0

    async def whole(self, seconds: float) -> dict[str, Json]:
        """The response, once it is complete.

        Raises:
            APIError: the answer failed, or was not complete within `seconds`.
        """
        async for item in within(self._answers.events(), seconds):
            for _ in self._written(item.event):
                pass
        return self._finished()

    async def stream(self, seconds: float) -> AsyncGenerator[bytes, None]:
        """The response as server-sent events.

        Raises:
            APIError: as `whole`; see `error_events`.
        """
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress"))
        async for item in within(self._answers.events(), seconds):
            for event in self._written(item.event):
                yield event
        response = self._finished()
        yield self._event(f"response.{response['status']}", response=response)

    def error_events(self, error: APIError) -> bytes:
        """The end of a stream that an error broke off."""
        body = error.body()["error"]
        code = error.code or body["type"]
        return self._event("error", code=code, message=error.message, param=error.param, error=body)

    def _written(self, event: Event) -> Iterator[bytes]:
        """The events of the stream for one event of the answer."""
        match event:
            case TextDelta(text=text):
                yield from self._begin_message()
                self._text += text
                yield self._part_event("response.output_text.delta", delta=text, logprobs=[])
            case CompletedCall(call=call):
                yield from self._end_message("completed")
                yield from self._call(call)
            case Finished(reason=reason, note=note):
                self._is_cut, self._note = reason == "length", note
                if not self._output:
                    yield from self._begin_message()
                yield from self._end_message("incomplete" if self._is_cut else "completed")

    def _begin_message(self) -> Iterator[bytes]:
        if self._message_id is None:
            self._message_id, self._text = f"msg_{secrets.token_hex(12)}", ""
            item = to_json(self._message("in_progress"))
            yield self._item_event("response.output_item.added", item | {"content": []})
            yield self._part_event("response.content_part.added", part=self._part())

    def _end_message(self, status: ItemStatus) -> Iterator[bytes]:
        if self._message_id is not None:
            done = {"text": self._text, "logprobs": []}
            yield self._part_event("response.output_text.done", **done)
            yield self._part_event("response.content_part.done", part=self._part())
            message = self._message(status)
            yield self._item_event("response.output_item.done", to_json(message))
            self._output.append(message)
            self._message_id = None

    def _call(self, call: ToolCall) -> Iterator[bytes]:
        made = tool_call(call)
        item = OutputCall(
            id=f"fc_{secrets.token_hex(12)}",
            type="function_call",
            status="completed",
            call_id=made.id,
            name=call.name,
            arguments=made.function.arguments,
        )
        begun = to_json(item) | {"status": "in_progress", "arguments": ""}
        place = {"item_id": item.id, "output_index": len(self._output)}
        arguments = "response.function_call_arguments"
        yield self._item_event("response.output_item.added", begun)
        yield self._event(f"{arguments}.delta", **place, delta=item.arguments)
        yield self._event(f"{arguments}.done", **place, name=call.name, arguments=item.arguments)
        yield self._item_event("response.output_item.done", to_json(item))
        self._output.append(item)

    def _message(self, status: ItemStatus) -> OutputMessage:
        assert self._message_id is not None
        part = OutputText(type="output_text", text=self._text, annotations=[], logprobs=[])
        return OutputMessage(
            id=self._message_id, type="message", status=status, role="assistant", content=[part]
        )

    def _part(self) -> dict[str, Json]:
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}

    def _finished(self) -> dict[str, Json]:
        if self._query.request.store is not False:
            self._items.keep(to_json(item) for item in self._output)
        return self._response("incomplete" if self._is_cut else "completed")

    def _response(self, status: ItemStatus) -> dict[str, Json]:
        request = self._query.request
        text = request.text.format if request.text else None
        is_single = request.parallel_tool_calls is False
        details = IncompleteDetails(reason="max_output_tokens") if self._is_cut else None
        response = ResponseObject(
            id=self._id,
            object="response",
            created_at=self._created,
            status=status,
            error=None,
            incomplete_details=details,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            metadata=request.metadata or {},
            model=request.model,
            output=list(self._output),
            parallel_tool_calls=not is_single,
            previous_response_id=None,
            store=False,
            temperature=request.temperature or 0.0,
            text={"format": text or {"type": "text"}},
            tool_choice="auto" if request.tool_choice is None else request.tool_choice,
            tools=list(request.tools or ()),
            top_p=1.0 if request.top_p is None else request.top_p,
            truncation="disabled",
            usage=None if status == "in_progress" else self._usage(),
        )
        if self._note is not None:
            note = Note(type=self._note.type, message=self._note.message)
            response = response.model_copy(update={"note": note})
        return to_json(response)

    def _usage(self) -> ResponseUsage:
        usage = self._answers.usage
        return ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokens(cached_tokens=0),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokens(reasoning_tokens=0),
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        )

    def _part_event(self, kind: str, **fields: Json) -> bytes:
        place = {"item_id": self._message_id, "output_index": len(self._output)}
        return self._event(kind, **place, content_index=0, **fields)

    def _item_event(self, kind: str, item: Json) -> bytes:
        return self._event(kind, output_index=len(self._output), item=item)

    def _event(self, kind: str, **fields: Json) -> bytes:
        data = {"type": kind, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return f"event: {kind}\ndata: {dumps(data)}\n\n".encode()
