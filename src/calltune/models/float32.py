"""A model with other floats: in float32, which the CPU is fast at, or without quantisation."""

from typing import Any, Literal

Precision = Literal["float32", "as stored"]


def make_float32(model: Any) -> None:
    """Make every float in a lazily loaded model float32, in place; quantised weights stay so."""
    import mlx.core as mx

    _make_scales_float32(model)
    model.set_dtype(mx.float32)
    _evaluate_one_by_one(model)


def dequantize(model: Any, precision: Precision = "float32") -> None:
    """Dequantise a lazily loaded model, in place; to float32, or to the type of its scales."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model

    if precision == "float32":
        _make_scales_float32(model)
    dequantize_model(model)
    if precision == "float32":
        model.set_dtype(mx.float32)
    _evaluate_one_by_one(model)


def _evaluate_one_by_one(model: Any) -> None:
    """The stored and the new form of only one array are held at a time."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

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
