"""A chat request as it comes: OpenAI's JSON, checked field by field.

Source: https://platform.openai.com/docs/api-reference/chat/create. Fields that would change the
answer and are not supported are refused; others that are not known are passed over.
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
    """A piece of a message's content; pictures and sound are not supported."""

    type: Literal["text"]
    text: str


Content = str | list[TextPart]


class SystemMessage(_Strict):
    """What the model is told before the conversation."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(_Strict):
    """What a user says."""

    role: Literal["user"]
    content: Content


class CalledFunction(_Strict):
    """A function that was called."""

    name: str
    arguments: str
    """A JSON object as text."""


class CallMade(_Strict):
    """A call that the model made before."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class AssistantMessage(_Strict):
    """What the model said or called before."""

    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[CallMade] | None = None
    function_call: None = None
    """What `tool_calls` was before; not supported."""


class ToolMessage(_Strict):
    """What a call gave."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


AnyMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(_Strict):
    """A function on offer."""

    name: Name
    description: str | None = None
    parameters: Object | None = None
    """A JSON Schema."""
    strict: bool | None = None
    """Refuse a schema that answers cannot be held to in all it says."""


class OfferedTool(_Strict):
    """A tool on offer; functions are the only kind."""

    type: Literal["function"]
    function: Function


class FunctionName(_Strict):
    """A function by name."""

    name: str


class NamedChoice(_Strict):
    """This function must be called."""

    type: Literal["function"]
    function: FunctionName


class TextFormat(_Strict):
    """Answers in words."""

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
    """What a stream tells beside the answer."""

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
    # Without effect in the only value that is supported.
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
                f"tool_choice names {self.tool_choice.function.name}, which is no tool"
            )
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required, and there are no tools")
        return self
