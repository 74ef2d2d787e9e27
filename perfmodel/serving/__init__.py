"""Whole models: from a decoder's operators to tokens per GPU-second, memory and cost.

==================  =================================================================================================
question            modules
==================  =================================================================================================
what is there       `transformer` counts products, caches and launches; `group` checks and says how a model is stored
one operator        `passes` times products, `attention`, `experts`, `collectives` and what lies between; `counts` says
                    its FLOP and bytes (`work`), `operators` shows all of a run's (`phases`) in a table
who runs it         `systems`: engines, their hosts and their kernels; `contenders`: who takes part in a comparison
a batch             `run`, with `memory`, `energy` (of `activity`), `what_if`, and the interval (`uncertainty`)
a server            `steady`: load in the steady state; `profile`: step times for a scheduler
many questions      `rows` of a table; `planning`: which system, how many GPUs, which batch; `tradeoff`: the front of
                    throughput and latency
==================  =================================================================================================
"""

from perfmodel.serving.group import resolve
from perfmodel.serving.run import Serving, evaluate

__all__ = ["Serving", "evaluate", "resolve"]
