"""Rows of datasets, as examples, splits, tokens and batches."""
