"""calltune: turn a small open model into one that calls your tools."""

__version__ = "0.1.0"
