"""One question, or a conversation, whose calls are run."""
