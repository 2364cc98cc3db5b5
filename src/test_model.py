"""Runs `calltune test`: evaluate the tuned model."""

from calltune.cli import door

door("test")
