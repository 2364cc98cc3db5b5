"""Other spellings of chat requests, turned into OpenAI's before they are checked.

Other servers and older clients write the same wishes in other ways: JSON Schemas in `guided_json`,
tools in Anthropic's shape, `tool_choice: "any"`. What would change the answer and is not supported
is refused here in a sentence; values without effect are dropped.

Sources: https://platform.openai.com/docs/api-reference/chat/create;
https://docs.vllm.ai/en/latest/features/structured_outputs.html (`guided_json`,
`structured_outputs`); https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
(`json_schema`, `response_format.schema`); https://docs.ollama.com/api/chat (`format`);
https://docs.anthropic.com/en/api/messages (`any`).
"""

import json
from collections.abc import Mapping, Sequence

from calltune.schemas.tool_shapes import NotATool, find_tools
from calltune.serving.errors import APIError
from calltune.types import Json

_NEUTRAL: Mapping[str, Sequence[Json]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"], []),
    "audio": (),
    "web_search_options": (),
    "best_of": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "grammar": ("",),
    "guided_regex": ("",),
    "guided_choice": ([],),
    "guided_grammar": ("",),
}
"""Fields that are not supported, each with its values that have no effect; null is one of each."""
_NEUTRAL_WITHOUT_SAMPLING: Mapping[str, Sequence[Json]] = {"top_k": (0, -1), "min_p": (0,)}
"""The same, for fields that have no effect either on answers that are not sampled."""
_SCHEMA_FIELDS = ("guided_json", "json_schema", "format")
_SCHEMA_KEYS = ("schema", "value", "json_schema")
_CHOICES = {"any": "required", "required": "required", "auto": "auto", "none": "none"}


def standard_request(body: Mapping[str, Json]) -> dict[str, Json]:
    """The body of a chat request in OpenAI's spelling.

    Raises:
        APIError: a field would change the answer and is not supported, or two of them contradict
            each other (400).
    """
    if isinstance(more := body.get("extra_body"), dict):
        # OpenAI's Python client puts these beside the others; some send them as they are.
        body = {**more, **body}
    request = _without_neutral(body)
    if isinstance(tools := request.get("tools"), list):
        places = ((f"tools[{i}]", tool) for i, tool in enumerate(tools))
        request["tools"] = [each for place, tool in places for each in _tools(tool, place)]
    if request.get("tools") and request.get("functions"):
        raise APIError(
            400, "functions is the older spelling of tools; give one of them", "functions"
        )
    if request.get("tool_choice") is not None:
        request["tool_choice"] = _tool_choice(request["tool_choice"], request.get("tools"))
    output = _output(request)
    if output is not None:
        request["response_format"] = output
    return request


def _without_neutral(body: Mapping[str, Json]) -> dict[str, Json]:
    is_sampled = body.get("temperature") not in (None, 0) and body.get("top_p") != 0
    more = _NEUTRAL_WITHOUT_SAMPLING if is_sampled else {}
    unsupported = {**_NEUTRAL, **more}
    for field, neutral in unsupported.items():
        value = body.get(field)
        if value is not None and not any(_is_same(value, each) for each in neutral):
            raise APIError(400, f"{field} is not supported; leave it out", field)
    return {field: value for field, value in body.items() if field not in _NEUTRAL}


def _is_same(value: Json, other: Json) -> bool:
    # In Python False is 0, and True is 1.
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _tools(written: Json, place: str) -> list[Json]:
    """The tools in an item of the list, in any shape, as `{"type": "function", "function": {…}}`.

    What is none is left to the checks.
    """
    tools: list[Json] = []
    for found in find_tools(written):
        kind = written.get("type", "function") if isinstance(written, dict) else "function"
        # OpenAI's custom tools take free text, Anthropic's have parameters.
        if isinstance(found, NotATool) or (kind == "custom" and found.parameters is None):
            if kind == "function":
                return [written]
            raise APIError(
                400,
                f"{place}.type is {kind!r:.60}, and this server has no tools of its own",
                f"{place}.type",
            )
        strict = found.raw.get("strict", found.item.get("strict"))
        function = {"name": found.name, "parameters": found.parameters, "strict": strict}
        description = found.raw.get("description")
        tools.append({"type": "function", "function": function | {"description": description}})
    return tools


def _tool_choice(written: Json, tools: Json) -> Json:
    """`none`, `auto`, `required`, a named function, or some allowed ones."""
    if isinstance(written, str):
        functions = [tool.get("function") for tool in tools or () if isinstance(tool, dict)]
        names = [each.get("name") for each in functions if isinstance(each, dict)]
        if written in _CHOICES or written not in names:
            return _CHOICES.get(written, written)
        return _named(written)
    if not isinstance(written, dict):
        return written
    kind = written.get("type", "function")
    if kind == "allowed_tools":
        # The Responses API has mode and tools beside the type.
        allowed = written.get("allowed_tools", written)
        if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
            raise APIError(400, "tool_choice has no list of allowed tools", "tool_choice")
        tools = [_choice_of(tool) for tool in allowed["tools"]]
        mode = allowed.get("mode", "auto")
        return {"type": kind, "allowed_tools": {"mode": mode, "tools": tools}}
    if (
        isinstance(kind, str)
        and kind in _CHOICES
        and "name" not in written
        and "function" not in written
    ):
        return _CHOICES[kind]
    return _choice_of(written)


def _choice_of(written: Json) -> Json:
    """A function chosen by name, which some write beside the type, and some call a tool."""
    if not isinstance(written, dict):
        return _named(written) if isinstance(written, str) else written
    kind = written.get("type", "function")
    if isinstance(written.get("function"), dict):
        return {"type": kind, **written}
    if "name" in written and kind in ("function", "tool"):
        return _named(written["name"])
    raise APIError(
        400, f"tool_choice is of type {kind!r:.60}; give the name of a function", "tool_choice"
    )


def _named(name: Json) -> Json:
    return {"type": "function", "function": {"name": name}}


def _output(request: Mapping[str, Json]) -> Json:
    """The response format, wherever it was written; None where there is none.

    Raises:
        APIError: it is no JSON Schema, there is none where one is needed, or there are two (400).
    """
    given = {field: request[field] for field in _SCHEMA_FIELDS if request.get(field) is not None}
    options = request.get("structured_outputs")
    if options is not None:
        given |= _structured_outputs(options)
    if given.get("format") == "json":
        given["format"] = {"type": "object"}
    found = {field: _of_schema(_decoded(value, field), field) for field, value in given.items()}
    if request.get("response_format") is not None:
        standard = _response_format(request["response_format"])
        if standard != {"type": "text"} or not found:
            found["response_format"] = standard
    if len(found) > 1:
        first, second = list(found)[:2]
        raise APIError(400, f"{first} and {second} both say what the answer is; give one", first)
    return next(iter(found.values()), None)


def _structured_outputs(options: Json) -> dict[str, Json]:
    """The schema in vLLM's options for structured outputs."""
    field = "structured_outputs"
    if not isinstance(options, dict):
        raise APIError(400, f"{field} is not an object", field)
    other = [key for key in ("regex", "choice", "grammar", "structural_tag") if options.get(key)]
    if other:
        place = f"{field}.{other[0]}"
        raise APIError(400, f"{place} is not supported; {field}.json is", place)
    if options.get("json") is not None:
        return {f"{field}.json": options["json"]}
    return {f"{field}.json_object": {"type": "object"}} if options.get("json_object") else {}


def _response_format(written: Json) -> Json:
    """`text`, `json_object` or `json_schema` with the schema where OpenAI has it."""
    field = "response_format"
    if isinstance(written, str):
        written = {"type": written}
    if not isinstance(written, dict):
        return written
    match written.get("type"):
        case "json_object" | "json" | "text" as kind:
            # llama.cpp's server and others take a schema with json_object, TGI as its value.
            keys = [key for key in _SCHEMA_KEYS if written.get(key) is not None]
            if keys and kind == "text":
                text = f"{field}.type is 'text', and there is a schema; give json_schema"
                raise APIError(400, text, f"{field}.type")
            if keys == ["json_schema"]:
                return _response_format({**written, "type": "json_schema"})
            if keys:
                place = f"{field}.{keys[0]}"
                return _of_schema(_decoded(written[keys[0]], place), place, written)
        case "json_schema":
            # Beside the type in the Responses API, and in llama.cpp's server.
            named = written.get("json_schema", written)
            place = f"{field}.json_schema" if "json_schema" in written else field
            if not isinstance(named, dict):
                raise APIError(400, f"{place} is not an object", place)
            if "schema" not in named and ("properties" in named or "$ref" in named):
                return _of_schema(named, place)
            schema = _decoded(named.get("schema"), f"{place}.schema")
            return _of_schema(schema, f"{place}.schema", named)
    return written


def _of_schema(schema: Json, place: str, named: Mapping[str, Json] | None = None) -> Json:
    if schema is None:
        raise APIError(400, f"{place} is missing; give a JSON Schema", place)
    if not isinstance(schema, dict):
        raise APIError(400, f"{place} is not a JSON Schema, which is an object", place)
    kept = {key: (named or {}).get(key) for key in ("name", "description", "strict")}
    more = {key: value for key, value in kept.items() if value is not None}
    return {"type": "json_schema", "json_schema": more | {"schema": schema}}


def _decoded(schema: Json, place: str) -> Json:
    """The schema, which some clients send as JSON in a string."""
    if not isinstance(schema, str):
        return schema
    try:
        return json.loads(schema)
    except (ValueError, RecursionError):
        raise APIError(400, f"{place} is a string that is not JSON", place) from None
