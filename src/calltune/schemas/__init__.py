"""JSON Schema: reading, repair, validation, merging, and compilation to grammars.

`keywords` knows where the parts of a schema are; everything else here and elsewhere asks it.
"""
