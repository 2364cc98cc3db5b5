"""Models: from a reference on the command line to weights and tokenizer in memory."""
