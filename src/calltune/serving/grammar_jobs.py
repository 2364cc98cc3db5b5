"""Jobs on untrusted schemas: compile tools into a grammar, or validate a value.

They run in the processes of `grammar_worker`; requests and results travel as lines of JSON.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from calltune.errors import UnusableSchema
from calltune.files import dumps
from calltune.formats import FORMATS
from calltune.formats.grammar import THE_ANSWER, Grammar, OutputSpec, strictest
from calltune.schemas.lark import matcher_of_bytes
from calltune.schemas.repair import repair_any_schema
from calltune.schemas.validate import satisfies
from calltune.types import Json, Tool

STOPPED_LINE = dumps(None)
"""The result line of a job that had to be stopped."""


class CompileRequest(NamedTuple):
    """The tools and the output of a chat request, to be compiled into a grammar."""

    prompt_format: str
    special_markers: tuple[str, ...]
    """The format's markers that are special tokens of the model's tokenizer."""
    tools: tuple[dict[str, Json], ...]
    """In any shape that `schemas.tool_shapes` knows."""
    output: OutputSpec
    strict: tuple[str, ...] = ()
    """The tools whose schemas are refused unless a grammar enforces all of them; `THE_ANSWER` among
    them is the answer's own schema."""
    is_loose: bool = False
    """Whether the arguments of tools may be any object, since their schemas take too long."""


class CompileResult(NamedTuple):
    """Tools whose names and schemas are usable, and the grammar of the answers."""

    tools: tuple[Tool, ...]
    original_names: dict[str, str]
    """The names in the request, by the name that the model is given."""
    grammar: Grammar | None
    """None for answers in free text."""
    schema: Json = None
    """The schema of the whole answer, repaired; None if it is calls or text."""


class CompileRefused(Exception):
    """The tools or a schema cannot be used; the message tells the client why."""


class CompileStopped(Exception):
    """Compilation took too much time or memory."""


def compile_grammar(request: CompileRequest) -> CompileResult:
    """Check the tools, and build the grammar that enforces as much of them as can be.

    Raises:
        CompileRefused: no answer is possible, or the client demands a schema that cannot be
            enforced.
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
    strict = {names.get(each, each) for each in request.strict}
    if wrong := _first_of(strict, lost):
        raise CompileRefused(f"strict needs sound schemas ({wrong}); correct it")
    grammar = _grammar(request, toolset.tools, output)
    if unenforced := _first_of(strict, grammar.notes):
        raise CompileRefused(f"answers cannot be constrained to {unenforced}; leave out strict")
    grammar = grammar._replace(notes=(*lost, *grammar.notes))
    return CompileResult(toolset.tools, toolset.original_names, grammar, output.schema)


def _grammar(request: CompileRequest, tools: Sequence[Tool], output: OutputSpec) -> Grammar:
    """The strictest grammar that compiles with bytes for tokens.

    Raises:
        CompileRefused: there is none, or no answer is possible.
    """
    make = FORMATS[request.prompt_format].grammar
    markers = frozenset(request.special_markers)
    try:
        if request.is_loose:
            found = strictest(make, tools, markers, output, _compiled, [t.name for t in tools])
        else:
            found = strictest(make, tools, markers, output, _compiled)
    except UnusableSchema as reason:
        raise CompileRefused(str(reason)) from None
    if found is None:
        raise CompileRefused("the schemas are too large together; offer fewer tools at once")
    return found.grammar


def _compiled(grammar: str) -> Any:
    matcher = matcher_of_bytes(grammar)
    return None if matcher.is_error() else matcher


def _first_of(subjects: Collection[str], notes: Sequence[str]) -> str | None:
    """The first note on one of these tools or schemas."""
    return next((note for note in notes if note.partition(": ")[0] in subjects), None)


def encode_compile(request: CompileRequest) -> str:
    """The line that asks for a compilation; equal for equal requests."""
    return dumps({"compile": [*request[:3], list(request.output), *request[4:]]})


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
    return CompileResult(
        tools, data["names"], Grammar(data["grammar"], tuple(data["notes"])), data["schema"]
    )


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
        run_job(encode_compile(CompileRequest(prompt_format, (), (tool,), OutputSpec())))
    run_job(encode_validate({"string": "a"}, schema))


def run_job(line: str) -> str:
    """The result line of a request line of either kind."""
    return dumps(_run(json.loads(line)))


def _run(job: dict[str, Any]) -> Json:
    if "validate" in job:
        value, schema = job["validate"]
        return satisfies(value, repair_any_schema(schema).schema)
    prompt_format, special_markers, tools, output, strict, is_loose = job["compile"]
    request = CompileRequest(
        prompt_format, tuple(special_markers), tuple(tools), OutputSpec(*output), strict, is_loose
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
        "schema": result.schema,
    }
