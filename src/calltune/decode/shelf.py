"""What the slots hold, finished rows as well, for prompts to come that begin alike."""

from typing import NamedTuple

from calltune.decode.row import LEAST_SHARED, Prompt, Row, shared_length
from calltune.decode.slots import Slots


class Found(NamedTuple):
    """The slot that begins most like a prompt."""

    slot: int
    shared: int
    """So many first tokens of the prompt need not be fed if it follows what is in the slot."""
    coming: int
    """So many will not need to be, once some other row has been fed."""


class Shelf:
    """Slots for `size` rows that come and go, and behind them slots for rows to be kept."""

    def __init__(self, slots: Slots, size: int) -> None:
        self._slots = slots
        self._tokens: list[list[int]] = [[] for _ in slots.lengths]
        """What each slot's row begins with, be it finished or not."""
        self._kept = list(range(size, len(slots.lengths)))
        """The slots of rows to be kept, the one used least lately first."""
        self._taken_from: dict[int, int] = {}
        """By the slot of a row, the kept one that it begins like."""

    def find(self, prompt: Prompt) -> Found:
        """Where a prompt's first tokens have been fed, or are about to be."""
        best, coming = Found(0, 0, 0), 0
        for slot, there in enumerate(self._tokens):
            shared = self._alike(slot, there, prompt)
            coming = max(coming, shared)
            shared = min(shared, self._slots.lengths[slot])
            if shared >= LEAST_SHARED and shared > best.shared:
                best = Found(slot, shared, 0)
        return best._replace(coming=coming)

    def enter(self, prompt: Prompt, slot: int, found: Found) -> None:
        """Let a prompt's row begin in a slot, with what was found."""
        self._slots.share(found.slot, slot, found.shared)
        self._slots.adapters[slot] = prompt.adapter
        self._tokens[slot] = prompt.tokens
        self._taken_from.pop(slot, None)
        if found.slot in self._kept and found.shared:
            self._taken_from[slot] = found.slot
            self._touch(found.slot)

    def move(self, source: int, target: int) -> None:
        """Bring a row to another slot."""
        self._copy(source, target)
        if source in self._taken_from:
            self._taken_from[target] = self._taken_from.pop(source)

    def leave(self, slot: int, row: Row) -> None:
        """The row is over. It is kept in place of the one that it began like, or the oldest."""
        self._tokens[slot] = (row.prompt.tokens + row.written)[: self._slots.lengths[slot]]
        if self._kept and len(self._tokens[slot]) >= LEAST_SHARED:
            place = self._taken_from.pop(slot, self._kept[0])
            self._copy(slot, place)
            self._touch(place)

    def clear(self) -> None:
        """Forget all that the slots hold."""
        self._slots.clear()
        self._tokens = [[] for _ in self._tokens]
        self._taken_from.clear()

    def _alike(self, slot: int, there: list[int], prompt: Prompt) -> int:
        is_other = self._slots.adapters[slot] != prompt.adapter
        if is_other or there[:LEAST_SHARED] != prompt.tokens[:LEAST_SHARED]:
            return 0
        # The last token is fed in any case: what comes after it is asked for.
        return min(shared_length(there, prompt.tokens), len(prompt.tokens) - 1)

    def _copy(self, source: int, target: int) -> None:
        self._slots.share(source, target, self._slots.lengths[source])
        self._slots.adapters[target] = self._slots.adapters[source]
        self._tokens[target] = self._tokens[source]

    def _touch(self, place: int) -> None:
        self._kept.remove(place)
        self._kept.append(place)
