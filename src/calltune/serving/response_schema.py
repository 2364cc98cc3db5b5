"""Response models: OpenAI's chat completion, stream chunk, response, model list and error objects.

Sources: https://platform.openai.com/docs/api-reference/chat/object, …/chat/streaming,
…/models/object and https://platform.openai.com/docs/guides/error-codes. The OpenAPI document is
made from these models. Fields that are not set are not sent: see `to_json`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from calltune.types import Json

Count = Annotated[int, Field(ge=0)]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True)


def to_json(response: _Response) -> dict[str, Json]:
    """A response as JSON, with the fields that were set and no others."""
    data: dict[str, Json] = response.model_dump(exclude_unset=True)
    return data


class FunctionCall(_Response):
    """A function that the model calls."""

    name: str
    arguments: str
    """A JSON object as text."""


class FunctionToolCall(_Response):
    """A call in a message."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ReplyMessage(_Response):
    """The message of one answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: Annotated[list[FunctionToolCall], Field(min_length=1)] | None = None
    function_call: FunctionCall | None = None
    """The call, where the request offered `functions` in place of `tools`."""


class Note(_Response):
    """Why a call, or an answer of a schema, is in `content` as text: it breaks its schema."""

    type: Literal["call_off_schema", "answer_off_schema"]
    message: str


class Choice(_Response):
    """One of the answers."""

    index: Count
    message: ReplyMessage
    logprobs: None
    finish_reason: FinishReason
    note: Note | None = None
    """calltune's own; only where there is something to say."""


class Usage(_Response):
    """Tokens read and generated for the whole request."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count


class ChatCompletion(_Response):
    """The response to a chat request that is not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: Count
    """Unix time in seconds."""
    model: str
    choices: Annotated[list[Choice], Field(min_length=1)]
    usage: Usage


class FunctionCallDelta(_Response):
    """A part of a function call: first the name, then the arguments."""

    name: str | None = None
    arguments: str


class ToolCallDelta(_Response):
    """A part of the call with this index; id and type come with the first part."""

    index: Count
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCallDelta


class Delta(_Response):
    """What a chunk adds to an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionCallDelta | None = None


class ChunkChoice(_Response):
    """A chunk's part of one answer."""

    index: Count
    delta: Delta
    logprobs: None
    finish_reason: FinishReason | None
    note: Note | None = None
    """As in `Choice`, in the last chunk of an answer."""


class ChatCompletionChunk(_Response):
    """One server-sent event of a streamed response."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Count
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None


class OutputText(_Response):
    """Text in an output message."""

    type: Literal["output_text"]
    text: str
    annotations: list[Json]
    logprobs: list[Json]


class OutputMessage(_Response):
    """An output item: text."""

    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]


class OutputCall(_Response):
    """An output item: a call. `call_id` is what its result refers to."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    """A JSON object as text."""


class InputTokens(_Response):
    """More about the tokens read."""

    cached_tokens: Count


class OutputTokens(_Response):
    """More about the tokens generated."""

    reasoning_tokens: Count


class ResponseUsage(_Response):
    """Tokens read and generated, as the Responses API names them."""

    input_tokens: Count
    input_tokens_details: InputTokens
    output_tokens: Count
    output_tokens_details: OutputTokens
    total_tokens: Count


class IncompleteDetails(_Response):
    """Why an answer is incomplete."""

    reason: Literal["max_output_tokens"]


class ResponseObject(_Response):
    """What `POST /v1/responses` answers; in a stream it comes with the first and last events.

    Source: https://platform.openai.com/docs/api-reference/responses/object
    """

    id: str
    object: Literal["response"]
    created_at: Count
    """Unix time in seconds."""
    status: Literal["in_progress", "completed", "incomplete"]
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, Json]
    model: str
    output: list[OutputMessage | OutputCall]
    parallel_tool_calls: bool
    previous_response_id: None
    store: Literal[False]
    """Responses cannot be fetched again; see `ItemStore` for what is kept for a while."""
    temperature: float
    text: dict[str, Json]
    tool_choice: Json
    tools: list[Json]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage | None
    note: Note | None = None
    """Why a call or an answer is returned as text."""


class ErrorDetail(_Response):
    """What is wrong with a request."""

    message: str
    type: str
    param: str | None
    """The field at fault."""
    code: str | None
    """An identifier for programs."""


class ErrorResponse(_Response):
    """The response to a request that cannot be answered."""

    error: ErrorDetail


class Model(_Response):
    """A model name that requests may give."""

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str


class ModelList(_Response):
    """All model names that requests may give."""

    object: Literal["list"]
    data: list[Model]


class Health(_Response):
    """Whether the engine runs."""

    status: Literal["ok", "failed"]
