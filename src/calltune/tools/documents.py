"""JSON or YAML documents, read into plain JSON."""

import re
from pathlib import Path
from typing import Any

from calltune.calls import Json
from calltune.errors import DataError
from calltune.jsonl import read_json
from calltune.sources.rows import Unusable, checked

_YAML = (".yaml", ".yml")
_BOOLEAN = re.compile("(true|True|TRUE|false|False|FALSE)$")
_MOST_VALUES = 2_000_000
"""More than any document has; aliases of aliases make more of a few lines."""


def read_document(path: Path) -> Json:
    """The document in a `.yaml` or `.yml` file, else in a JSON file.

    Dates and words such as `on` and `no` in YAML stay text, as in YAML 1.2.

    Raises:
        DataError: no such file, neither JSON nor YAML, or too much in it.
    """
    try:
        return checked(_plain_yaml(path) if path.suffix.lower() in _YAML else read_json(path))
    except Unusable as fault:
        raise DataError(f"{path} cannot be read ({fault}); mend it") from None


def _plain_yaml(path: Path) -> Json:
    import yaml

    if not path.is_file():
        raise DataError(f"No file {path}; check the path")
    try:
        return _Plain().value(yaml.load(path.read_text("utf-8-sig"), _loader()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        fault = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is not YAML ({fault}); mend it") from None


def _loader() -> type[Any]:
    import yaml

    # The one in C is ten times as fast where PyYAML was built with it.
    base: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """YAML whose plain words are text."""

        yaml_implicit_resolvers = {
            first: [
                (tag, _BOOLEAN if tag.endswith(":bool") else rule)
                for tag, rule in rules
                if not tag.endswith(":timestamp")
            ]
            for first, rules in base.yaml_implicit_resolvers.items()
        }

    return Loader


class _Plain:
    """YAML's values as JSON has them."""

    def __init__(self) -> None:
        self._n_values = 0

    def value(self, found: Any) -> Json:
        """`found` with text as keys, and with text for what JSON does not have."""
        self._n_values += 1
        if self._n_values > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values")
        if isinstance(found, dict):
            return {str(key): self.value(item) for key, item in found.items()}
        if isinstance(found, list | tuple | set):
            return [self.value(item) for item in found]
        is_json = found is None or isinstance(found, str | int | float | bool)
        return found if is_json else str(found)
