"""A decoder in three parts that can be run one by one: frozen layers, trained layers, head.

mlx_lm's models are called as one. Here a model is called while some of its layers, or its head,
are replaced by stand-ins, so that every architecture of mlx_lm can be split without repeating its
code. MLX is lazy: what a replaced part would have needed is never computed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol

import mlx.core as mx
import mlx.nn as nn

from calltune.training.cuda.interface import Kernels

Call = Callable[..., Any]


class CannotSplit(Exception):
    """A model lacks the structure that splitting needs; the message says what is missing."""


class Head(NamedTuple):
    """What turns hidden states into logits."""

    module: Any
    method: str
    """The method that is called: `__call__`, or an embedding's `as_linear`."""
    is_last: bool
    """Whether the model returns its result unchanged; False where the logits are capped, say."""


class FusedDecoder(Protocol):
    """The trained layers as one function, and the kernels that it is made of."""

    kernels: Kernels
    max_length: int
    """The longest row in positions that it can be called with."""

    def __call__(self, x: mx.array, recompute: int = 0) -> mx.array:
        """The layers' output (B, L, D) for their input x (B, L, D).

        The lowest `recompute` layers keep no activations for the backward pass.
        """


class SplitModel:
    """A model split below layer `n_frozen`, counted from the bottom.

    Shapes: B rows, L positions, D hidden size, T gathered positions, V vocabulary.
    """

    def __init__(self, model: Any, n_frozen: int) -> None:
        """Split `model`, an `mlx.nn.Module` of mlx_lm, so that `n_frozen` layers lie below.

        Raises:
            CannotSplit: the model has no list of decoder layers that are called once each, in
                order, with the hidden states; or no head with a weight is found.
        """
        self.n_frozen = n_frozen
        self.model = model
        self.fused: FusedDecoder | None = None
        """What runs the trained layers as one function, where something does."""
        self._slots = _find_slots(model)
        _check_layers(model, n_frozen, self._slots)
        self.head, hidden = _trace(model, self._slots)
        self.vocabulary: int = self.head.module.weight.shape[0]
        self.hidden_size: int = hidden.shape[-1]
        self.dtype: mx.Dtype = hidden.dtype

    def run_frozen(self, inputs: mx.array) -> mx.array:
        """The output (B, L, D) of the frozen layers for tokens (B, L) int."""
        caught: list[mx.array] = []

        def catch(_: Any, hidden: mx.array, *__: Any, **___: Any) -> mx.array:
            caught.append(hidden)
            return hidden

        first, *rest = self.model.layers[self.n_frozen :]
        with self._bypassed(rest), self._replaced(first, catch):
            self.model(inputs)
        return caught[0]

    def hidden(
        self, inputs: mx.array, frozen: mx.array | None = None, recompute: int = 0
    ) -> mx.array:
        """The input (B, L, D) of the head for tokens (B, L) int.

        `frozen` (B, L, D) is what `run_frozen` gave for these tokens; None computes it. The lowest
        `recompute` of the trained layers keep no activations for the backward pass: they are
        recomputed once what the layers above kept has been freed.
        """
        with ExitStack() as stack:
            if frozen is not None and self.n_frozen:
                *bypassed, last = self.model.layers[: self.n_frozen]
                stack.enter_context(self._bypassed(bypassed))
                stack.enter_context(self._replaced(last, lambda *_, **__: frozen))
            if (fused := self.fused) is not None and inputs.shape[1] <= fused.max_length:
                first, *rest = self.model.layers[self.n_frozen :]
                stack.enter_context(self._bypassed(rest))
                stack.enter_context(
                    self._replaced(first, lambda _, x, *__, **___: fused(x, recompute))
                )
            else:
                for layer in self.model.layers[self.n_frozen :][:recompute]:
                    stack.enter_context(self._replaced(layer, _checkpointed))
            return self._head_input(inputs)

    def logits(self, hidden: mx.array) -> mx.array:
        """The logits (T, V) for the head's input at T positions, (T, D)."""
        own = getattr(self.head.module, self.head.method)

        def of_rows(*_: Any) -> mx.array:
            return own(hidden[None])  # type: ignore[no-any-return]

        with (
            self._bypassed(self.model.layers),
            self._replaced(self.head.module, of_rows, self.head.method),
        ):
            result: mx.array = self.model(mx.zeros((1, 1), mx.int32))
        return result[0]

    def head_weight(self) -> mx.array | None:
        """The head's matrix (V, D); None unless the head is a product with it and nothing else."""
        module = self.head.module
        is_dense = type(module) in (nn.Linear, nn.Embedding) and "bias" not in module
        return module.weight if is_dense and self.head.is_last else None

    def call_with_layers(self, call: Call, inputs: mx.array) -> None:
        """Run the model on tokens (B, L) with `call(layer, hidden, …)` in place of every layer."""
        with ExitStack() as stack:
            for layer in self.model.layers:
                stack.enter_context(self._replaced(layer, call))
            self._head_input(inputs)

    def release_frozen(self) -> None:
        """Free the memory of the frozen layers; `run_frozen` cannot be called any more."""
        nothing = mx.zeros(())
        for layer in self.model.layers[: self.n_frozen]:
            layer.apply(lambda _: nothing)

    def matches_whole_model(self) -> bool:
        """Whether the parts compute what the whole model does, tried on eight tokens."""
        tokens = mx.arange(1, 9, dtype=mx.int32)[None]
        frozen = self.run_frozen(tokens) if self.n_frozen else None
        parts = self.logits(self.hidden(tokens, frozen)[0]).astype(mx.float32)
        whole = self.model(tokens)[0].astype(mx.float32)
        # In half precision, products of another shape round differently.
        tolerance = 1e-4 if self.dtype == mx.float32 else 5e-2
        return bool(mx.abs(parts - whole).max() <= tolerance * mx.abs(whole).max())

    def _head_input(self, inputs: mx.array) -> mx.array:
        caught: list[mx.array] = []

        def catch(_: Any, hidden: mx.array) -> mx.array:
            caught.append(hidden)
            return hidden

        with self._replaced(self.head.module, catch, self.head.method):
            self.model(inputs)
        return caught[0]

    @contextmanager
    def _replaced(self, module: Any, call: Call, method: str = "__call__") -> Iterator[None]:
        """Let `module.method` be `call(module, …)` in the model while the block runs."""
        with _stand_in(self._slots[id(module)], _StandIn(module, method, call)):
            yield

    @contextmanager
    def _bypassed(self, layers: Sequence[Any]) -> Iterator[None]:
        """Let the layers return their input while the block runs."""
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(self._replaced(layer, lambda _, x, *__, **___: x))
            yield


class WholeModel(SplitModel):
    """A model that cannot be split: all of it runs, and its logits are gathered afterwards."""

    def __init__(self, model: Any) -> None:
        """Take `model` as it is."""
        self.n_frozen = 0
        self.model = model
        self.fused = None
        logits = model(mx.zeros((1, 1), mx.int32))
        self.vocabulary, self.dtype = logits.shape[-1], logits.dtype
        self.hidden_size = self.vocabulary

    def hidden(
        self, inputs: mx.array, frozen: mx.array | None = None, recompute: int = 0
    ) -> mx.array:
        """The logits (B, L, V) for tokens (B, L) int."""
        assert frozen is None
        return self.model(inputs)  # type: ignore[no-any-return]

    def logits(self, hidden: mx.array) -> mx.array:
        """The logits (T, V) that `hidden` gave, unchanged."""
        return hidden

    def head_weight(self) -> None:
        """None: the head is unknown."""


def split_at(model: Any, n_frozen: int) -> SplitModel:
    """The model split below layer `n_frozen`; a `WholeModel` where that is not possible.

    It is not possible for a model without the structure that `SplitModel` needs, and for one that
    computes something else in parts, because its layers share more than the hidden states.
    """
    try:
        split_model = SplitModel(model, n_frozen)
    except CannotSplit:
        return WholeModel(model)
    return split_model if split_model.matches_whole_model() else WholeModel(model)


class _StandIn:
    """Takes a module's place in its model: one method is replaced, all else is the module's own."""

    def __init__(self, module: Any, method: str, call: Call) -> None:
        self._module, self._method, self._replacement = module, method, call

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self._method == "__call__":
            return self._replacement(self._module, *args, **named)
        return self._module(*args, **named)

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            return lambda *args, **named: self._replacement(self._module, *args, **named)
        return getattr(self._module, name)

    def __getitem__(self, name: str) -> Any:
        return self._module[name]

    def __contains__(self, name: str) -> bool:
        return name in self._module


class _Slot(NamedTuple):
    """A place in a model that holds a module: an item of a module's or list's own."""

    container: Any
    key: Any


_Slots = dict[int, list[_Slot]]


def _find_slots(model: Any) -> _Slots:
    """Where each module of the model is held, by the module's id."""
    slots: _Slots = {}
    seen: set[int] = set()
    waiting: list[Any] = [model]
    while waiting:
        container = waiting.pop()
        if id(container) in seen:
            continue
        seen.add(id(container))
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            if isinstance(value, nn.Module):
                slots.setdefault(id(value), []).append(_Slot(container, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    return slots


@contextmanager
def _stand_in(slots: Sequence[_Slot], stand_in: Any) -> Iterator[None]:
    own = [slot.container[slot.key] for slot in slots]
    for slot in slots:
        # A module is a dict of what it holds; __setattr__ would move the stand-in out of it.
        slot.container[slot.key] = stand_in
    try:
        yield
    finally:
        for slot, module in zip(slots, own, strict=True):
            slot.container[slot.key] = module


def _check_layers(model: Any, n_frozen: int, slots: _Slots) -> None:
    layers = getattr(model, "layers", None)
    if not isinstance(layers, list | tuple) or not layers:
        raise CannotSplit("the model has no list of layers")
    if not all(id(layer) in slots for layer in layers):
        raise CannotSplit("the model's layers are not among its modules")
    if not 0 <= n_frozen < len(layers):
        raise CannotSplit(f"the model has {len(layers)} layers, none of them above {n_frozen}")


def _trace(model: Any, slots: _Slots) -> tuple[Head, mx.array]:
    """The head that the model calls last and its input (1, 1, D), found by watching one token.

    Raises:
        CannotSplit: the layers are not called once each, in order, to turn hidden states into
            hidden states; or there is no head with a weight.
    """
    called: list[Any] = []
    heads: list[tuple[Head, mx.array, Any]] = []

    def watch_layer(layer: Any, *args: Any, **named: Any) -> Any:
        given = args[0] if args else None
        output = layer(*args, **named)
        if not isinstance(given, mx.array) or not isinstance(output, mx.array):
            raise CannotSplit(f"{type(layer).__name__} takes or returns more than hidden states")
        if given.shape != output.shape:
            raise CannotSplit(f"{type(layer).__name__} changes the shape of the hidden states")
        called.append(layer)
        return output

    def watch_head(module: Any, hidden: mx.array, method: str) -> Any:
        output = getattr(module, method)(hidden)
        heads.append((Head(module, method, False), hidden, output))
        return output

    with ExitStack() as stack:
        for layer in model.layers:
            stack.enter_context(
                _stand_in(slots[id(layer)], _StandIn(layer, "__call__", watch_layer))
            )
        for module, method in _head_candidates(model):

            def watch(module: Any, hidden: mx.array, method: str = method) -> Any:
                return watch_head(module, hidden, method)

            stack.enter_context(_stand_in(slots[id(module)], _StandIn(module, method, watch)))
        result = model(mx.zeros((1, 1), mx.int32))
    if [id(layer) for layer in called] != [id(layer) for layer in model.layers]:
        raise CannotSplit("the model does not call its layers once each, in order")
    if not heads or "weight" not in heads[-1][0].module:
        raise CannotSplit(f"no head found in {type(model).__name__}")
    head, hidden, logits = heads[-1]
    return head._replace(is_last=result is logits), hidden


def _head_candidates(model: Any) -> list[tuple[Any, str]]:
    """Modules that may be a head, each with the method that it is called by."""
    return [
        (module, "as_linear" if hasattr(module, "as_linear") else "__call__")
        for name, module in model.named_modules()
        if hasattr(module, "as_linear") or name.rsplit(".", 1)[-1] in ("lm_head", "output")
    ]


def _checkpointed(layer: Any, hidden: mx.array, *rest: Any, **named: Any) -> mx.array:
    """The layer's own output; its activations are recomputed in the backward pass."""

    def run(parameters: Any, hidden: mx.array) -> mx.array:
        layer.update(parameters)
        return layer(hidden, *rest, **named)  # type: ignore[no-any-return]

    return mx.checkpoint(run)(layer.trainable_parameters(), hidden)
