"""Request models: the body of OpenAI's chat completion request, checked field by field.

Source: https://platform.openai.com/docs/api-reference/chat/create. Other servers' spellings become
these in `request_spellings`, which also refuses fields that would change the answer and are not
supported; other unknown fields are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from calltune.files import dumps
from calltune.types import Json

MAX_ANSWERS = 16
MAX_STOPS = 4
MAX_STOP_LENGTH = 200
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Where a part of a message's content has its text, by the type of the part."""
_SKIPPED_PARTS = ("thinking", "redacted_thinking", "reasoning")
"""Thoughts of other models, which prompts have no place for."""
_CONTENT_SCHEMA: dict[str, Json] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"enum": list(_TEXT_KEYS)}, "text": {"type": "string"}},
                "required": ["type"],
            },
        },
        {"type": "null"},
    ]
}

Object = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


def _text(content: Json) -> Json:
    """Content as text; its parts are joined."""
    if not isinstance(content, list):
        return content
    return "".join(_part_text(part, index) for index, part in enumerate(content))


def _part_text(part: Json, index: int) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _SKIPPED_PARTS:
        return ""
    if not isinstance(kind, str) or kind not in _TEXT_KEYS:
        raise PydanticCustomError(
            "content_part",
            "part {index} is of type {kind}; only text can be read here",
            {"index": index, "kind": f"{kind!r:.60}"},
        )
    text = part.get(_TEXT_KEYS[kind])
    if not isinstance(text, str):
        raise PydanticCustomError(
            "content_part",
            "part {index} has no {key}, which must be a string",
            {"index": index, "key": _TEXT_KEYS[kind]},
        )
    return text


def _answer_text(content: Json) -> Json:
    return "" if content is None else _text(content)


def _result_text(content: Json) -> Json:
    """A result as text: text and its parts as such, any other value as JSON."""
    if content is None:
        return ""
    if isinstance(content, list) and all(_is_part(part) for part in content):
        return _text(content)
    return content if isinstance(content, str) else dumps(content)


def _is_part(value: Json) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _arguments_text(arguments: Json) -> Json:
    """A call's arguments as text; some clients send the object itself, or null for none."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else dumps(arguments)


Content = Annotated[str, BeforeValidator(_text), WithJsonSchema(_CONTENT_SCHEMA)]
AnswerContent = Annotated[str, BeforeValidator(_answer_text), WithJsonSchema(_CONTENT_SCHEMA)]
ResultContent = Annotated[str, BeforeValidator(_result_text), WithJsonSchema({})]
ArgumentsText = Annotated[str, BeforeValidator(_arguments_text), WithJsonSchema({})]


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
    arguments: ArgumentsText = ""
    """A JSON object as text; other texts are shown to the model as they are."""


class CustomCall(_Strict):
    """A tool with free text for input that another model called earlier."""

    name: str
    input: ArgumentsText = ""


class CallMade(_Strict):
    """A call that the model made earlier."""

    id: str | None = None
    function: CalledFunction | None = None
    custom: CustomCall | None = None


class AssistantMessage(_Strict):
    """An earlier answer of the model: text, calls, or both."""

    role: Literal["assistant"]
    content: AnswerContent = ""
    refusal: str | None = None
    tool_calls: list[CallMade] | None = None
    function_call: CalledFunction | None = None
    """The predecessor of `tool_calls`: one call, without an id."""


class ToolMessage(_Strict):
    """The result of a call."""

    role: Literal["tool"]
    content: ResultContent = ""
    tool_call_id: str | None = None
    """Without an id it is the result of the next call that has none yet."""


class FunctionMessage(_Strict):
    """The result of a `function_call`."""

    role: Literal["function"]
    name: str
    content: ResultContent = ""


AnyMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage,
    Field(discriminator="role"),
]


class Function(_Strict):
    """A function that the model may call."""

    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: Object | None = None
    """A JSON Schema."""
    strict: bool | None = None
    """Whether to refuse a schema that a grammar cannot enforce completely."""


class OfferedTool(_Strict):
    """A tool that the model may use; functions are the only kind."""

    type: Literal["function"] = "function"
    function: Function


class FunctionName(_Strict):
    """A function by name."""

    name: str


class NamedChoice(_Strict):
    """A choice of tool: this function must be called."""

    type: Literal["function"] = "function"
    function: FunctionName


class AllowedTools(_Strict):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"] = "auto"
    tools: list[NamedChoice]


class AllowedChoice(_Strict):
    """A choice of tool: these alone may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


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
    schema_: Object = Field(alias="schema")
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
    tool_choice: (
        Literal["none", "auto", "required"]
        | Annotated[NamedChoice | AllowedChoice, Field(discriminator="type")]
        | None
    ) = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    """The predecessor of `tools`; calls are then answered as `function_call`."""
    function_call: Literal["none", "auto"] | FunctionName | None = None
    """The predecessor of `tool_choice`."""
    response_format: (
        Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None
    ) = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(max_length=MAX_STOP_LENGTH)]
        | Annotated[
            list[Annotated[str, Field(max_length=MAX_STOP_LENGTH)]],
            Field(max_length=MAX_STOPS),
        ]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Only values without effect are supported for these; see `request_spellings`.
    modalities: list[Literal["text"]] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: Annotated[Object, Field(max_length=0)] | None = None

    @property
    def offers(self) -> list[Function]:
        """The functions in either spelling."""
        return [*(tool.function for tool in self.tools or ()), *(self.functions or ())]

    @property
    def is_older_spelling(self) -> bool:
        """Whether calls are to be answered as `function_call`."""
        return bool(self.functions)
