"""Prepare a dataset and split it: the door to `calltune prep`."""

from calltune.cli import door

door("prep")
