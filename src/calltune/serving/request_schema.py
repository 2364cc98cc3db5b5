"""Request models: the body of OpenAI's chat completion request, checked field by field.

Source: https://platform.openai.com/docs/api-reference/chat/create. Fields that would change the
answer and are not supported are refused; other unknown fields are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_ANSWERS = 16
MAX_STOPS = 4
MAX_STOP_LENGTH = 200

Object = dict[str, Any]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.\-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class TextPart(_Strict):
    """A part of a message's content; images and audio are not supported."""

    type: Literal["text"]
    text: str


Content = str | list[TextPart]


class SystemMessage(_Strict):
    """Instructions to the model."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(_Strict):
    """A message of the user."""

    role: Literal["user"]
    content: Content


class CalledFunction(_Strict):
    """A function that the model called earlier."""

    name: str
    arguments: str
    """A JSON object as text."""


class CallMade(_Strict):
    """A call that the model made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(_Strict):
    """An earlier answer of the model: text or calls."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[CallMade] | None = None
    function_call: None = None
    """The predecessor of `tool_calls`; not supported."""


class ToolMessage(_Strict):
    """The result of a call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


AnyMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(_Strict):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: Object | None = None
    """A JSON Schema."""
    strict: bool | None = None
    """Whether to refuse a schema that a grammar cannot enforce completely."""


class OfferedTool(_Strict):
    """A tool that the model may use; functions are the only kind."""

    type: Literal["function"]
    function: Function


class FunctionName(_Strict):
    """A function by name."""

    name: str


class NamedChoice(_Strict):
    """A choice of tool: this function must be called."""

    type: Literal["function"]
    function: FunctionName


class TextFormat(_Strict):
    """Answers in free text."""

    type: Literal["text"]


class ObjectFormat(_Strict):
    """Answers that are a JSON object."""

    type: Literal["json_object"]


class NamedSchema(_Strict):
    """A JSON Schema with a name."""

    model_config = ConfigDict(strict=True, frozen=True, populate_by_name=True)

    name: str = "answer"
    description: str | None = None
    schema_: Object = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class SchemaFormat(_Strict):
    """Answers that are JSON and satisfy a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(_Strict):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatRequest(_Strict):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: Annotated[list[AnyMessage], Field(min_length=1)]
    tools: list[OfferedTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: (
        Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None
    ) = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]],
            Field(max_length=MAX_STOPS),
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Only values without effect are supported for these.
    functions: None = None
    function_call: None = None
    modalities: list[Literal["text"]] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    logit_bias: Annotated[Object, Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _named_tool_is_there(self) -> "ChatRequest":
        names = [tool.function.name for tool in self.tools or ()]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        if (
            isinstance(self.tool_choice, NamedChoice)
            and self.tool_choice.function.name not in names
        ):
            raise ValueError(
                f"tool_choice names {self.tool_choice.function.name}, which is not among the tools"
            )
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required, and there are no tools")
        return self
