"""Sweeps: a model over the product of many axes, in chunks that are stored, resumed and spread over machines.

`Plan.of` checks a parsed spec (`perfmodel.sweep.spec` shows one), `run` evaluates it into a Parquet file,
`read_facts` checks such a file and tells what it holds.
"""

from __future__ import annotations

from perfmodel.sweep.runner import run
from perfmodel.sweep.store import read_facts
from perfmodel.sweep.table import Plan

__all__ = ["Plan", "read_facts", "run"]
