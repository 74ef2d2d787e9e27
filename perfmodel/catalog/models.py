"""Language models: of the catalogue, of a user's TOML file, of a checkpoint's ``config.json``; and their sparsities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from perfmodel.catalog.arguments import path_text
from perfmodel.catalog.files import (
    convert,
    find,
    given_text,
    has,
    named,
    once_a_version,
    own_key,
    parse,
    parse_json,
    read_texts,
    shown,
    stems,
    text_of,
)
from perfmodel.catalog.hf.config import family_of, shape_from_config
from perfmodel.catalog.hf.quantisation import stored_from_config
from perfmodel.catalog.language_model import LanguageModel, Layers
from perfmodel.catalog.sparsities import Sparsities, rows_from_json, rows_from_table, sparsities


def model_names() -> tuple[str, ...]:
    """Keys of the language models in the catalogue, sorted."""
    return stems("models")


def has_model(name: str) -> bool:
    """Whether ``name`` is one of `model_names`."""
    return has("models", name)


def load_model(name_or_path: str | Path) -> LanguageModel:
    """Language model of the catalogue, of a user's TOML file, or of a Hugging Face ``config.json``.

    Parameters
    ----------
    name_or_path
        A key such as ``"opt-30b"``, a path ending in ``.toml`` or ``.json``, or a checkpoint folder holding a
        ``config.json``.

    Raises
    ------
    ValueError
        As :func:`load_gpu` and :func:`model_from_hf_config`.

    Examples
    --------
    >>> load_model("opt-30b").shape.layers
    48
    """
    path = find(name_or_path, "model", "models")
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json":
        return model_from_hf_config(path)
    if not path.exists():
        raise ValueError(f"{shown(path)}: no such file")
    return _model(path)


@once_a_version
def _model(path: Path) -> LanguageModel:
    """A model's TOML file: its ``[shape]`` in our words, or its ``[config]`` in those of Hugging Face."""
    fields = own_key(parse(path), path)
    if "config" in fields:
        config = fields.pop("config")
        source = fields.pop("source", "")
        described = _described(config, path, str(source))
        return convert({"family": family_of(config)} | fields | described, LanguageModel, path)
    shape = fields.get("shape")
    if isinstance(shape, dict) and "blocks" not in shape:
        fields["shape"] = msgspec.to_builtins(convert(shape, Layers, path, within="shape").decoder)
    return convert(fields, LanguageModel, path)


WAY_OUT = "a TOML file with its shape, as in data/models, is understood too"


def _described(config: Any, path: Path, source: str) -> dict[str, Any]:
    """Shape and storage that a Hugging Face configuration describes, as fields of a model; refusals name a way out."""
    with named(path):
        try:
            shape = shape_from_config(config, source)
            stored = stored_from_config(config, shape)
        except KeyError as error:
            raise ValueError(f"missing key {error}; {WAY_OUT}") from error
        except ValueError as error:
            raise ValueError(f"{error}; {WAY_OUT}") from error
    return {"shape": msgspec.to_builtins(shape), "stored": msgspec.to_builtins(stored)}


def model_from_hf_config(path: str | Path) -> LanguageModel:
    """Language model that a Hugging Face ``config.json`` describes.

    Parameters
    ----------
    path
        The file; its folder's name becomes the model's key when it is called ``config.json``, else its own stem.

    Raises
    ------
    ValueError
        If the file is missing or no JSON, its ``model_type`` is unsupported, or a key is missing or out of range;
        the message names the file and the key.
    """
    path = Path(path_text("path", path))
    config, beside = parse(path), path.with_name("hf_quant_config.json")
    if path.name == "config.json" and "quantization_config" not in config and beside.is_file():
        config |= {"quantization_config": parse(beside)}  # ModelOpt's older exports
    return _from_config(config, path, path.resolve().parent.name if path.name == "config.json" else path.stem)


def model_from_text(text: str | bytes, name: str) -> LanguageModel:
    """Language model that the text of a ``config.json`` describes, of an upload for example; no file is touched.

    Parameters
    ----------
    text
        At most `LARGEST_BYTES` of UTF-8.
    name
        What messages call it, such as ``my-model.json``; without that suffix it is the model's key, unless it is the
        ``config.json`` of any model: that one is called after its family.

    Raises
    ------
    ValueError
        As :func:`model_from_hf_config`.
    """
    path = Path(path_text("name", name))
    config = parse_json(given_text(text, path), path)
    return _from_config(config, path, "" if path.name == "config.json" else path.name.removesuffix(".json"))


def _from_config(config: dict[str, Any], path: Path, key: str) -> LanguageModel:
    """The model, called after its family where it has no ``key``."""
    described = _described(config, path, source=str(path))
    family = family_of(config)
    key = key or f"your-{family}"
    fields = {"key": key, "name": config.get("_name_or_path") or key, "family": family}
    return convert(fields | described, LanguageModel, path)


def load_sparsities(path: str | Path) -> Sparsities:
    """Sparsity of each matrix of a pruned checkpoint, layer by layer.

    Parameters
    ----------
    path
        A ``.json`` file with the output of ``lscd weights inspect --json``, or a ``.csv`` file with the columns
        ``layer``, ``matrix`` (our name, such as ``mlp-in``, or that of a tensor), ``sparsity`` and, if the file counts
        them, ``weights``.

    Raises
    ------
    ValueError
        If the file is missing, of another kind, or holds what is no sparsity of a decoder's matrix (`sparsities`); the
        message names file, row and value.
    """
    path = _census_path("path", path)
    return _sparsities(text_of(path), path)


def sparsities_from_text(text: str | bytes, name: str) -> Sparsities:
    """Sparsity of each matrix that the text of such a file holds, of an upload for example; no file is touched.

    Parameters
    ----------
    text
        At most `LARGEST_BYTES` of UTF-8.
    name
        What messages call it; its suffix says what it is, as in :func:`load_sparsities`.

    Raises
    ------
    ValueError
        As :func:`load_sparsities`.
    """
    path = _census_path("name", name)
    return _sparsities(given_text(text, path), path)


def _census_path(argument: str, value: str | Path) -> Path:
    path = Path(path_text(argument, value))
    if path.suffix not in (".csv", ".json"):
        raise ValueError(f"{shown(path)}: suffix is {path.suffix!r}, allowed are .csv and .json")
    return path


def _sparsities(text: str, path: Path) -> Sparsities:
    is_json = path.suffix == ".json"
    read = parse_json(text, path) if is_json else read_texts(text, path)
    with named(path):
        return sparsities(rows_from_json(read) if is_json else rows_from_table(read), str(path))
