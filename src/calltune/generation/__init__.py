"""Decoding: prompts in, texts out."""
