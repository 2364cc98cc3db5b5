"""Launches the CUDA kernels of `kernels.cuh`, which are built at their first use.

Each function is one launch. MLX builds kernels with NVRTC through `mx.fast.cuda_kernel` and caches
them in a folder; their names hold a digest of the source, so that a change is built anew.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import mlx.core as mx

from calltune.training.cuda.interface import (
    AdamRates,
    Branch,
    Following,
    Heads,
    Losses,
    Moments,
    Norm,
    Parts,
    Sum,
    SumGradients,
)

SOURCE = files(__package__).joinpath("kernels.cuh").read_text("utf-8")
WARP, BLOCK, LARGEST_BLOCK = 32, 128, 1024


class CudaKernels:
    """See `interface.Kernels`."""

    def add_and_norm(
        self, branch: Branch, x: mx.array, post: Norm | None, following: Following | None
    ) -> Sum:
        """The sum h = x + post(r + z b), y = norm(h) and z = y a'."""
        size, n_next = x.shape[-1], 0 if following is None else following.a.shape[0]
        outputs: dict[str, tuple[int, ...]] = {"h": x.shape}
        if following is not None:
            outputs |= {"y": x.shape, "next_z": (x.shape[0], n_next)}
        # Without a next part the kernel does not write there.
        y, next_z = ("y", "next_z") if following is not None else ("h", "h")
        results = _launch(
            f"add_and_norm<T, {size}, {branch.b.shape[0]}, {n_next}, {_is(post)}>("
            f"r, z, b, x, post, next, a, h, {y}, {next_z}, {_eps(post, following)});",
            branch._asdict() | {"x": x} | _neighbours(post, following, x),
            outputs,
            threads=x.shape[0] * _row_threads(size),
            block=_row_threads(size),
        )
        return Sum(*results) if following is not None else Sum(results[0], None, None)

    def add_and_norm_back(
        self,
        branch: Branch,
        h: mx.array,
        given: Sum,
        post: Norm | None,
        following: Following | None,
    ) -> SumGradients:
        """The gradients with respect to r, z and x."""
        size, n_next = h.shape[-1], 0 if following is None else following.a.shape[0]
        dy, next_dz = (given.h if part is None else part for part in given[1:])
        return SumGradients(
            *_launch(
                f"add_and_norm_back<T, {size}, {branch.b.shape[0]}, {n_next}, {_is(post)}>("
                f"r, z, b, h, post, next, a, dh, dy, next_dz, dr, dz, dx, "
                f"{_eps(post, following)});",
                branch._asdict()
                | {"h": h}
                | _neighbours(post, following, h)
                | {"dh": given.h, "dy": dy, "next_dz": next_dz},
                {"dr": h.shape, "dz": branch.z.shape, "dx": h.shape},
                threads=h.shape[0] * _row_threads(size),
                block=_row_threads(size),
            )
        )

    def split_heads(self, packed: mx.array, heads: Heads) -> Parts:
        """Queries, keys and values, normed and rotated, queries scaled."""
        n_rows, length, _ = packed.shape
        keys = (n_rows, heads.n_keys, length, heads.size)
        queries = (n_rows, heads.n_keys, length * heads.group, heads.size)
        return Parts(
            *_launch(
                f"split_heads<{_head_template(heads)}>(packed, cosine, sine, q_weight, k_weight, "
                f"q, k, v, {_tokens(heads)});",
                {"packed": packed} | _tables(heads, packed),
                {"q": queries, "k": keys, "v": keys},
                threads=packed.size // heads.size * WARP,
            )
        )

    def split_heads_back(
        self, packed: mx.array, dq: mx.array, dk: mx.array, dv: mx.array, heads: Heads
    ) -> mx.array:
        """The gradient with respect to `packed`."""
        (gradient,) = _launch(
            f"split_heads_back<{_head_template(heads)}>(packed, cosine, sine, q_weight, "
            f"k_weight, dq, dk, dv, gradient, {_tokens(heads)});",
            {"packed": packed} | _tables(heads, packed) | {"dq": dq, "dk": dk, "dv": dv},
            {"gradient": packed.shape},
            threads=packed.size // heads.size * WARP,
        )
        return gradient

    def causal_softmax(self, scores: mx.array, heads: Heads) -> mx.array:
        """Attention weights of the positions that each query attends to."""
        (shares,) = _launch(
            f"causal_softmax<T, {heads.group}, {heads.window}>(scores, shares, "
            f"{_queries('scores')});",
            {"scores": scores},
            {"shares": scores.shape},
            threads=scores.size // scores.shape[-1] * WARP,
        )
        return shares

    def causal_softmax_back(self, shares: mx.array, dshares: mx.array, heads: Heads) -> mx.array:
        """The gradient with respect to the scores."""
        (gradient,) = _launch(
            f"causal_softmax_back<T, {heads.group}, {heads.window}>(shares, dshares, gradient, "
            f"{_queries('shares')});",
            {"shares": shares, "dshares": dshares},
            {"gradient": shares.shape},
            threads=shares.size // shares.shape[-1] * WARP,
        )
        return gradient

    def gated(self, packed: mx.array, is_gelu: bool) -> mx.array:
        """The activation of the gate, times up."""
        size = packed.shape[-1] // 2
        (output,) = _launch(
            f"gated<T, {size}, {_is(is_gelu)}>(packed, output, {_rows('packed', packed)});",
            {"packed": packed},
            {"output": (*packed.shape[:-1], size)},
            threads=packed.size // 8,
        )
        return output

    def gated_back(
        self, packed: mx.array, doutput: mx.array, is_gelu: bool
    ) -> tuple[mx.array, mx.array]:
        """The gradient with respect to `packed`, and the output recomputed."""
        size = packed.shape[-1] // 2
        gradient, output = _launch(
            f"gated_back<T, {size}, {_is(is_gelu)}>(packed, doutput, gradient, output, "
            f"{_rows('packed', packed)});",
            {"packed": packed, "doutput": doutput},
            {"gradient": packed.shape, "output": (*packed.shape[:-1], size)},
            threads=packed.size // 8,
        )
        return gradient, output

    def cross_entropy(self, logits: mx.array, targets: mx.array, weights: mx.array) -> Losses:
        """Weighted losses and the gradient of their sum."""
        n_rows, size = logits.shape
        losses, gradient = _launch(
            f"cross_entropy<T, {size}>(logits, targets, weights, losses, gradient);",
            {"logits": logits, "targets": targets, "weights": weights},
            {"losses": (n_rows,), "gradient": logits.shape},
            threads=n_rows * LARGEST_BLOCK,
            block=LARGEST_BLOCK,
            types={"losses": mx.float32},
        )
        return Losses(losses, gradient)

    def adam(
        self,
        gradients: Sequence[mx.array],
        mask: mx.array | None,
        before: Moments,
        factor: mx.array,
        learning_rate: mx.array,
        rates: AdamRates,
    ) -> Moments:
        """One update with `factor` times the gradient."""
        parts = {f"part_{number}": gradient for number, gradient in enumerate(gradients)}
        betas = (rates.beta_1, 1 - rates.beta_1, rates.beta_2, 1 - rates.beta_2)
        numbers = ", ".join(_float(rate) for rate in (*betas, rates.eps))
        names = ("new_weight", "new_m", "new_v")
        return Moments(
            *_launch(
                f"adam<T, {len(parts)}, {_is(mask is not None)}>({{{', '.join(parts)}}}, mask, "
                f"weight, m, v, *factor, *learning_rate, {', '.join(names)}, "
                f"int({_numbers('part_0', gradients[0])}), {numbers});",
                parts
                | {"mask": before.weight if mask is None else mask}
                | before._asdict()
                | {"factor": factor, "learning_rate": learning_rate},
                dict.fromkeys(names, before.weight.shape),
                threads=before.weight.size,
                types=dict.fromkeys(names, mx.float32),
            )
        )


def _launch(
    call: str,
    inputs: dict[str, mx.array],
    outputs: dict[str, tuple[int, ...]],
    threads: int,
    block: int = BLOCK,
    types: dict[str, mx.Dtype] | None = None,
) -> list[mx.array]:
    """Run one function of `kernels.cuh`; T is the type of the first input."""
    dtype = next(iter(inputs.values())).dtype
    kernel = _kernel(f"calltune::{call}", tuple(inputs), tuple(outputs))
    results: list[mx.array] = kernel(
        inputs=list(inputs.values()),
        template=[("T", dtype)],
        grid=(threads, 1, 1),
        threadgroup=(block, 1, 1),
        output_shapes=list(outputs.values()),
        output_dtypes=[(types or {}).get(name, dtype) for name in outputs],
    )
    return results


@cache
def _kernel(call: str, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    digest = hashlib.sha256(f"{SOURCE}{call}{inputs}{outputs}".encode()).hexdigest()[:16]
    name = call.removeprefix("calltune::").partition("<")[0]
    return mx.fast.cuda_kernel(f"calltune_{name}_{digest}", inputs, outputs, call, SOURCE)


def _row_threads(size: int) -> int:
    """A thread for four numbers of a row, in whole warps."""
    return min(LARGEST_BLOCK, -(-size // (4 * WARP)) * WARP)


def _weight(norm: Norm | None, other: mx.array) -> mx.array:
    """A norm's weight; for none, an array that the kernel does not read."""
    return other if norm is None else norm.weight


def _neighbours(
    post: Norm | None, following: Following | None, other: mx.array
) -> dict[str, mx.array]:
    """The weights of the norms and of the LoRA product around a sum."""
    norm = None if following is None else following.norm
    return {
        "post": _weight(post, other),
        "next": _weight(norm, other),
        "a": other if following is None else following.a,
    }


def _eps(post: Norm | None, following: Following | None) -> str:
    norms = (post, None if following is None else following.norm)
    return ", ".join(_float(0.0 if norm is None else norm.eps) for norm in norms)


def _is(claim: Any) -> str:
    return "true" if claim else "false"


def _float(value: float) -> str:
    return f"{value!r}f" if "." in repr(value) or "e" in repr(value) else f"{value!r}.0f"


def _head_template(heads: Heads) -> str:
    has_norm = _is(heads.q_norm)
    return f"T, {heads.n_queries}, {heads.n_keys}, {heads.size}, {has_norm}"


def _tables(heads: Heads, packed: mx.array) -> dict[str, mx.array]:
    return {
        "cosine": heads.cosine,
        "sine": heads.sine,
        "q_weight": _weight(heads.q_norm, packed),
        "k_weight": _weight(heads.k_norm, packed),
    }


def _tokens(heads: Heads) -> str:
    # Shapes are the kernel's arguments, so that it serves every batch.
    eps = 0.0 if heads.q_norm is None else heads.q_norm.eps
    n_tokens = "long(packed_shape[0]) * packed_shape[1]"
    return f"{n_tokens}, int(packed_shape[1]), {_float(eps)}, {_float(heads.scale)}"


def _queries(name: str) -> str:
    n_queries = " * ".join(f"long({name}_shape[{axis}])" for axis in range(3))
    return f"{n_queries}, int({name}_shape[3])"


def _rows(name: str, array: mx.array) -> str:
    return " * ".join(f"long({name}_shape[{axis}])" for axis in range(array.ndim - 1))


def _numbers(name: str, array: mx.array) -> str:
    return " * ".join(f"{name}_shape[{axis}]" for axis in range(array.ndim))
