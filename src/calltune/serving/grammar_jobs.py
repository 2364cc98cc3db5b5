"""Jobs on untrusted schemas: compile tools into a grammar, or validate a value.

They run in the processes of `grammar_worker`; requests and results travel as lines of JSON.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from calltune.errors import UnusableSchema
from calltune.files import dumps
from calltune.formats import FORMATS
from calltune.formats.grammar import THE_ANSWER, Grammar, OutputSpec
from calltune.schemas.lark import TooLarge
from calltune.schemas.repair import repair_any_schema
from calltune.schemas.validate import satisfies
from calltune.types import Json, Tool

STOPPED_LINE = dumps(None)
"""The result line of a job that had to be stopped."""
_ANNOTATIONS = ("title", "description", "default")


class CompileRequest(NamedTuple):
    """The tools and the output of a chat request, to be compiled into a grammar."""

    prompt_format: str
    special_markers: tuple[str, ...]
    """The format's markers that are special tokens of the model's tokenizer."""
    tools: tuple[dict[str, Json], ...]
    """In any shape that `schemas.tool_shapes` knows."""
    output: OutputSpec
    is_strict: bool
    """Whether to refuse schemas that a grammar cannot enforce completely."""


class CompileResult(NamedTuple):
    """Tools whose names and schemas are usable, and the grammar of the answers."""

    tools: tuple[Tool, ...]
    original_names: dict[str, str]
    """The names in the request, by the name that the model is given."""
    grammar: Grammar | None
    """None for answers in free text."""


class CompileRefused(Exception):
    """The tools or a schema cannot be used; the message tells the client why."""


class CompileStopped(Exception):
    """Compilation took too much time or memory."""


def compile_grammar(request: CompileRequest) -> CompileResult:
    """Check the tools and build the grammar.

    Raises:
        CompileRefused: tools or a schema are invalid, too large, or not enforceable in a strict
            request.
    """
    from calltune.tools import from_openai

    # As `calltune tools`, `call` and `chat` read a list, so that the model is shown the same.
    toolset = from_openai(list(request.tools))
    output = request.output
    lost: list[str] = []
    if output.schema is not None:
        schema, remarks = repair_any_schema(output.schema)
        output = output._replace(schema=schema)
        lost = [f"{THE_ANSWER}: {remark}" for remark in remarks if remark.is_loss]
    names = {original: name for name, original in toolset.original_names.items()}
    lost += [f"{names.get(n.tool, n.tool)}: {n.text}" for n in toolset.notes if n.is_loss]
    if request.is_strict and lost:
        raise CompileRefused(f"strict needs sound schemas ({lost[0]}); correct it")
    schemas = [output.schema, *(tool.parameters for tool in toolset.tools)]
    for text in _literals(schemas):
        # An answer that must contain it would contain the special token, and end there.
        if marker := next((m for m in request.special_markers if m in text), None):
            raise CompileRefused(f"{marker} in a name or a value is a control token; leave it out")
    try:
        grammar = FORMATS[request.prompt_format].grammar(
            toolset.tools, (), frozenset(request.special_markers), output
        )
    except TooLarge:
        raise CompileRefused(
            "the schemas are too large together; offer fewer tools at once"
        ) from None
    except UnusableSchema as reason:
        raise CompileRefused(str(reason)) from None
    if request.is_strict and grammar.notes:
        raise CompileRefused(
            f"answers cannot be constrained to {grammar.notes[0]}; leave out strict"
        )
    _try_compile(grammar)
    grammar = grammar._replace(notes=(*lost, *grammar.notes))
    return CompileResult(toolset.tools, toolset.original_names, grammar)


def encode_compile(request: CompileRequest) -> str:
    """The line that asks for a compilation; equal for equal requests."""
    return dumps({"compile": [*request[:3], list(request.output), request.is_strict]})


def encode_validate(value: Json, schema: Json) -> str:
    """The line that asks whether a value satisfies a schema."""
    return dumps({"validate": [value, schema]})


def decode_compiled(line: bytes) -> CompileResult:
    """The result in the line that answers `encode_compile`.

    Raises:
        CompileRefused: the request was refused.
        CompileStopped: it took too much time or memory.
    """
    data = json.loads(line)
    if data is None:
        raise CompileStopped
    if "refused" in data:
        raise CompileRefused(data["refused"])
    tools = tuple(Tool(*each) for each in data["tools"])
    return CompileResult(tools, data["names"], Grammar(data["grammar"], tuple(data["notes"])))


def decode_valid(line: bytes) -> bool:
    """The result in the line that answers `encode_validate`; False if the job was stopped."""
    return json.loads(line) is True


def warm_up() -> None:
    """Import and build what jobs need, by running one for each format with most of JSON Schema."""
    properties: dict[str, Json] = {
        kind: {"type": kind}
        for kind in ("string", "integer", "number", "boolean", "array", "object", "null")
    }
    properties |= {
        "choice": {"enum": ["a", 1]},
        "either": {"anyOf": [{"type": "string", "pattern": "^a+$"}, {"$ref": "#/$defs/few"}]},
        "range": {"type": "integer", "minimum": 1, "maximum": 9},
    }
    few: Json = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 2}
    schema: Json = {"type": "object", "properties": properties, "$defs": {"few": few}}
    tool: dict[str, Json] = {"name": "any", "description": "", "parameters": schema}
    for prompt_format in FORMATS:
        run_job(encode_compile(CompileRequest(prompt_format, (), (tool,), OutputSpec(), False)))
    run_job(encode_validate({"string": "a"}, schema))


def run_job(line: str) -> str:
    """The result line of a request line of either kind."""
    return dumps(_run(json.loads(line)))


def _run(job: dict[str, Any]) -> Json:
    if "validate" in job:
        value, schema = job["validate"]
        return satisfies(value, repair_any_schema(schema).schema)
    prompt_format, special_markers, tools, output, is_strict = job["compile"]
    request = CompileRequest(
        prompt_format, tuple(special_markers), tuple(tools), OutputSpec(*output), is_strict
    )
    try:
        result = compile_grammar(request)
    except CompileRefused as reason:
        return {"refused": str(reason)}
    except (MemoryError, RecursionError):
        return {"refused": "they take too much memory to be compiled"}
    assert result.grammar is not None
    listed: list[Json] = [
        [tool.name, tool.description, tool.parameters, tool.raw] for tool in result.tools
    ]
    return {
        "tools": listed,
        "names": dict(result.original_names),
        "grammar": result.grammar.text,
        "notes": list(result.grammar.notes),
    }


def _literals(schema: Json) -> Iterator[str]:
    """Names and values in a schema that answers may have to contain; no descriptions."""
    if isinstance(schema, str):
        yield schema
    elif isinstance(schema, list):
        for part in schema:
            yield from _literals(part)
    elif isinstance(schema, dict):
        for key, part in schema.items():
            if not (key in _ANNOTATIONS and isinstance(part, str)):
                yield key
                yield from _literals(part)


def _try_compile(grammar: Grammar) -> None:
    """Compile a grammar with bytes for tokens, which finds most errors and most of the cost.

    Raises:
        CompileRefused: llguidance does not accept it.
    """
    from llguidance import LLMatcher, LLTokenizer

    global _byte_tokenizer
    if _byte_tokenizer is None:
        _byte_tokenizer = LLTokenizer("byte")
    matcher = LLMatcher(_byte_tokenizer, grammar.text, log_level=0)
    matcher.compute_bitmask()
    if matcher.is_error():
        raise CompileRefused(f"the schemas cannot be compiled ({matcher.get_error()[:200]})")


_byte_tokenizer: Any = None
