"""Shapes and times that the simulator's tests share."""

from __future__ import annotations

from perfmodel.pipeline import simulate

SHAPE = (9216, 9216)


def home(kernel):
    """An A100, or the card of Hopper for kernels that need one."""
    return "h100" if kernel.endswith("-bulk") else "a100-80gb"


def time_of(kernel="flash-llm", gpu="a100-80gb", n=8, sparsity=0.8, shape=SHAPE, **options):
    return simulate(kernel, gpu, *shape, n, sparsity, **options).time_s
