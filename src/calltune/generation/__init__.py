"""Batched generation: prompts in, token sequences out, optionally constrained by a grammar."""
