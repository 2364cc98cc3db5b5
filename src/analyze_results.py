"""Compare base and tuned results: the door to `calltune analyze`."""

from calltune.cli import door

door("analyze")
