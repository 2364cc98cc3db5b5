"""Toolsets: tools of any source under valid names and with valid schemas, and what was lost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from calltune.schemas.names import VALID_NAME, sanitize_names
from calltune.schemas.parameters import read_parameters
from calltune.types import Json, Tool, ToolCall

ORIGINAL_NAME = "x-original-name"
"""The key in tools.json for the original of a name that had to change; prompts do not show it."""


class Note(NamedTuple):
    """What could not be expressed in a tool, or was changed."""

    tool: str
    """The tool's original name; "" for the source as a whole."""
    text: str
    kind: str = ""
    """What many notes have in common, where `text` says more than that."""
    is_loss: bool = False
    """Whether arguments may be accepted that the tool was written to refuse."""


class ToolDraft(NamedTuple):
    """A tool as its source describes it, before its name and schema are made valid."""

    name: str
    description: str
    parameters: dict[str, Json]
    """In any form that `schemas.parameters` reads."""


@dataclass(frozen=True, slots=True)
class Toolset:
    """Tools that can be offered together: valid names, no two alike, and valid schemas."""

    tools: tuple[Tool, ...]
    notes: tuple[Note, ...]
    original_names: dict[str, str]
    """By each tool's name here, its name in its source; in the order of `tools`."""

    def original_call(self, call: ToolCall) -> ToolCall:
        """The call under the name that the tool has in its source."""
        return replace(call, name=self.original_names.get(call.name, call.name))

    def to_json(self) -> list[Json]:
        """OpenAI's list of tools, with the original beside each name that had to change."""
        return [
            {"type": "function", "function": tool.raw}
            | ({ORIGINAL_NAME: original} if original != tool.name else {})
            for tool, original in zip(self.tools, self.original_names.values(), strict=True)
        ]


def build_toolset(drafts: Iterable[ToolDraft], notes: Iterable[Note]) -> Toolset:
    """The toolset of `drafts`, their names and schemas made valid; equal drafts are kept once.

    Its notes are `notes` and what had to be changed.
    """
    all_notes = dict.fromkeys(notes)
    distinct: list[ToolDraft] = []
    for draft in drafts:
        if draft in distinct:
            all_notes[Note(draft.name, "offered twice; kept once")] = None
        else:
            distinct.append(draft)
    tools = []
    for draft, name in zip(
        distinct, sanitize_names([draft.name for draft in distinct]), strict=True
    ):
        tool, remarks = _tool(draft, name)
        tools.append(tool)
        all_notes.update(dict.fromkeys(remarks))
    originals = {tool.name: draft.name for tool, draft in zip(tools, distinct, strict=True)}
    return Toolset(tuple(tools), tuple(all_notes), originals)


def merge_toolsets(toolsets: Sequence[Toolset]) -> Toolset:
    """One toolset of several; names that clash are made again from their originals."""
    all_drafts = [draft for each in toolsets for draft in tool_drafts(each)]
    return build_toolset(all_drafts, [note for each in toolsets for note in each.notes])


def tool_drafts(toolset: Toolset) -> list[ToolDraft]:
    """The tools of a set under their original names, in order."""
    return [
        ToolDraft(toolset.original_names[tool.name], tool.description, tool.parameters)
        for tool in toolset.tools
    ]


def _tool(draft: ToolDraft, name: str) -> tuple[Tool, list[Note]]:
    schema, remarks = read_parameters(draft.parameters)
    notes = [Note(draft.name, str(each), each.kind, each.is_loss) for each in remarks]
    if name != draft.name:
        why = "its name is taken" if VALID_NAME.fullmatch(draft.name) else "its name is not valid"
        text = f"called {name} here: {why}"
        notes.append(Note(draft.name, text, f"called by another name here: {why}"))
    written = {"name": name, "description": draft.description, "parameters": schema}
    return Tool(name, draft.description, schema, written), notes
