"""Decoder layers run with few GPU kernels: products by MLX, all that lies between by our own."""
