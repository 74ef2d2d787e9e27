"""Documentation: every example runs, every command exists, links and navigation are whole (offline)."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from kernels_numba.gpu import compile
from lscd.cli import app
from lscd.report.readme import TABLES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "notebooks" not in path.relative_to(DOCS).parts)
NAMES = [path.relative_to(DOCS).as_posix() for path in PAGES]


def load_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = load_hooks()


class AnyTag(yaml.SafeLoader):
    """Reads mkdocs.yml without importing what its tags name."""


AnyTag.add_multi_constructor("", lambda loader, tag, node: tag)


def nav_pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    items = entry.values() if isinstance(entry, dict) else entry
    return [page for item in items for page in nav_pages(item)]


def test_navigation_names_every_page_and_notebook_once() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader=AnyTag)
    notebooks = [f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")]
    papers = [name for name in NAMES if name.startswith("papers/") and name != "papers/index.md"]  # a hook adds them
    assert sorted(nav_pages(config["nav"]) + papers) == sorted(NAMES + notebooks)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_examples_run_and_placeholders_are_filled(path: Path) -> None:
    filled = HOOKS.on_page_markdown(path.read_text(encoding="utf-8"))
    assert " run\n" not in re.findall(r"^```.*\n", filled, flags=re.MULTILINE)
    stored = {
        mark for tables in TABLES.values() for name in tables for mark in (f"<!-- {name} -->", f"<!-- /{name} -->")
    }
    assert set(re.findall(r"<!-- .*? -->", filled)) <= stored


def commands(command: Any, path: str = "lscd") -> dict[str, set[str]]:
    children = getattr(command, "commands", {})
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    found = {path: options | {"--help"}}
    for name, child in children.items():
        found |= commands(child, f"{path} {name}")
    return found


def starts_with(words: list[str], first: list[str]) -> bool:
    return words[: len(first)] == first


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_named_commands_and_options_exist(path: Path) -> None:
    known = commands(typer.main.get_command(app))
    text = path.read_text(encoding="utf-8")
    lines = re.findall(r"^(?:\$ )?(lscd .*)$", text, flags=re.MULTILINE) + re.findall(r"`(lscd [^`]+)`", text)
    for line in lines:
        words = line.split("#")[0].split()
        name = max((known_name for known_name in known if starts_with(words, known_name.split())), key=len)
        assert name != "lscd", f"{path.name}: no such command: {line}"
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in known[name], f"{path.name}: {name} has no {option}"


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([\w-]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)) <= targets


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_named_files_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    built = set((ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())  # not there in a fresh clone
    for name in re.findall(r"`((?:perfmodel|kernels_numba|data|tests|reports|docs|notebooks)/[\w./-]*)`", text):
        assert name in built or (ROOT / name).exists(), f"{path.name} names {name}"


def test_the_reference_shows_every_command() -> None:
    reference = HOOKS.cli_reference()
    leaves = [name for name in commands(typer.main.get_command(app)) if f"## {name}\n" in reference]
    groups = {name.rsplit(" ", 1)[0] for name in leaves if name.count(" ") == 2} | {"lscd"}
    assert set(leaves) | groups == set(commands(typer.main.get_command(app)))


def test_a_failing_example_fails_the_build() -> None:
    with pytest.raises(ValueError, match="lscd predict --gpu nonsense"):
        HOOKS.on_page_markdown("```shell run\nlscd predict --gpu nonsense --m 8 --k 8 --n 8\n```\n")
    with pytest.raises(ValueError, match="allowed are lscd commands"):
        HOOKS.on_page_markdown("```shell run\nrm -r everything\n```\n")
    with pytest.raises(NameError):
        HOOKS.on_page_markdown("```python run\nundefined\n```\n")


def test_sentences_wrap_and_tables_keep_their_columns() -> None:
    assert "```output\none sentence\n```" in HOOKS.on_page_markdown("```python run\nprint('one sentence')\n```\n")
    assert "```text\na  b\n```" in HOOKS.on_page_markdown("```python run\nprint('a  b')\n```\n")
    assert "```text\n b\n```" in HOOKS.on_page_markdown("```python run\nprint('', 'b')\n```\n")


def test_an_example_that_compiles_says_so_where_nothing_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kernels_numba.gpu.toolchain.find_spec", lambda name: None)
    monkeypatch.setenv("LSCD_CUBINS", str(tmp_path))
    for name in ("compile_ptx", "compile_kernel"):  # another test of this process may have compiled it
        getattr(compile, name).cache_clear()
    by_python = (
        "from kernels_numba.gpu import variants\nfrom kernels_numba.gpu.compile import compile_ptx\n"
        "compile_ptx.__wrapped__(variants.dense(8), 'sm_100')\n"
    )
    assert HOOKS.NO_COMPILER in HOOKS.on_page_markdown(f"```python run\n{by_python}```\n")
    command = "lscd kernels inspect two_four_n8 --arch sm_100"
    assert HOOKS.NO_COMPILER in HOOKS.on_page_markdown(f"```shell run\n{command}\n```\n")


def test_every_question_has_an_answer_in_numbers() -> None:
    """Each has a printed output before the next, but those that need a file or a GPU of the reader."""
    filled = HOOKS.on_page_markdown((DOCS / "questions.md").read_text(encoding="utf-8"))
    asked = re.split(r"^\*\*(?=[A-Z])", filled, flags=re.MULTILINE)[1:]
    silent = [part.split("**")[0] for part in asked if not re.search(r"```(?:text|output)\n[^`]*\d", part)]
    assert silent == [
        "Does it take BF16?",
        "Illegal memory accesses?",
        "Can I calibrate on my own data?",
        "How is it defined?",
    ]


def test_a_picture_that_is_not_there_fails_the_build() -> None:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.plugins import PluginCollection
    from mkdocs.structure.files import File, Files

    config = MkDocsConfig()
    config["site_dir"], config["use_directory_urls"], config["plugins"] = "site", False, PluginCollection()
    config.plugins._current_plugin = "the test"  # whom MkDocs names as the maker of a file
    shown = "![what](../reports/figures/kernel_benchmark.png)"
    files = HOOKS.on_files(Files([File.generated(config, "index.md", content=shown)]), config)
    assert files.get_file_from_path("figures/kernel_benchmark.png") is not None
    assert HOOKS.on_page_markdown(shown) == "![what](figures/kernel_benchmark.png)"
    deeper = HOOKS.on_page_markdown("![what](../../reports/figures/kernel_benchmark.png)")
    assert deeper == "![what](../figures/kernel_benchmark.png)"
    absent = File.generated(config, "other.md", content="![what](../reports/figures/absent.png)")
    with pytest.raises(ValueError, match=r"other.md shows reports/figures/absent.png"):
        HOOKS.on_files(Files([absent]), config)


def test_the_site_builds_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, anchors, navigation and API references, as MkDocs itself sees them."""
    import warnings

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    from nbconvert import MarkdownExporter
    from traitlets.config import Config

    exporter = MarkdownExporter(config=Config({"TagRemovePreprocessor": {"remove_input_tags": {"plumbing"}}}))
    pages = tmp_path / "docs"
    for path in [*PAGES, DOCS / "hooks.py", DOCS / "extra.css", DOCS / "javascripts" / "iframe-worker.js"]:
        copy = pages / path.relative_to(DOCS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (pages / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text, resources = exporter.from_filename(str(path))
        (pages / "notebooks" / f"{path.stem}.md").write_text(text, encoding="utf-8")
        for name, content in resources["outputs"].items():
            (pages / "notebooks" / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MkDocs and its plugins have their own
        from mkdocs.commands.build import build
        from mkdocs.config import load_config

        config = load_config(str(ROOT / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(tmp_path / "site"))
        build(config)
    page = (tmp_path / "site" / "notebooks" / "01_why_skinny_matmuls_are_memory_bound.html").read_text(encoding="utf-8")
    assert "FLOP per byte" in page
    assert 'href="03_inside_the_kernel.html"' in page
    assert "plt.style.use" not in page, "plumbing is hidden"
    solution = page.partition("<details>")[2].partition("</details>")[0]
    assert 'class="language-python highlight"' in solution
    assert "<p>A little more than the ridge point" in solution, "Markdown within a solution is Markdown"
    assert not re.search(r'(?:src|href)="https?://(?:fonts|cdn|unpkg)', page), "a page fetches something"
    assert 'src="../javascripts/iframe-worker.js"' in page, "without it pages opened as files cannot be searched"
    index = (tmp_path / "site" / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = {")
    assert "Flash-LLM" in index
    front = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    picture = re.search(r'src="(figures/[\w.-]+)"', front)
    assert picture
    assert (tmp_path / "site" / picture[1]).is_file()
    assert "Against which rival does it lose?" in front


def test_the_page_of_your_own_kernel_can_be_followed_as_it_stands(tmp_path: Path) -> None:
    """Every file and command of it in a fresh folder, in order, each once: what a reader copies."""
    page = (DOCS / "how-to" / "your-kernel.md").read_text(encoding="utf-8")
    script = ["set -e"]
    for language, title, text in re.findall(r"```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)```\n", page, flags=re.DOTALL):
        if title:
            script.append(f"cat > {title} <<'END'\n{text}END")
        elif language == "shell":
            script += [f'echo "\\$ {line}"; {line}' for line in text.splitlines()]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    lines = "\n".join(script)
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        ["bash", "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    told = dict(answer.split("\n", 1) for answer in run.stdout.split("$ lscd ")[1:])
    assert all("my-kernel" in answer or command == "formats" for command, answer in told.items())
    assert "\ngap8 " in told["formats"]
    held_out = re.search(r"my-kernel, held out at N = 16: ([\d.]+)% mean error on 4 rows", run.stdout)
    assert held_out
    assert float(held_out[1]) < 6
    assert sorted(path.name for path in (tmp_path / "my-kernel").iterdir()) == ["my.csv", "my.json", "my_kernel.py"]
