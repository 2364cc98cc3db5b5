"""Toolsets: tools of any source under valid names and with valid schemas, and what was lost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from calltune.schemas.names import VALID_NAME, sanitize_names
from calltune.schemas.validate import repair_schema
from calltune.types import Json, Tool, ToolCall

ORIGINAL_NAME = "x-original-name"
"""The key in tools.json for a name that had to be mapped; outside what prompts show."""


class Note(NamedTuple):
    """What could not be expressed."""

    tool: str
    """The tool's original name; "" where a whole source is meant."""
    text: str


class ToolDraft(NamedTuple):
    """A tool as its source names it."""

    name: str
    description: str
    parameters: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Toolset:
    """Tools that can be offered together."""

    tools: tuple[Tool, ...]
    notes: tuple[Note, ...]
    original_names: dict[str, str]
    """By the name of a tool here, its name where it came from; all tools are in it."""

    def original_call(self, call: ToolCall) -> ToolCall:
        """The call with the name that the function has where it came from."""
        return replace(call, name=self.original_names.get(call.name, call.name))

    def to_json(self) -> list[Json]:
        """OpenAI's list of tools; where a name was mapped, the original stands beside."""
        return [
            {"type": "function", "function": tool.raw}
            | ({ORIGINAL_NAME: original} if original != tool.name else {})
            for tool, original in zip(self.tools, self.original_names.values(), strict=True)
        ]


def build_toolset(drafts: Iterable[ToolDraft], notes: Iterable[Note]) -> Toolset:
    """The tools of `drafts`, each name carried and each schema accepted as one.

    The same draft twice is kept once. What had to be changed is added to `notes`.
    """
    told = dict.fromkeys(notes)
    once: list[ToolDraft] = []
    for draft in drafts:
        if draft in once:
            told[Note(draft.name, "offered twice; kept once")] = None
        else:
            once.append(draft)
    tools = []
    for draft, name in zip(once, sanitize_names([draft.name for draft in once]), strict=True):
        tool, remarks = _tool(draft, name)
        tools.append(tool)
        told.update(dict.fromkeys(remarks))
    names = {tool.name: draft.name for tool, draft in zip(tools, once, strict=True)}
    return Toolset(tuple(tools), tuple(told), names)


def merge_toolsets(toolsets: Sequence[Toolset]) -> Toolset:
    """The tools of all, named anew from their originals where two have one name."""
    every = [draft for each in toolsets for draft in drafts(each)]
    return build_toolset(every, [note for each in toolsets for note in each.notes])


def drafts(toolset: Toolset) -> list[ToolDraft]:
    """The tools of a set under their original names, in its order."""
    return [
        ToolDraft(toolset.original_names[tool.name], tool.description, tool.parameters)
        for tool in toolset.tools
    ]


def _tool(draft: ToolDraft, name: str) -> tuple[Tool, list[Note]]:
    schema, remarks = repair_schema(draft.parameters)
    notes = [Note(draft.name, remark) for remark in remarks]
    if name != draft.name:
        why = (
            "its name is taken"
            if VALID_NAME.fullmatch(draft.name)
            else "its name cannot be carried"
        )
        notes.append(Note(draft.name, f"called {name} here: {why}"))
    written = {"name": name, "description": draft.description, "parameters": schema}
    return Tool(name, draft.description, schema, written), notes
