"""Exports of a tuned model for other programs, each with a model card."""
