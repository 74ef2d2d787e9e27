"""Whole models: from a decoder's operators to tokens per GPU-second, memory and cost.

`transformer` counts; `memory`, `collectives` and `systems` turn counts into bytes and seconds; `run` adds them up to a
run; `planning` asks which run is best.
"""

from perfmodel.serving.run import Serving, evaluate, resolve

__all__ = ["Serving", "evaluate", "resolve"]
