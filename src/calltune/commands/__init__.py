"""The stages of the pipeline: one dataclass of options and one `run` each.

They share files, not imports.
"""
