"""Formats: one file per prompt family, each writing prompts and calls and reading calls back."""

from calltune.formats.chatml import CHATML
from calltune.formats.format import Format
from calltune.formats.gemma import GEMMA

FORMATS: dict[str, Format] = {"gemma": GEMMA, "chatml": CHATML}
"""Every prompt family by the name that `--format` takes."""

__all__ = ["FORMATS", "Format"]
