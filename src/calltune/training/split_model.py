"""A model in three parts: frozen lower layers, upper layers, and the head.

mlx_lm's models are called as one. Here a model is called with some of its layers, or its head,
standing aside for the length of the call, so that every family of mlx_lm can be cut without its
code being repeated. MLX is lazy: what the parts that stand aside would have needed is never
computed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn

from calltune.training.cuda.interface import Kernels

Call = Callable[..., mx.array]


class Head(NamedTuple):
    """What turns hidden states into logits."""

    module: Any
    method: str
    """The method that is called: `__call__`, or an embedding's `as_linear`."""
    is_last: bool
    """The model does nothing to its result, such as capping the logits."""


class FusedDecoder(Protocol):
    """The upper layers as one function, and the functions that it is made of."""

    kernels: Kernels
    max_length: int
    """Positions in a row, at most."""

    def __call__(self, x: mx.array, recompute: int = 0) -> mx.array:
        """What the layers make of x (B, L, D); the lowest `recompute` keep no activations."""


class SplitModel:
    """A model cut below layer `n_frozen`, counted from the bottom.

    B rows, L positions, D hidden size, T gathered positions, V vocabulary.
    """

    def __init__(self, model: Any, n_frozen: int) -> None:
        self.n_frozen = n_frozen
        self.model = model
        self.fused: FusedDecoder | None = None
        """What runs the upper layers as one, where something does."""
        self.head = _find_head(model)
        self.vocabulary: int = self.head.module.weight.shape[0]
        hidden = self.hidden(mx.zeros((1, 1), mx.int32))
        self.hidden_size: int = hidden.shape[-1]
        self.dtype: mx.Dtype = hidden.dtype

    def run_frozen(self, inputs: mx.array) -> mx.array:
        """Tokens (B, L) int -> the output (B, L, D) of the frozen layers."""
        caught: list[mx.array] = []

        def catch(_: Any, hidden: mx.array, *__: Any, **___: Any) -> mx.array:
            caught.append(hidden)
            return hidden

        first, *rest = self.model.layers[self.n_frozen :]
        with _bypassed(rest), _replaced(first, catch):
            self.model(inputs)
        return caught[0]

    def hidden(
        self, inputs: mx.array, frozen: mx.array | None = None, recompute: int = 0
    ) -> mx.array:
        """Tokens (B, L) int -> what goes into the head, (B, L, D).

        `frozen` (B, L, D) is what `lower` gave for these tokens, where that is known. Of the
        upper layers the lowest `recompute` keep no activations for the backward pass: their turn
        comes when what the others kept is gone.
        """
        with ExitStack() as stack:
            if frozen is not None and self.n_frozen:
                *aside, last = self.model.layers[: self.n_frozen]
                stack.enter_context(_bypassed(aside))
                stack.enter_context(_replaced(last, lambda *_, **__: frozen))
            if (fused := self.fused) is not None and inputs.shape[1] <= fused.max_length:
                first, *rest = self.model.layers[self.n_frozen :]
                stack.enter_context(_bypassed(rest))
                stack.enter_context(_replaced(first, lambda _, x, *__, **___: fused(x, recompute)))
            else:
                for layer in self.model.layers[self.n_frozen :][:recompute]:
                    stack.enter_context(_replaced(layer, _checkpointed))
            return self._into_head(inputs)

    def logits(self, hidden: mx.array) -> mx.array:
        """What went into the head at T positions, (T, D) -> logits (T, V)."""
        own = getattr(type(self.head.module), self.head.method)

        def of_rows(head: Any, _: mx.array) -> mx.array:
            return own(head, hidden[None])  # type: ignore[no-any-return]

        with _bypassed(self.model.layers), _replaced(self.head.module, of_rows, self.head.method):
            result: mx.array = self.model(mx.zeros((1, 1), mx.int32))
        return result[0]

    def head_weight(self) -> mx.array | None:
        """The head's matrix (V, D), where the head is a product with it and nothing else."""
        module = self.head.module
        is_dense = type(module) in (nn.Linear, nn.Embedding) and "bias" not in module
        return module.weight if is_dense and self.head.is_last else None

    def call_with_layers(self, call: Call, inputs: mx.array) -> None:
        """Call the model with `call(layer, hidden, …)` in the place of every layer."""
        with ExitStack() as stack:
            for layer in self.model.layers:
                stack.enter_context(_replaced(layer, call))
            self._into_head(inputs)

    def release_frozen(self) -> None:
        """Give the frozen layers' memory back; `lower` cannot be called any more."""
        nothing = mx.zeros(())
        for layer in self.model.layers[: self.n_frozen]:
            layer.apply(lambda _: nothing)

    def matches_whole_model(self) -> bool:
        """Whether the parts compute what the whole model does, tried on a few tokens."""
        tokens = mx.arange(1, 9, dtype=mx.int32)[None]
        frozen = self.run_frozen(tokens) if self.n_frozen else None
        parts = self.logits(self.hidden(tokens, frozen)[0]).astype(mx.float32)
        whole = self.model(tokens)[0].astype(mx.float32)
        # Half precision rounds products of another shape otherwise.
        tolerance = 1e-4 if self.dtype == mx.float32 else 5e-2
        return bool(mx.abs(parts - whole).max() <= tolerance * mx.abs(whole).max())

    def _into_head(self, inputs: mx.array) -> mx.array:
        caught: list[mx.array] = []

        def catch(_: Any, hidden: mx.array) -> mx.array:
            caught.append(hidden)
            return hidden

        with _replaced(self.head.module, catch, self.head.method):
            self.model(inputs)
        return caught[0]


class WholeModel(SplitModel):
    """A model that cannot be cut: all of it runs, and its logits are gathered afterwards."""

    def __init__(self, model: Any) -> None:
        self.n_frozen = 0
        self.model = model
        self.fused = None
        logits = model(mx.zeros((1, 1), mx.int32))
        self.vocabulary, self.dtype = logits.shape[-1], logits.dtype
        self.hidden_size = self.vocabulary

    def hidden(
        self, inputs: mx.array, frozen: mx.array | None = None, recompute: int = 0
    ) -> mx.array:
        """The logits (B, L, V) themselves."""
        assert frozen is None
        return self.model(inputs)  # type: ignore[no-any-return]

    def logits(self, hidden: mx.array) -> mx.array:
        """What `hidden` gave."""
        return hidden

    def head_weight(self) -> None:
        """There is no head to be seen."""


def split_at(model: Any, n_frozen: int) -> SplitModel:
    """The model cut below layer `n_frozen`, or whole where cutting changes what it computes."""
    try:
        split_model = SplitModel(model, n_frozen)
        if split_model.matches_whole_model():
            return split_model
    except (AssertionError, AttributeError, TypeError, ValueError, LookupError, RuntimeError):
        pass
    return WholeModel(model)


def _find_head(model: Any) -> Head:
    """The module and method that the model calls last, and whether anything follows."""
    candidates = [
        (module, "as_linear" if hasattr(module, "as_linear") else "__call__")
        for name, module in model.named_modules()
        if hasattr(module, "as_linear") or name.rsplit(".", 1)[-1] in ("lm_head", "output")
    ]
    called: list[tuple[Any, str]] = []
    mark = mx.zeros((1, 1, 1))

    def note(module: Any, _: mx.array) -> mx.array:
        called.extend(pair for pair in candidates if pair[0] is module)
        return mark

    with ExitStack() as stack:
        stack.enter_context(_bypassed(model.layers))
        for module, method in candidates:
            stack.enter_context(_replaced(module, note, method))
        result = model(mx.zeros((1, 1), mx.int32))
    assert called, f"no head found in {type(model)}"
    module, method = called[-1]
    return Head(module, method, result is mark)


@contextmanager
def _replaced(module: Any, call: Call, method: str = "__call__") -> Iterator[None]:
    """Let `module.method` be `call(module, …)` while the block runs."""
    own = type(module)
    replaced = type(own.__name__, (own,), {method: call})
    module.__class__ = replaced
    try:
        yield
    finally:
        module.__class__ = own
        # A class lives until the garbage is collected; the arrays that `call` holds must not.
        delattr(replaced, method)


@contextmanager
def _bypassed(layers: Sequence[Any]) -> Iterator[None]:
    """Let the layers give back what they are given while the block runs."""
    own: list[type] = [type(layer) for layer in layers]
    for layer, layer_class in zip(layers, own, strict=True):
        layer.__class__ = _bypass(layer_class)
    try:
        yield
    finally:
        for layer, layer_class in zip(layers, own, strict=True):
            layer.__class__ = layer_class


@cache
def _bypass(layer_class: type) -> type:
    return type(layer_class.__name__, (layer_class,), {"__call__": lambda _, x, *__, **___: x})


def _checkpointed(layer: Any, hidden: mx.array, *rest: Any, **named: Any) -> mx.array:
    """The layer's own call, its activations recomputed in the backward pass."""
    own = type(layer).__mro__[1].__call__

    def run(parameters: Any, hidden: mx.array) -> mx.array:
        layer.update(parameters)
        return own(layer, hidden, *rest, **named)  # type: ignore[no-any-return]

    return mx.checkpoint(run)(layer.trainable_parameters(), hidden)
