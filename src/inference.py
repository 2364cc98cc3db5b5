"""Runs `calltune infer`: evaluate the base model."""

from calltune.cli import door

door("infer")
