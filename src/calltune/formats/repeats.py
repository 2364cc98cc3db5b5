"""Which calls of an answer are new: small models often make a call again that they have made.

A call with the same name and arguments says the same thing twice. Where a tool should really run
twice, the server's `--repeat-calls` and the `repeat_calls` of `Caller` keep both.
"""

from collections.abc import Collection

from calltune.formats.parser import call_key
from calltune.types import ToolCall


class NewCalls:
    """Tells new calls from those made before in a conversation, or in the same answer."""

    def __init__(self, earlier: Collection[str] = (), drops_repeats: bool = True) -> None:
        """`earlier` are the keys (see `call_key`) of calls before the answer.

        With `drops_repeats` a call that comes again in the answer is not new either. Base models
        repeat calls until a limit ends the answer; an adapter was trained on how many to make.
        """
        self.n_dropped = 0
        self._earlier = frozenset(earlier)
        self._drops_repeats = drops_repeats
        self._made: set[str] = set()

    def restart(self) -> "NewCalls":
        """The same for another answer."""
        return NewCalls(self._earlier, self._drops_repeats)

    def is_new(self, call: ToolCall) -> bool:
        """Whether the next call of the answer is to be kept; others are counted."""
        key = call_key(call)
        is_known = key in self._earlier or (self._drops_repeats and key in self._made)
        self._made.add(key)
        self.n_dropped += is_known
        return not is_known


def repeats_text(n_dropped: int) -> str:
    """What was dropped, as a sentence without a full stop."""
    calls = "call that repeats another was" if n_dropped == 1 else "calls that repeat others were"
    return f"{n_dropped} {calls} left out"
