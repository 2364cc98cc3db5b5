"""Runs `calltune load`: load a dataset."""

from calltune.cli import door

door("load")
