"""Splits: which rows go to train, valid and test, and which test tools training has not seen."""

import hashlib
import json
import random
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from calltune.files import dumps
from calltune.schemas.keywords import map_all_objects
from calltune.types import Example, Json, Tool, reference_call

Item = TypeVar("Item")

SPLIT_NAMES = ("train", "valid", "test")


class Ratios(NamedTuple):
    """The share of the rows that each split gets, from 0 to 1; they add up to 1."""

    train: float
    valid: float
    test: float


def split_sizes(count: int, ratios: Ratios) -> dict[str, int]:
    """How many of `count` rows each split should get; at least 1 of valid and test if not 0."""
    valid, test = (max(1, round(count * r)) if r > 0 else 0 for r in (ratios.valid, ratios.test))
    if ratios.train == 0:
        # Nothing is left over for training.
        valid, test = (count - test, test) if ratios.valid > 0 else (0, count)
    return {"train": count - valid - test, "valid": valid, "test": test}


def group_by_key(items: Sequence[Item], keys: Sequence[Hashable]) -> list[list[Item]]:
    """Groups of items with equal keys, in order of first appearance."""
    groups: dict[Hashable, list[Item]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def connected_groups(
    items: Sequence[Item], members: Sequence[Sequence[Hashable]]
) -> list[list[Item]]:
    """Groups of items that share members, directly or through others: the connected components.

    members[i] are the members of items[i], for example the names of its tools.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(member: Hashable) -> Hashable:
        parent.setdefault(member, member)
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for names in members:
        for name in names[1:]:
            parent[root(name)] = root(names[0])
    # An item without members is alone with itself.
    keys = [root(names[0]) if names else ("", i) for i, names in enumerate(members)]
    return group_by_key(items, keys)


def conversation_keys(examples: Sequence[Example]) -> list[list[str]]:
    """For each example, a key of itself and of each example that its history goes on from.

    Two rows of which one's messages begin with the other's messages and answer have a key in
    common: in some datasets every turn is a row, with the turns before it.
    """
    return [_history_keys(example) for example in examples]


def _history_keys(example: Example) -> list[str]:
    state = _digest("", [tool.raw for tool in example.tools])
    keys = []
    for message in example.messages:
        calls = [[call.name, call.arguments] for call in message.calls]
        if message.role == "assistant":
            keys.append(_digest(state, calls))
        state = _digest(state, [message.role, message.content, calls])
    answered = [reference_call(answer, example.query) for answer in example.answers]
    keys.append(_digest(state, [[call.name, call.arguments] for call in answered]))
    return keys


def _digest(state: str, value: Json) -> str:
    return hashlib.sha256(f"{state}{dumps(value)}".encode()).hexdigest()


def assign_groups(
    groups: Sequence[Sequence[Item]], sizes: dict[str, int], seed: int
) -> dict[str, list[Item]]:
    """Assign each whole group to the split that is furthest, in proportion, from its size.

    Larger groups are assigned first, equal ones in an order drawn from `seed`; a group that fits
    nowhere goes to train (to the largest split, where there is no training set). A split that would
    stay empty gets the smallest group of that one. The splits have the sizes in `sizes` if all
    groups have one item.
    """
    largest = "train" if sizes.get("train") else max(sizes, key=lambda name: sizes[name])
    shuffled = list(groups)
    random.Random(seed).shuffle(shuffled)
    shuffled.sort(key=len, reverse=True)
    parts: dict[str, list[Item]] = {name: [] for name in sizes}
    rest: list[Sequence[Item]] = []
    for group in shuffled:
        fitting = [n for n in sizes if sizes[n] - len(parts[n]) >= len(group)]
        lacking = {n: (sizes[n] - len(parts[n])) / sizes[n] for n in fitting}
        name = max(lacking, key=lambda n: lacking[n]) if lacking else largest
        parts[name].extend(group)
        if name == largest:
            rest.append(group)
    for name in sizes:
        if sizes[name] and not parts[name] and len(rest) > 1:
            parts[name].extend(rest.pop())
            parts[largest] = [item for group in rest for item in group]
    for part in parts.values():
        random.Random(seed).shuffle(part)
    return parts


def tool_identities(examples: Iterable[Example]) -> set[str]:
    """The identities of the tools that these examples offer, for `count_unseen_tools`."""
    return {_identity(tool) for example in examples for tool in example.tools}


def count_unseen_tools(example: Example, seen: set[str]) -> int:
    """How many of the tools that the example needs (of all, if it needs none) are not in `seen`."""
    needed = {answer.name for answer in example.answers}
    tools = [tool for tool in example.tools if not needed or tool.name in needed]
    return sum(_identity(tool) not in seen for tool in tools)


def _identity(tool: Tool) -> str:
    """A text that is equal for tools of one name and equal parameters, whatever their descriptions.

    Parameters are equal when they have the same names, types, defaults and other constraints, in
    any order, and the same ones are required.
    """
    return json.dumps([tool.name, _bare(tool.parameters)], sort_keys=True)


def _bare(schema: Json) -> Json:
    """The schema without titles and descriptions, and with `required` in order."""
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("title", "description")}
    if isinstance(required := kept.get("required"), list):
        kept["required"] = sorted(required)
    return map_all_objects(kept, _bare)
