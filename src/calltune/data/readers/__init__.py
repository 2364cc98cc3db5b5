"""One file a dataset format: rows -> examples."""
