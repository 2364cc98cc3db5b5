"""The model that both MLX engines train: mlx_lm's, with its LoRA layers."""

from pathlib import Path
from typing import Any

import mlx.core as mx
from settings import Setting


def build(setting: Setting) -> Any:
    """The setting's model, frozen but for LoRA on its top layers, as `mlx_lm lora` makes it."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    mx.random.seed(setting.seed)
    model = base(setting)
    model.freeze()
    lora = {"rank": setting.rank, "scale": setting.scale, "dropout": 0.0}
    linear_to_lora_layers(model, setting.num_layers, lora)
    mx.eval(model.parameters())
    # What loading took is not what training takes.
    mx.reset_peak_memory()
    return model


def base(setting: Setting) -> Any:
    """The model without LoRA: from its folder, or of the setting's shape with random weights."""
    if setting.folder:
        from mlx_lm.utils import load_model

        model, _ = load_model(Path(setting.folder))
        return model
    from mlx_lm.models import gemma3_text

    assert setting.shape is not None, setting.name
    config = {"model_type": "gemma3_text"} | setting.shape
    model = gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
    # Told of no separate head, the model ties it to the embedding, as Gemma's weights do.
    model.sanitize({})
    model.set_dtype(getattr(mx, setting.precision))
    return model


def release() -> None:
    """Give back what MLX keeps for reuse."""
    mx.clear_cache()


def device_name() -> str:
    """What MLX computes on."""
    device = mx.default_device()
    info: dict[str, Any] = mx.device_info(device) if device == mx.gpu else {}
    return str(info.get("device_name", device))
