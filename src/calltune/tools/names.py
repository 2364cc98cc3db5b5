"""Names that every format and OpenAI's API carry, for names that they may not."""

import re
import unicodedata
from collections.abc import Sequence

LONGEST = 64
CARRIED = re.compile(rf"[a-zA-Z0-9_-]{{1,{LONGEST}}}")
"""What OpenAI's API takes for the name of a function."""


def carried_names(originals: Sequence[str]) -> list[str]:
    """For each original a name that can be carried, no two alike.

    A name that can be carried stays; where it comes twice, the first keeps it. The others get _2,
    _3, … behind them, in their order, so the same list gives the same names.
    """
    kept = {name for name in originals if CARRIED.fullmatch(name)}
    names: dict[str, None] = {}
    for original in originals:
        is_free = original in kept and original not in names
        names[original if is_free else _free(_letters(original), kept | names.keys())] = None
    return list(names)


def _letters(original: str) -> str:
    """The original with marks taken off letters, and _ for whatever else is not carried."""
    plain = unicodedata.normalize("NFKD", original)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", plain).strip("_") or "tool"


def _free(name: str, taken: set[str]) -> str:
    candidate, number = name[:LONGEST], 1
    while candidate in taken:
        number += 1
        candidate = f"{name[: LONGEST - len(str(number)) - 1]}_{number}"
    return candidate
