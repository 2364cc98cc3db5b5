"""Test the fine-tuned model: the door to `calltune test`."""

from calltune.cli import door

door("test")
