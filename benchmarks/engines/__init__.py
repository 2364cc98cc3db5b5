"""The engines: each module has `serve(rows, setting, desk)`, which trains until the desk closes."""
