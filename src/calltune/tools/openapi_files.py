"""OpenAPI documents as files: JSON or YAML, with the files beside them that they refer to.

Everything becomes one document, in which references are pointers: what stands in another file, or
is named by `$id` or `$anchor`, is referred to by where it stands.

Source: YAML 1.2.2, core schema (chapter 10.3); OpenAPI 3.1, chapters on relative references and
base URIs.
"""

import copy
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

from calltune.errors import DataError
from calltune.files import read_json
from calltune.schemas import references
from calltune.schemas.references import ReferenceIndex, part_at, references_in, to_reference
from calltune.schemas.tools import UnusableRow, check_json
from calltune.types import Json

_YAML = (".yaml", ".yml")
_MAX_VALUES = 2_000_000
"""More than any document has; nested aliases expand a few lines to more."""
_MAX_FILES = 2_000
_OTHER_FILES = "x-files"
"""The member of the whole document under which other files stand, by their relative names."""
_CORE_SCHEMA = (
    ("null", "~|null|Null|NULL|", "~nN\0"),
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", "<<", "<"),
)
"""By tag, the plain scalars that have it, and their first characters; all others are text."""


def read_document(path: Path) -> Json:
    """The document in a `.yaml` or `.yml` file, or in a JSON file of any other name.

    YAML is 1.2, in which dates, times and words such as `on` and `no` are text.

    Raises:
        DataError: no such file, neither JSON nor YAML, or too many values.
    """
    try:
        return check_json(_plain_yaml(path) if path.suffix.lower() in _YAML else read_json(path))
    except UnusableRow as fault:
        raise DataError(f"{path} cannot be read ({fault}); fix it") from None


def read_whole_document(path: Path) -> Json:
    """The document in a file, with the files that it refers to by relative addresses.

    A file that is not there, or cannot be read, is left out: references to it lead nowhere.

    Raises:
        DataError: as `read_document`; not for the other files.
    """
    root = read_document(path)
    return _Bundle(root, path).whole() if isinstance(root, dict) else root


def with_pointers(root: dict[str, Json]) -> dict[str, Json]:
    """A document whose references are all pointers; `root` itself where they are."""
    if all(each.startswith("#/") for _, each in references_in(root)) and not _has_bases(root):
        return root
    return _Bundle(copy.deepcopy(root), None).whole()


def _has_bases(root: Json) -> bool:
    waiting: list[Json] = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$id"), str):
                return True
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return False


class _Bundle:
    """A document and the files that it refers to, to be made one. Its parts are changed."""

    def __init__(self, root: dict[str, Json], path: Path | None) -> None:
        self._root = root
        self._folder = path.resolve().parent if path else None
        self._places: dict[Path, references.Path] = {path.resolve(): ()} if path else {}
        """By file, where it stands in the whole document."""
        self._indexes: dict[references.Path, ReferenceIndex] = {(): ReferenceIndex(root)}
        self._files: dict[str, Json] = {}

    def whole(self) -> dict[str, Json]:
        waiting: list[tuple[references.Path, Path | None, Json]] = [
            ((), next(iter(self._places), None), self._root)
        ]
        while waiting:
            place, path, document = waiting.pop()
            known = len(self._places)
            for where, reference in list(references_in(document)):
                target = self._target(reference, where, place, path)
                if target is not None:
                    part_at(document, where)["$ref"] = to_reference(target)
            new = list(self._places.items())[known:]
            waiting += [(at, file, self._files[str(at[1])]) for file, at in new]
        return self._root | {_OTHER_FILES: self._files} if self._files else self._root

    def _target(
        self, reference: str, where: references.Path, place: references.Path, path: Path | None
    ) -> references.Path | None:
        """The path in the whole document; None where the reference leads out of it."""
        found = self._indexes[place].follow(reference, where)
        if found is not None:
            return (*place, *found)
        address, fragment = urldefrag(reference)
        if path is None or not address or urlsplit(address).scheme or address.startswith("/"):
            return None
        other = self._opened((path.parent / unquote(address)).resolve())
        if other is None:
            return None
        found = self._indexes[other].follow(f"#{fragment}", ())
        return None if found is None else (*other, *found)

    def _opened(self, path: Path) -> references.Path | None:
        if path in self._places:
            return self._places[path]
        if self._folder is None or not path.is_file() or len(self._places) >= _MAX_FILES:
            return None
        try:
            document = read_document(path)
        except DataError:
            return None
        is_below = path.is_relative_to(self._folder)
        name = (path.relative_to(self._folder) if is_below else path).as_posix()
        self._files[name] = document
        self._places[path] = place = (_OTHER_FILES, name)
        self._indexes[place] = ReferenceIndex(document)
        return place


def _plain_yaml(path: Path) -> Json:
    import yaml

    if not path.is_file():
        raise DataError(f"No file {path}; check the path")
    try:
        return _YAMLToJSON().value(yaml.load(path.read_text("utf-8-sig"), _loader()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fault = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not YAML ({fault}); fix it") from None


def _loader() -> type[Any]:
    import yaml

    # The one in C is ten times as fast where PyYAML was built with it.
    base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """YAML 1.2 with its core schema; PyYAML's own is that of 1.1."""

        yaml_implicit_resolvers: dict[str, list[Any]] = {}

    for name, pattern, first in _CORE_SCHEMA:
        tag = f"tag:yaml.org,2002:{name}"
        letters = ["" if letter == "\0" else letter for letter in first]
        Loader.add_implicit_resolver(tag, re.compile(f"({pattern})$"), letters)
    Loader.add_constructor("tag:yaml.org,2002:int", _integer)
    Loader.add_constructor("tag:yaml.org,2002:float", _number)
    return Loader


def _integer(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


def _number(loader: Any, node: Any) -> float:
    return float(
        loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
    )


class _YAMLToJSON:
    """Converts YAML's values to JSON's, and counts them."""

    def __init__(self) -> None:
        self._n_values = 0

    def value(self, found: Any) -> Json:
        """The value with text as keys, and with text for what JSON does not have."""
        self._n_values += 1
        if self._n_values > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES:,} values")
        if isinstance(found, dict):
            return {self._key(key): self.value(item) for key, item in found.items()}
        if isinstance(found, list | tuple | set):
            return [self.value(item) for item in found]
        if isinstance(found, float) and not math.isfinite(found):
            return str(found)
        is_json = found is None or isinstance(found, str | int | float | bool)
        return found if is_json else str(found)

    def _key(self, key: Any) -> str:
        if key is None or isinstance(key, bool):
            return {None: "null", True: "true", False: "false"}[key]
        return str(key)
