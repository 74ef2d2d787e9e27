"""Chunks as Arrow tables: what one worker returns and one Parquet file holds.

The bytes of a chunk follow from spec, catalogue and package versions alone, so a second run, another machine of the
same installation, or a cluster writes the same file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypedDict

import msgspec
import numpy as np
import pyarrow as pa

from perfmodel.catalog import load_calibration, load_device, load_model
from perfmodel.kernels import KERNELS
from perfmodel.kernels.fits import calibrated, kernel_fits
from perfmodel.kernels.registry import OWN
from perfmodel.serving.collectives import CALIBRATION_FILE as SYSTEMS_FILE
from perfmodel.sweep.evaluate import BOUNDS, block_results
from perfmodel.sweep.grid import Block
from perfmodel.sweep.spec import TARGETS, WHOLE, Spec

FORMAT_VERSION = 2
METADATA_KEY = b"lscd_sweep"
_PACKAGES = ("lscd-lab", "numpy", "pyarrow")
_KINDS = {"number": pa.float64(), "flag": pa.bool_(), "text": pa.dictionary(pa.int8(), pa.string())}


class Facts(TypedDict):
    """What a file says of the sweep that wrote it; the types are checked where it is read."""

    spec: dict[str, Any]
    versions: dict[str, str]
    catalogue: str
    points: int
    chunks: int
    columns: dict[str, str]


def parsed_facts(identity: bytes) -> Facts:
    """Facts of a `Plan.identity` that somebody stored.

    Raises
    ------
    ValueError
        If it is none; the message says where.
    """
    try:
        return msgspec.json.decode(identity, type=Facts)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it says no facts of a sweep: {error}") from None
    except RecursionError:
        raise ValueError("it says no facts of a sweep, but is nested too deeply") from None


@dataclass(frozen=True)
class Plan:
    """A spec together with what its numbers depend on; stored in every file and compared before a resume.

    Attributes
    ----------
    spec : Spec
        What to evaluate.
    parsed : dict
        The spec as its file said it.
    versions : dict
        Package versions and the version of this file format.
    catalogue : str
        SHA-256 of every GPU, model and fitted or assumed parameter the sweep uses.
    """

    spec: Spec
    parsed: dict[str, Any]
    versions: dict[str, str]
    catalogue: str

    @classmethod
    def of(cls, parsed: dict[str, Any]) -> Plan:
        """Check a parsed spec (see `Spec.of`) and note what it depends on."""
        spec = Spec.of(parsed)
        return cls(spec, parsed, _versions(), _catalogue_hash(spec))

    @cached_property
    def identity(self) -> str:
        """JSON that two sweeps share only if their results are the same, bit for bit."""
        grid = self.spec.grid
        facts = Facts(
            spec=self.parsed, versions=self.versions, catalogue=self.catalogue,
            points=grid.points, chunks=grid.chunks, columns=described(self._fields),
        )  # fmt: skip
        return json.dumps(facts, sort_keys=True)

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the output; the identity is in the metadata."""
        return self._fields.with_metadata({METADATA_KEY: self.identity.encode()})

    @property
    def _fields(self) -> pa.Schema:
        fields = [pa.field(axis, _axis_type(self.spec, axis)) for axis in self.spec.grid.axes]
        kinds = TARGETS[self.spec.target].results
        return pa.schema(fields + [pa.field(column, _KINDS[kinds[column]]) for column in self.spec.columns])


def described(schema: pa.Schema) -> dict[str, str]:
    """Columns and their types in words."""
    return {field.name: str(field.type) for field in schema}


def chunk_table(plan: Plan, index: int) -> pa.Table:
    """Rows of chunk ``index``, in the order of the grid."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in plan.schema.names}
    for block in plan.spec.grid.chunk(index):
        for name, values in _block_columns(plan.spec, block).items():
            parts[name].append(values)
    arrays = [_arrow(plan.spec, field, np.concatenate(parts[field.name])) for field in plan.schema]
    return pa.Table.from_arrays(arrays, schema=plan.schema)


def check_worker(plan: Plan) -> None:
    """Refuse to evaluate a plan made with other versions or data than this process has.

    Raises
    ------
    ValueError
        Names what differs.
    """
    here = {**_versions(), "catalogue": _catalogue_hash(plan.spec)}
    there = {**plan.versions, "catalogue": plan.catalogue}
    differ = [f"{name} {here.get(name)} instead of {there[name]}" for name in there if here.get(name) != there[name]]
    if differ:
        raise ValueError(f"this worker has {', '.join(differ)}")


def _block_columns(spec: Spec, block: Block) -> dict[str, np.ndarray]:
    """Flat columns of the rows kept; names and texts as codes."""
    results, keep = block_results(spec, block)
    rows = None if keep is None else np.flatnonzero(np.broadcast_to(keep, block.shape))
    codes = {axis: np.asarray(spec.grid.codes[axis][name], dtype=np.int32) for axis, name in block.names.items()}
    columns = codes | block.numbers | {name: results[name] for name in spec.columns}
    flat = {name: np.broadcast_to(values, block.shape).reshape(-1) for name, values in columns.items()}
    return flat if rows is None else {name: values[rows] for name, values in flat.items()}


def _axis_type(spec: Spec, axis: str) -> pa.DataType:
    if axis in spec.grid.codes:
        return pa.dictionary(pa.int32(), pa.string())
    return pa.int64() if axis in WHOLE else pa.float64()


def _arrow(spec: Spec, field: pa.Field, values: np.ndarray) -> pa.Array:
    if not pa.types.is_dictionary(field.type):
        return pa.array(values.astype(field.type.to_pandas_dtype(), copy=False))
    words = list(spec.grid.codes.get(field.name, BOUNDS))
    codes = pa.array(values.astype(field.type.index_type.to_pandas_dtype(), copy=False))
    return pa.DictionaryArray.from_arrays(codes, pa.array(words))


def _versions() -> dict[str, str]:
    found = {"format": str(FORMAT_VERSION)}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that nobody installed
            found[package] = "uninstalled"
    return found


def _catalogue_hash(spec: Spec) -> str:
    names = spec.grid.codes
    records: list[Any] = [load_device(name) for name in names["gpu"]]
    records += [load_model(name) for name in names.get("model", ())]
    fits = kernel_fits()
    parameters = {kernel: (fits.get(kernel), asdict(calibrated(kernel, fits))) for kernel in KERNELS}
    records += [parameters, load_calibration(SYSTEMS_FILE), *filter(None, [OWN.text])]
    return hashlib.sha256(msgspec.json.encode(records, order="deterministic")).hexdigest()
