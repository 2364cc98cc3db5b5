"""Exports: a tuned model as other programs take it, with what a reader of it must know."""
