"""Readers of dataset formats, one file each: a row of JSON -> examples.

To add one, write a file like `xlam.py` with `matches(row)` and `parse(row, row_id)`, and enter it
in `READERS` in `recognise.py`.
"""
