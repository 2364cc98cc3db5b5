"""References between schemas: JSON pointers, identifiers and anchors, followed within a document.

Source: RFC 6901 (pointers), RFC 3986 (how references are joined to a base), JSON Schema draft
2020-12, core, chapters 8 and 9 (`$id`, `$anchor`, `$dynamicAnchor`), and the drafts before it,
which write `id`, and an anchor as the identifier `#name`.
"""

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

from calltune.schemas.keywords import HOLD_DATA, HOLD_LIST, HOLD_MAP, HOLD_ONE
from calltune.types import Json

Path = tuple[str | int, ...]
"""Where a part of a document stands: the keys and indexes that lead to it."""


def resolve_pointer(reference: str, root: Json) -> Json:
    """What a reference within a document points at, such as `#/$defs/a` (RFC 6901).

    None where the reference leads to nothing, or out of the document, or is the name of an anchor.
    `referencing` does the same for sound documents; in broken ones it indexes into strings and
    raises what Python raises.
    """
    if not reference.startswith("#"):
        return None
    path = pointer_path(reference[1:], root)
    return None if path is None else part_at(root, path)


def pointer_path(pointer: str, root: Json, start: Path = ()) -> Path | None:
    """The path of what a pointer such as `/$defs/a` leads to from `start`; None for nothing."""
    if pointer and not pointer.startswith("/"):
        return None
    found, path = part_at(root, start), start
    for token in pointer.split("/")[1:]:
        key = unquote(token).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found, path = found[key], (*path, key)
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found, path = found[int(key)], (*path, int(key))
        else:
            return None
    return path


def part_at(root: Json, path: Path) -> Json:
    """The part of a document at a path that is there."""
    for key in path:
        root = root[key]
    return root


def to_reference(path: Path) -> str:
    """The reference that points at a path."""
    return "#" + "".join(
        "/" + str(key).replace("~", "~0").replace("/", "~1").replace("%", "%25") for key in path
    )


class _Identified(NamedTuple):
    """The bases and anchors of a document."""

    paths: dict[str, Path]
    """By address, where what it names stands; an anchor's address ends in `#name`."""
    bases: dict[Path, str]
    """By path, the address that references in it are joined to."""
    dynamic: dict[str, list[Path]]


class ReferenceIndex:
    """What the references in a document lead to."""

    def __init__(self, root: Json, draft: int | None = None) -> None:
        """Look for identifiers everywhere in `root`; `draft` is the one that it declares."""
        self._root = root
        self._is_ancient = draft is not None and draft <= 4

    @property
    def dynamic(self) -> dict[str, list[Path]]:
        """By name, where `$dynamicAnchor` stands."""
        return self._identified.dynamic

    @cached_property
    def _identified(self) -> _Identified:
        # Most schemas have no reference, and need none of it.
        return self._identify()

    def follow(self, reference: str, at: Path) -> Path | None:
        """The path of what a reference at a path leads to; None if that is not in the document."""
        base = self._base(at)
        try:
            address, fragment = urldefrag(_joined(base, reference))
        except ValueError:
            return None
        paths = self._identified.paths
        start = paths.get(address)
        if start is None and fragment and not fragment.startswith("/"):
            return paths.get(f"{address}#{fragment}")
        if start is None:
            return None
        if fragment and not fragment.startswith("/"):
            return paths.get(f"{address}#{unquote(fragment)}")
        return pointer_path(fragment, self._root, start)

    def _base(self, at: Path) -> str:
        bases = self._identified.bases
        for length in range(len(at), -1, -1):
            if at[:length] in bases:
                return bases[at[:length]]
        return ""

    def _identify(self) -> _Identified:
        found = _Identified({"": ()}, {(): ""}, {})
        waiting: list[tuple[Path, Json, str]] = [((), self._root, "")]
        while waiting:
            path, part, base = waiting.pop()
            if isinstance(part, dict):
                base = self._enter(path, part, base, found)
            waiting.extend((where, child, base) for where, child in _children(path, part))
        return found

    def _enter(self, path: Path, part: dict[str, Json], base: str, found: _Identified) -> str:
        """Add what a schema is called; the base for references in it."""
        name = part.get("$id")
        if self._is_ancient or not isinstance(name, str):
            name = part.get("id")
            # Newer drafts do not know it: it may be an anchor, and is no new base.
            if isinstance(name, str) and not self._is_ancient and not name.startswith("#"):
                found.paths.setdefault(name, path)
                name = None
        if isinstance(name, str):
            try:
                address, fragment = urldefrag(_joined(base, name))
            except ValueError:
                address, fragment = base, ""
            if fragment:
                found.paths.setdefault(f"{address}#{unquote(fragment)}", path)
            if address != base:
                base = address
                found.bases[path] = base
                found.paths.setdefault(base, path)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(anchor := part.get(keyword), str):
                found.paths.setdefault(f"{base}#{anchor}", path)
                if keyword == "$dynamicAnchor":
                    found.dynamic.setdefault(anchor, []).append(path)
        return base


def references_in(part: Json) -> Iterator[tuple[Path, str]]:
    """Each reference in a part of a document, with the path in it of the object that has it."""
    waiting: list[tuple[Path, Json]] = [((), part)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, dict) and isinstance(reference := each.get("$ref"), str):
            yield path, reference
        waiting.extend(_children(path, each))


def _children(path: Path, part: Json) -> Iterator[tuple[Path, Json]]:
    """The parts directly in a part that may be schemas or hold some; data is none."""
    if isinstance(part, list):
        for index, item in enumerate(part):
            yield (*path, index), item
    elif isinstance(part, dict):
        for key, value in part.items():
            if key in HOLD_MAP and isinstance(value, dict):
                # Its keys are names, whatever they look like.
                for name, item in value.items():
                    yield (*path, key, name), item
            elif key not in HOLD_DATA and isinstance(value, dict | list):
                yield (*path, key), value


def _joined(base: str, reference: str) -> str:
    # `urljoin` knows no relative references for schemes like urn.
    return (
        urldefrag(base).url + reference if reference.startswith("#") else urljoin(base, reference)
    )


def is_place_of_schema(path: Path) -> bool:
    """Whether a path leads through keywords that hold schemas alone."""
    keys = list(path)
    while keys:
        key = keys.pop(0)
        if key in HOLD_LIST or key in HOLD_MAP or key == "dependencies":
            if not keys:
                return False
            keys.pop(0)
        elif key == "items" and keys and isinstance(keys[0], int):
            keys.pop(0)
        elif key not in HOLD_ONE:
            return False
    return True


def without_references(schema: Json, lost: Collection[Path], path: Path) -> Json:
    """A copy of the schema without the references that stand at the paths in `lost`."""
    if isinstance(schema, list):
        return [without_references(each, lost, (*path, i)) for i, each in enumerate(schema)]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_references(value, lost, (*path, key))
        for key, value in schema.items()
        if not (key == "$ref" and path in lost)
    }


def place(path: Path) -> str:
    """A path as people read it, such as `properties/city/type`."""
    return "/".join(map(str, path))
