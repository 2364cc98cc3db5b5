"""Data: datasets -> examples -> prepared rows -> tokens and batches.

Rows come from `sources/` and are read by `readers/` (add a dataset format there). `preparation`
makes prepared rows of them, and `batching` turns these into tokens and batches.
"""
