"""Published losses beside verdicts on speed."""

from __future__ import annotations

import json

import pytest

from lscd.quality import best_formats, quality, quality_line
from perfmodel.evidence.ways import cost_of
from perfmodel.kernels import KERNELS
from perfmodel.worth import worth
from tests.lscd.commands import run

Capture = pytest.CaptureFixture[str]


def test_each_best_has_its_published_loss_or_none() -> None:
    found = worth("llama-3.1-8b", "h100", batches=[16], sparsity=0.5)
    formats = best_formats(found)
    line = quality_line(found.model, formats)
    assert set(formats) >= {found.headline.sparse.kernel}  # type: ignore[union-attr]
    for kernel, (format_name, sparsity) in formats.items():
        loss = cost_of(found.model, format_name, sparsity)
        trained = cost_of(found.model, format_name, sparsity, retrained=True)
        said = [one.words for one in (loss, trained) if one is not None] or ["nothing published"]
        assert all(words in line.partition(f"{kernel}: ")[2] for words in said)


def test_no_model_has_the_losses_of_another() -> None:
    silent = worth("gpt-oss-20b", "h100", batches=[16], sparsity=0.5)
    line = quality_line(silent.model, best_formats(silent))
    assert "point" not in line
    assert line.count("nothing published") == len(best_formats(silent))
    assert quality_line("opt-30b", {}) == ""


def test_json_of_worth_has_the_losses_of_every_rival(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = ["worth", "--model", "llama-3.1-8b", "--gpu", "h100", "--sparsity", "0.5", "--batch", "16"]
    _, out, _ = run(monkeypatch, capsys, *asked, "--json")
    rivals = json.loads(out)["batches"][0]["rivals"]
    at = worth("llama-3.1-8b", "h100", batches=[16], sparsity=0.5).headline
    for shown, rival in zip(rivals, at.rivals, strict=True):
        assert shown["published_quality"] == json.loads(json.dumps(quality("llama-3.1-8b", rival)))
        if KERNELS[rival.kernel].format.change == "lossless":
            assert shown["published_quality"] == {"one_shot": None, "retrained": None}
    _, out, _ = run(monkeypatch, capsys, *asked)
    assert out.splitlines()[1].startswith("Published quality of llama-3.1-8b: ")


def test_a_plan_says_it_too(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    asked = ["plan", "--model", "llama-3.1-8b", "--gpu", "h100", "--sparsity", "0.5"]
    _, out, _ = run(monkeypatch, capsys, *asked)
    assert out.splitlines()[1].startswith("Published quality of llama-3.1-8b: fastertransformer+")
