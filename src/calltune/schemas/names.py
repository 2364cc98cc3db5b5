"""Valid names for tools and definitions, made of names that a model's output may not carry.

Source: OpenAI's function tools, whose names match `^[a-zA-Z0-9_-]{1,64}$`.
"""

import re
import unicodedata
from collections.abc import Sequence

MAX_NAME_LENGTH = 64
VALID_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_NAME_LENGTH}}}")
"""The names of functions that OpenAI's API accepts."""


def sanitize_names(originals: Sequence[str]) -> list[str]:
    """A valid name for each original, no two alike.

    A valid original stays as it is; where it comes twice, the first keeps it. The others get the
    suffix _2, _3, … in their order, so that the same list gives the same names.
    """
    kept = {name for name in originals if VALID_NAME.fullmatch(name)}
    names: dict[str, None] = {}
    for original in originals:
        is_free = original in kept and original not in names
        names[original if is_free else _free(_characters(original), kept | names.keys())] = None
    return list(names)


def _characters(original: str) -> str:
    """The original without accents, and with _ for every other run of invalid characters."""
    plain = unicodedata.normalize("NFKD", original)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", plain).strip("_") or "tool"


def _free(name: str, taken: set[str]) -> str:
    candidate, number = name[:MAX_NAME_LENGTH], 1
    while candidate in taken:
        number += 1
        candidate = f"{name[: MAX_NAME_LENGTH - len(str(number)) - 1]}_{number}"
    return candidate
