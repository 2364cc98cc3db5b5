"""`python -m calltune`."""

from calltune.cli import main

main()
