"""Training: what calltune adds to mlx_lm's trainer for call data."""
