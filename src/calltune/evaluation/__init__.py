"""Scoring: from what a model wrote to verdicts, and from verdicts to numbers."""
