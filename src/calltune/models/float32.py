"""A model in float32, which is what the CPU is fast at."""

from typing import Any


def make_float32(model: Any) -> None:
    """Dequantise a lazily loaded model and make every float in it float32, in place.

    Arrays are evaluated one by one, so that the stored and the float32 form of only one of them
    are held at a time.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import dequantize_model

    _make_scales_float32(model)
    dequantize_model(model)
    model.set_dtype(mx.float32)
    parameters: Any = tree_flatten(model.parameters())
    for _, array in parameters:
        mx.eval(array)


def _make_scales_float32(model: Any) -> None:
    """Make the scales of quantised modules float32, so that dequantising rounds nothing."""
    import mlx.core as mx

    for _, module in model.named_modules():
        # Other modes than affine have integer scales and no biases.
        if getattr(module, "mode", None) == "affine":
            module.scales = module.scales.astype(mx.float32)
            module.biases = module.biases.astype(mx.float32)
