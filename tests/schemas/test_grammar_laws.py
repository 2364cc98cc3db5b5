"""Law: what a schema admits its grammar admits, and no more, but for keywords that it names."""

import json
from itertools import permutations
from pathlib import Path

import pytest

from calltune.formats import FORMATS
from calltune.formats.grammar import ANY_CALLS, strictest
from calltune.schemas.lark import matcher_of_bytes
from calltune.schemas.validate import satisfies
from calltune.tools import from_openai
from calltune.types import Json, Tool, ToolCall

from support.schema_values import SchemaMaker, ValueMaker
from support.tiers import cases

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"
N_VALUES = 12


def compiled(text: str) -> object:
    matcher = matcher_of_bytes(text)
    return None if matcher.is_error() else matcher


class Checked:
    """One tool's schema, its grammar in a format, and values tried on both."""

    def __init__(self, tool: Tool, name: str) -> None:
        self.tool = tool
        self.format = FORMATS[name]
        found = strictest(self.format.grammar, [tool], frozenset(), ANY_CALLS, compiled)
        assert found is not None, tool.parameters
        self.notes = found.grammar.notes
        self._matcher = found.matcher

    def accepts(self, arguments: dict[str, Json]) -> bool:
        text = self.format.render_calls([ToolCall(self.tool.name, arguments)])
        matcher, data = self._matcher.deep_copy(), list(text.encode())
        return bool(matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting())

    def accepts_in_some_order(self, arguments: dict[str, Json]) -> bool:
        orders = permutations(arguments) if len(arguments) < 5 else [tuple(arguments)]
        return any(self.accepts({name: arguments[name] for name in order}) for order in orders)


def tool_of(parameters: dict[str, Json]) -> Tool:
    (tool,) = from_openai([{"name": "do", "parameters": parameters}]).tools
    return tool


@pytest.mark.both_tiers
@pytest.mark.parametrize("name", FORMATS)
def test_grammars_of_random_schemas_admit_the_values_that_these_admit(name: str) -> None:
    n_schemas, n_valid, n_invalid, n_noted = cases(25, 2_000), 0, 0, 0
    for seed in range(n_schemas):
        checked = Checked(tool_of(SchemaMaker(seed).parameters()), name)
        n_noted += bool(checked.notes)
        make = ValueMaker(checked.tool.parameters, seed)
        for _ in range(N_VALUES):
            arguments = make.arguments()
            if satisfies(arguments, checked.tool.parameters):
                n_valid += 1
                # What is left out makes a grammar wider, never narrower.
                assert checked.accepts_in_some_order(arguments), (
                    checked.tool.parameters,
                    arguments,
                )
            elif not checked.notes:
                n_invalid += 1
                assert not checked.accepts(arguments), (checked.tool.parameters, arguments)
    assert n_valid > 3 * n_schemas and n_invalid > n_schemas, (n_valid, n_invalid)
    assert n_noted < n_schemas // 4, n_noted


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("path", sorted(CASES.glob("*/*.json")), ids=lambda path: path.stem)
def test_grammars_of_peoples_schemas_admit_what_these_admit(path: Path, name: str) -> None:
    data = json.loads(path.read_text())
    tools = data.get("tools", []) if isinstance(data, dict) else data
    for tool in from_openai(tools).tools if tools else ():
        checked = Checked(tool, name)
        for seed in range(20):
            arguments = ValueMaker(tool.parameters, seed).arguments()
            if satisfies(arguments, tool.parameters):
                assert checked.accepts_in_some_order(arguments), (tool.parameters, arguments)
