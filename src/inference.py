"""Test the base model: the door to `calltune infer`."""

from calltune.cli import door

door("infer")
