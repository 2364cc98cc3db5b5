"""GGUF, llama.cpp's file format: reading and writing models."""
