"""Load a dataset: the door to `calltune load`."""

from calltune.cli import door

door("load")
