"""Prompt formats: one file each, which renders prompts and calls and parses calls back.

To add one, write a file like `chatml.py` with a `Format`, a Jinja chat template of the same name
beside it, and an entry in `FORMATS` below.
"""

from calltune.formats.chatml import CHATML
from calltune.formats.format import Format
from calltune.formats.gemma import GEMMA

FORMATS: dict[str, Format] = {"gemma": GEMMA, "chatml": CHATML}
"""Every prompt format, by the name that `--format` takes."""

__all__ = ["FORMATS", "Format"]
