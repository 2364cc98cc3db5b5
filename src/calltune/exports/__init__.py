"""Exports: a tuned model in the forms that other programs run."""
