"""How clients and the log learn of tools that the context could not hold."""

import logging
from collections.abc import Sequence

from calltune.tools.shortlist import Shortlist, left_out_text

LEFT_OUT_HEADER = "X-Calltune-Tools-Left-Out"
MAX_HEADER_LENGTH = 2_000
"""Characters; servers and proxies refuse long headers."""
log = logging.getLogger("calltune.serving")


def left_out_headers(shortlist: Shortlist) -> dict[str, str]:
    """The header that names the tools that were not offered; none if all were."""
    if not shortlist.left_out:
        return {}
    log.warning("%s", left_out_text(shortlist))
    return {LEFT_OUT_HEADER: _header_value(shortlist.left_out)}


def _header_value(names: Sequence[str]) -> str:
    """The count, then as many names as a header holds; headers are ASCII."""
    value = f"{len(names)}:"
    for index, name in enumerate(names):
        plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in name)
        added = f"{value}{',' if index else ''} {plain}"
        if len(added) > MAX_HEADER_LENGTH:
            return f"{value}, ..."
        value = added
    return value
