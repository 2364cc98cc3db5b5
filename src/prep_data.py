"""Runs `calltune prep`: turn a dataset into prompts, and split it."""

from calltune.cli import door

door("prep")
