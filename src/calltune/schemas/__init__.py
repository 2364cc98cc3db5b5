"""JSON Schema: read, repaired, validated, compiled to grammars."""
