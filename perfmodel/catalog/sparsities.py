"""How sparse is each matrix of a pruned checkpoint, layer by layer?

Pure: rows of a file come in (`load.load_sparsities` reads it), one frozen record goes out. Pruning that gives each
layer its own sparsity (OWL, ALS, global magnitude) keeps it here; tensors that engines multiply at once (Q, K and V;
gate and up-projection; a layer's experts) are put together by their weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from perfmodel.catalog.decoder import LATENT_DOWN, LATENT_UP, LM_HEAD, QKV, QUERY
from perfmodel.catalog.language_model import LanguageModel
from perfmodel.catalog.matrix_names import RECURRENT_IN, elsewhere, layer_of, matrix_counts, matrix_of, matrix_weights
from perfmodel.catalog.names import unknown_name
from perfmodel.catalog.records import Natural, Record, Text

DECIMALS = 3  # of the sparsities that `Sparsities.shares` tells apart
SAME_SIZE = 0.01  # by which counts of weights may differ: rows that pad a matrix
COLUMNS = ("layer", "matrix", "sparsity")
_UNEQUAL = (QKV, LATENT_DOWN, RECURRENT_IN)  # made up of tensors of several sizes


class LayerSparsity(Record, frozen=True, kw_only=True):
    """Fraction of zeros of one matrix in one layer.

    ``layer`` is None outside layers (the output head); ``weights`` counts the weights, 1 if the file does not.
    """

    layer: Natural | None
    sparsity: Annotated[float, msgspec.Meta(ge=0, le=1)]
    weights: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Sparsities(Record, frozen=True, kw_only=True):
    """Sparsity of a checkpoint's matrices, by their names in `decoder`, one entry a layer; ``source`` is the file."""

    source: Text
    matrices: dict[Text, tuple[LayerSparsity, ...]]

    def shares(self, name: str) -> tuple[tuple[float, float], ...]:
        """Distinct sparsities of matrix ``name``, rounded to thousandths, and the fraction of its weights with each.

        Ascending; the fractions sum to 1. A matrix that the file lacks is dense.
        """
        entries = self.matrices.get(name)
        if not entries:
            return ((0.0, 1.0),)
        found: dict[float, float] = {}
        for entry in entries:
            rounded = round(entry.sparsity, DECIMALS)
            found[rounded] = found.get(rounded, 0.0) + entry.weights
        total = sum(found.values())
        return tuple((sparsity, found[sparsity] / total) for sparsity in sorted(found))

    @property
    def every(self) -> tuple[float, ...]:
        """Sparsities of all matrices in all layers."""
        return tuple(entry.sparsity for entries in self.matrices.values() for entry in entries)

    def mean(self, *names: str) -> float:
        """Fraction of zeros over the matrices ``names``, all by default, of those that the file has; 0 if it has none.

        Matrices count by their weights, or, where the file has no counts, alike.
        """
        entries = [entry for name in names or self.matrices for entry in self.matrices.get(name, ())]
        total = sum(entry.weights for entry in entries)
        return sum(entry.sparsity * entry.weights for entry in entries) / total if total else 0.0

    def check(self, model: LanguageModel) -> None:
        """Refuse a file that is of another model.

        Raises
        ------
        ValueError
            If it has a matrix that no layer of ``model`` has, a layer beyond the last, a matrix in more or fewer layers
            than have it, or of another size; the message names file, value and what is allowed.
        """
        counts, weights, layers = matrix_counts(model.shape), matrix_weights(model.shape), model.shape.layers
        for name, entries in self.matrices.items():
            if name == LM_HEAD:
                continue
            if name not in counts:
                raise ValueError(f"{self.source}: {unknown_name(f'matrix of {model.name}', name, [*counts, LM_HEAD])}")
            last = max(-1 if entry.layer is None else entry.layer for entry in entries)
            if last >= layers:
                raise ValueError(
                    f"{self.source}: layer of {name} is {last}, allowed for {model.name} are 0 to {layers - 1}"
                )
            if len(entries) != counts[name]:
                raise ValueError(
                    f"{self.source}: number of layers with {name} is {len(entries)}, allowed for {model.name} is "
                    f"{counts[name]}"
                )
            counted = sum(entry.weights for entry in entries)
            if any(entry.weights != 1 for entry in entries) and abs(counted / weights[name] - 1) > SAME_SIZE:
                raise ValueError(
                    f"{self.source}: weights of {name} are {counted:,.0f}, those of {model.name} are {weights[name]:,}"
                )


class Row(NamedTuple):
    """One tensor or matrix of a file; ``place`` is how messages call it, ``weights`` None if the file has no counts."""

    place: str
    layer: int | None
    name: str
    sparsity: float
    weights: float | None


def sparsities(rows: Iterable[Row], source: str) -> Sparsities:
    """Rows put together by layer and matrix.

    Raises
    ------
    ValueError
        If a name is none of a decoder's, a row comes twice, contradicts its name's layer, has a sparsity outside
        [0, 1], or tensors of several sizes and sparsities belong together and the file does not count their weights.
    """
    grouped: dict[tuple[str, int | None], list[Row]] = {}
    seen: set[tuple[int | None, str]] = set()
    for row in rows:
        _check_range(row)
        found = _place(row)
        if found is None:
            continue
        layer, matrix = found
        if (layer, row.name) in seen:
            raise ValueError(f"{row.place}: matrix is {row.name!r} a second time, allowed is once a layer")
        seen.add((layer, row.name))
        grouped.setdefault((matrix, layer), []).append(row)
    if not grouped:
        raise ValueError("there is no matrix of a decoder, allowed are names such as qkv, or those of tensors")
    matrices: dict[str, list[LayerSparsity]] = {}
    for (matrix, layer), members in grouped.items():
        if matrix == QKV and (LATENT_UP, layer) in grouped:  # keys come from latents there: q_proj makes queries alone
            matrix = QUERY
        matrices.setdefault(matrix, []).append(_together(matrix, layer, members))
    ordered = {
        name: tuple(sorted(entries, key=lambda entry: -1 if entry.layer is None else entry.layer))
        for name, entries in matrices.items()
    }
    return Sparsities(source=source, matrices=ordered)


def rows_from_json(parsed: Mapping[str, Any]) -> list[Row]:
    """Rows of what ``lscd weights inspect --json`` prints.

    Raises
    ------
    ValueError
        If it is something else; the message names the key.
    """
    matrices = parsed.get("matrices")
    if not isinstance(matrices, list) or not matrices:
        raise ValueError("matrices is no list, allowed is what `lscd weights inspect --json` prints")
    rows = []
    for i, entry in enumerate(matrices):
        place = f"matrices[{i}]"
        if not isinstance(entry, Mapping) or not {"name", "m", "k", "sparsity"} <= set(entry):
            raise ValueError(f"{place} lacks name, m, k or sparsity, which `lscd weights inspect --json` prints")
        m, k, sparsity = (_number(entry[key], f"{place}.{key}") or 0.0 for key in ("m", "k", "sparsity"))
        rows.append(Row(place, None, str(entry["name"]), round(sparsity, 9), m * k))  # a full matrix may have -1e-17
    return rows


def rows_from_table(columns: Mapping[str, list[Any]]) -> list[Row]:
    """Rows of a table with the columns ``layer``, ``matrix``, ``sparsity`` and, if it has counts, ``weights``.

    Raises
    ------
    ValueError
        If a column is missing or unknown, or a value is no number; the message names row and column.
    """
    allowed = (*COLUMNS, "weights")
    if missing := [name for name in COLUMNS if name not in columns]:
        raise ValueError(f"missing column {missing[0]}, allowed are {', '.join(allowed)}")
    if unknown := [name for name in columns if name not in allowed]:
        raise ValueError(f"unknown column {unknown[0]!r}, allowed are {', '.join(allowed)}")
    rows = []
    for i, name in enumerate(columns["matrix"]):
        values = {key: _number(columns[key][i], f"row {i + 1}: {key}") for key in columns if key != "matrix"}
        layer = values["layer"]
        if layer is not None and (layer < 0 or not layer.is_integer()):
            raise ValueError(f"row {i + 1}: layer is {layer:g}, allowed are whole numbers from 0")
        if (sparsity := values["sparsity"]) is None:
            raise ValueError(f"row {i + 1}: sparsity is empty, allowed is a fraction from 0 to 1")
        whole = None if layer is None else int(layer)
        rows.append(Row(f"row {i + 1}", whole, str(name).strip(), sparsity, values.get("weights")))
    return rows


def _number(value: object, place: str) -> float | None:
    text = str(value).strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise ValueError(f"{place} is {text!r}, allowed is a number") from None


def _check_range(row: Row) -> None:
    if not 0 <= row.sparsity <= 1:
        raise ValueError(f"{row.place}: sparsity of {row.name} is {row.sparsity:g}, allowed is a fraction from 0 to 1")
    if row.weights is not None and not 0 < row.weights < float("inf"):
        raise ValueError(f"{row.place}: weights of {row.name} is {row.weights:g}, allowed is a positive number")


def _place(row: Row) -> tuple[int | None, str] | None:
    """Layer and matrix of a row; None for tensors beside the decoder's layers (embeddings, vision towers)."""
    found = matrix_of(row.name)
    if found is None and row.name and "." not in row.name:
        return row.layer, row.name  # our own name, which the model will know or refuse
    if found is None:
        if row.name and (elsewhere(row.name) or layer_of(row.name) is None):
            return None
        raise ValueError(f"{row.place}: matrix is {row.name!r}, allowed are names such as qkv, or those of tensors")
    layer, matrix = found
    if layer is not None and row.layer not in (None, layer):
        raise ValueError(f"{row.place}: layer is {row.layer}, allowed for {row.name} is {layer}")
    return (row.layer if layer is None else layer), matrix


def _together(matrix: str, layer: int | None, members: list[Row]) -> LayerSparsity:
    """Sparsity of the tensors that make up one matrix of one layer."""
    uncounted = [row for row in members if row.weights is None]
    if matrix in _UNEQUAL and uncounted and len({row.sparsity for row in members}) > 1:
        first = uncounted[0]
        raise ValueError(f"{first.place}: {first.name} is a part of {matrix}, weights is empty, allowed is its number")
    sizes = [1.0 if row.weights is None else row.weights for row in members]
    mean = sum(row.sparsity * size for row, size in zip(members, sizes, strict=True)) / sum(sizes)
    return LayerSparsity(layer=layer, sparsity=min(mean, 1.0), weights=sum(sizes))
