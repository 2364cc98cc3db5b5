"""Decoder layers with few CUDA kernels: MLX computes the products, kernels of ours the rest."""
