"""What grammars leave out of schemas: told to the client and the log, and checked in the end.

A finished call or answer that breaks such a part is generated once more, by sampling, as the same
tokens would come again without. If that breaks it as well the client gets it as text with a note.
"""

import json
import logging
from dataclasses import replace

from calltune.files import dumps
from calltune.formats.grammar import THE_ANSWER, Grammar
from calltune.generation.sequence import Sampling
from calltune.serving.answer_parser import Finished, SchemaNote, TextDelta
from calltune.serving.errors import APIError
from calltune.serving.generation_input import GenerationInput
from calltune.serving.grammar_pool import GrammarPool
from calltune.types import ToolCall

UNENFORCED_HEADER = "X-Calltune-Unenforced"
MAX_HEADER_LENGTH = 2_000
"""Characters; servers and proxies refuse long headers."""
RETRY_TEMPERATURE = 0.8
_RETRY_SEED = 1 << 40
log = logging.getLogger("calltune.serving")


class OffSchema(Exception):
    """A finished call or answer breaks a part of its schema that the grammar leaves out."""

    def __init__(self, text: str, note: SchemaNote, is_strict: bool) -> None:
        """`text` is the call or the answer itself."""
        super().__init__(note.message)
        self.text = text
        self.note = note
        self._is_strict = is_strict

    def events(self, has_calls: bool) -> tuple[TextDelta, Finished]:
        """What the client gets in place of a call, or as the answer.

        Raises:
            APIError: the client demanded that the schema holds (422).
        """
        if self._is_strict:
            param = "tools" if self.note.type == "call_off_schema" else "response_format"
            message = f"{self.note.message}; try again, or simplify the schema"
            raise APIError(422, message, param, "answer_off_schema")
        log.warning("%s; it is returned as text", self.note.message)
        reason = Finished("tool_calls" if has_calls else "stop", self.note)
        return TextDelta(self.text), reason


async def check_call(call: ToolCall, source: GenerationInput, pool: GrammarPool) -> None:
    """Validate a call's arguments if the grammar does not enforce their whole schema.

    Raises:
        OffSchema: they do not satisfy it.
    """
    names = source.compiled.original_names
    for tool in source.compiled.tools:
        if names.get(tool.name, tool.name) != call.name:
            continue
        unenforced = source.unenforced_keywords(tool.name)
        if unenforced and not await pool.validate(call.arguments, tool.parameters):
            message = (
                f"The model's arguments of {call.name} do not satisfy its schema, of which the "
                f"grammar leaves out: {_list(unenforced)}"
            )
            text = dumps({"name": call.name, "arguments": call.arguments})
            is_strict = call.name in source.strict
            raise OffSchema(text, SchemaNote("call_off_schema", message), is_strict)


async def check_answer(text: str, source: GenerationInput, pool: GrammarPool) -> None:
    """Validate a JSON answer if the grammar does not enforce its whole schema.

    Raises:
        OffSchema: it does not satisfy it.
    """
    unenforced = source.unenforced_keywords()
    if source.schema is None or not unenforced:
        return
    try:
        is_valid = await pool.validate(json.loads(text), source.schema)
    except ValueError:
        is_valid = False
    if not is_valid:
        message = (
            "The model's answer does not satisfy the schema, of which the grammar leaves out: "
            f"{_list(unenforced)}"
        )
        raise OffSchema(text, SchemaNote("answer_off_schema", message), THE_ANSWER in source.strict)


def retry_sampling(sampling: Sampling | None) -> Sampling:
    """How a second attempt is sampled: warm enough to differ, and the same for equal requests."""
    first = sampling or Sampling(0.0)
    temperature = max(RETRY_TEMPERATURE, first.temperature)
    return replace(first, temperature=temperature, seed=first.seed + _RETRY_SEED)


def unenforced_headers(*grammars: Grammar | None) -> dict[str, str]:
    """The header that lists what is left out; none where nothing is."""
    notes = list(dict.fromkeys(note for each in grammars if each for note in each.notes))
    if not notes:
        return {}
    log.warning("left out of the grammar, and checked afterwards: %s", _list(notes))
    return {UNENFORCED_HEADER: _list(notes)}


def _list(notes: list[str]) -> str:
    """As many notes as a header holds, in ASCII."""
    text = "; ".join(notes)
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    short = f"{plain[: MAX_HEADER_LENGTH - 4]} ..."
    return plain if len(plain) <= MAX_HEADER_LENGTH else short
