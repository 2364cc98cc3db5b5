"""Runs `calltune analyze`: compare the base and the tuned model."""

from calltune.cli import door

door("analyze")
