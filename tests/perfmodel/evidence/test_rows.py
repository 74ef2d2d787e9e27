"""The evidence tables: schema, provenance, and agreement with what their sources publish."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from perfmodel import predict
from perfmodel.catalog import load_gpu, load_kernel_times, load_sources, load_table
from perfmodel.catalog.checks import KERNEL_TIME_COLUMNS
from perfmodel.evidence import rows as rows_module
from perfmodel.evidence.rows import Rows, machines, with_residency
from perfmodel.kernels import CPU_KERNELS, GPU_KERNELS, KERNELS

DATA = Path(__file__).resolve().parents[3] / "data"


TABLES = sorted(
    path.relative_to(DATA).as_posix()
    for folder in ("published", "measured")
    for path in (DATA / folder).rglob("*")
    if path.suffix in (".csv", ".parquet")
)


PAPERS = sorted((DATA / "papers").glob("*.csv"))


STATUSES = {"value", "rough", "lower_bound", "upper_bound", "extrapolated", "assumed-gpu", "slow"}


SHAPE = ["m", "k", "n"]


# One direction of NVLink, bytes/s; a ring all-reduce cannot beat it, NVLS of the H100 switch by a tenth.
NVLINK_BYTES_PER_S = {"a100-80gb": 300e9, "h100": 450e9, "gb200": 900e9}


@pytest.fixture(scope="module")
def times() -> pd.DataFrame:
    return load_kernel_times()


def figure_9(kernel: str) -> pd.DataFrame:
    table = load_table("published/kernel_a100.csv")
    return table[table.kernel == kernel]


def flash_llm_speedup(baseline: str) -> pd.DataFrame:
    """Figure 9's Flash-LLM rows with their ``speedup`` over ``baseline``, cuBLAS being dense at every sparsity."""
    keys = SHAPE if baseline == "cublas" else [*SHAPE, "sparsity"]
    base = figure_9(baseline)[[*keys, "time_us"]].rename(columns={"time_us": "baseline_us"})
    joined = figure_9("flash-llm").merge(base, on=keys, validate="many_to_one")
    return joined.assign(speedup=joined.baseline_us / joined.time_us)


def all_reduce(gpu: str) -> pd.DataFrame:
    """All-reduce rows with ``bus_bytes_per_s``, what each GPU sends in a ring, 2(p-1)/p of the message."""
    table = load_table(f"measured/{gpu}/collectives.csv")
    table = table[table.operation == "all-reduce"]
    sent = 2 * (table.gpus - 1) / table.gpus * table.message_bytes
    return table.assign(bus_bytes_per_s=sent / (table.time_us * 1e-6))


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_a_complete_source(name: str) -> None:
    sources = load_sources()
    used = set(load_table(name).source)
    assert used <= set(sources)
    for key in used:
        said = [value for value in msgspec.structs.asdict(sources[key]).values() if not isinstance(value, bool)]
        assert all(text.strip() for text in said), key


def test_every_source_is_used() -> None:
    used = {key for name in TABLES for key in load_table(name).source}
    used |= {key for path in (DATA / "papers").glob("*.csv") for key in pd.read_csv(path).source}
    assert used == set(load_sources())


@pytest.mark.parametrize("name", TABLES)
def test_gpus_are_in_the_catalogue(name: str) -> None:
    table = load_table(name)
    for gpu in set(table["gpu"].dropna()) if "gpu" in table else ():
        assert (DATA / "hardware" / f"{gpu.partition('@')[0]}.toml").is_file(), gpu


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_described(name: str) -> None:
    words = (DATA / "README.md").read_text(encoding="utf-8")
    folder, _, file = name.rpartition("/")
    assert file in words
    assert Path(folder).name in words


def test_kernel_times_are_complete_and_plausible(times: pd.DataFrame) -> None:
    assert tuple(times.columns) == KERNEL_TIME_COLUMNS
    required = times.drop(columns=["time_err_us", "split_k", "note"])
    assert not required.isna().any(axis=None)
    assert times.time_us.between(2, times["kernel"].isin(CPU_KERNELS).map({True: 5e6, False: 5e5})).all()
    assert set(times.status) <= STATUSES
    assert set(times.cache) == {"warm", "cold"}
    assert (times.loc[times.kernel == "cublas", "sparsity"] == 0).all()


def test_kernel_time_errors_are_small_where_status_is_value(times: pd.DataFrame) -> None:
    value = times[(times.status == "value") & times.time_err_us.notna()]
    assert (value.time_err_us > 0).all()
    relative = value.time_err_us / value.time_us
    assert relative.max() <= 0.1
    assert relative[~value["kernel"].isin(CPU_KERNELS)].median() < 0.01
    assert times.loc[times.status.isin(["lower_bound", "upper_bound"]), "time_err_us"].isna().all()


def test_kernel_times_are_unique(times: pd.DataFrame) -> None:
    # One shape may be measured in several serving stacks; the note tells which.
    keys = ["gpu", "kernel", *SHAPE, "sparsity", "cache", "source", "note"]
    assert not times.duplicated(keys).any()


def test_dense_kernels_read_no_faster_than_dram(times: pd.DataFrame) -> None:
    # Cold or far larger than the L2: weights come from DRAM, so the datasheet's rate (GB/s) bounds them.
    peak = {"a100-80gb": 2039, "a100-40gb": 1555, "rtx-3090": 936, "rtx-2080-super": 496}
    peak |= {"rtx-4090": 1008, "rtx-a6000": 768, "rtx-a5000": 768}
    # Three sources go over a few copies of the weights, or one, of which a larger L2 keeps a part.
    few_copies = ("aiconfigurator-gemm", "slidesparse", "hipsparselt-pytorch")
    timed = "kernel == 'cublas' and m * k > 30e6 and n <= 64"
    dense = times.query(f"{timed} and status != 'rough' and source not in {few_copies}")
    rate = 2 * dense.m * dense.k / dense.time_us / 1e3
    assert set(dense.gpu) == set(peak)
    assert (rate <= dense.gpu.map(peak)).all()
    assert (rate >= 0.6 * dense.gpu.map(peak)).all()


def test_no_kernel_reads_large_weights_faster_than_dram(times: pd.DataFrame) -> None:
    """Whatever its format: weights of more than four times the L2 hardly stay there."""
    rows = times[times["kernel"].isin(GPU_KERNELS) & ~times["status"].isin(["rough", "lower_bound"])]
    checked = 0
    for (kernel, gpu), group in rows.groupby(["kernel", "gpu"]):
        record, model = load_gpu(str(gpu)), KERNELS[str(kernel)]
        weights = model.format.bytes_of(*(group[c].to_numpy(float) for c in ("m", "k", "sparsity")))
        beyond = weights > 4 * record.l2.size_bytes
        rate = weights / (group["time_us"].to_numpy() * 1e-6)
        assert (rate[beyond] <= record.dram.bandwidth_bytes_per_s).all(), (kernel, gpu)
        checked += beyond.sum()
    assert checked > 9_000


def test_flash_llm_on_a_card_that_no_fit_has_seen(times: pd.DataFrame) -> None:
    # Without reordering, so an upper bound where the scatter decides; on a GDDR card DRAM and Tensor Cores do.
    rows = times.query("gpu == 'rtx-a6000' and kernel == 'flash-llm-noreorder'")
    assert (len(rows), rows.n.min(), rows.n.max()) == (16, 8, 4096)
    how = {"cache": "warm", "split_k": rows.split_k}
    for kernel in ("flash-llm", "flash-llm-noreorder"):
        predicted = predict(kernel, "rtx-a6000", m=rows.m, k=rows.k, n=rows.n, sparsity=rows.sparsity, **how)
        assert predicted.extrapolated.all()
        error = 1e6 * predicted.time_s / rows.time_us - 1
        assert error.abs().mean() <= 0.09
        assert error.abs().max() <= 0.3


def test_figure_9_covers_the_benchmark() -> None:
    for kernel, rows in {"cublas": 36, "flash-llm": 108, "sparta": 108, "sputnik": 108, "cusparse": 108}.items():
        table = figure_9(kernel)
        assert len(table) == rows
        assert table.groupby("n").size().to_dict() == dict.fromkeys((8, 16, 32), rows // 3)


def test_figure_9_reproduces_the_published_speedups() -> None:
    published = load_table("published/speedups.csv").query("level == 'kernel' and sparsity.notna()")
    assert len(published) == 9
    for row in published.itertuples():
        ours = flash_llm_speedup(str(row.baseline)).query("sparsity == @row.sparsity").speedup.mean()
        # Printed with one decimal, bars read to 0.5 %; the paper's mean over Sputnik at 70 % is not reproduced closer.
        assert ours == pytest.approx(row.speedup, rel=0.025), row
    for baseline, mean in {"sputnik": 2.9, "sparta": 1.5}.items():
        assert flash_llm_speedup(baseline).speedup.mean() == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize(
    ("n", "expected"), [(8, (1.46, 1.78, 2.21)), (16, (1.44, 1.74, 2.18)), (32, (1.39, 1.62, 1.92))]
)
def test_figure_9_speedup_over_cublas_by_n(n: int, expected: tuple[float, ...]) -> None:
    speedup = flash_llm_speedup("cublas").query("n == @n").groupby("sparsity").speedup.mean()
    assert speedup.to_list() == pytest.approx(expected, rel=0.01)


def test_sweep_agrees_with_figure_9() -> None:
    sweep = load_table("published/sparsity_sweep_a100.csv").query("status == 'value'")
    keys = ["kernel", *SHAPE, "sparsity"]
    both = sweep.merge(load_table("published/kernel_a100.csv").query("status == 'value'"), on=keys)
    assert set(both.kernel) == {"cublas", "flash-llm", "sparta", "sputnik"}
    assert len(both) == 9
    assert (both.time_us_x / both.time_us_y - 1).abs().max() < 0.01


def test_time_falls_with_sparsity() -> None:
    sweep = load_table("published/sparsity_sweep_a100.csv")
    for kernel in ("flash-llm", "sputnik"):
        assert sweep[sweep.kernel == kernel].sort_values("sparsity").time_us.is_monotonic_decreasing


def test_end_to_end_gives_the_headline_ratios() -> None:
    e2e = load_table("published/e2e.csv")
    best = e2e[e2e.fits & (e2e.model == "opt-66b") & (e2e.gpus == 2)].groupby("system").tokens_per_gpu_s.max()
    headline = load_table("published/speedups.csv").query("level == 'end-to-end'").set_index("baseline").speedup
    assert len(headline) == 2
    for baseline, speedup in headline.items():
        assert best["flash-llm"] / best[str(baseline)] == pytest.approx(speedup, abs=0.05)


def test_end_to_end_points_that_do_not_fit_have_no_rate() -> None:
    e2e = load_table("published/e2e.csv")
    assert (e2e.fits == e2e.tokens_per_gpu_s.notna()).all()
    assert not e2e.duplicated(["model", "gpus", "system", "batch"]).any()
    assert (~e2e.fits).sum() == 8
    assert (e2e.loc[e2e.system == "flash-llm", "sparsity"] == 0.8).all()
    rate = e2e[e2e.fits].sort_values("batch").groupby(["model", "system", "gpus"]).tokens_per_gpu_s
    assert rate.apply(lambda rates: rates.is_monotonic_increasing).all()


@pytest.mark.parametrize("gpu", sorted(NVLINK_BYTES_PER_S))
def test_all_reduce_rate_is_what_nvlink_allows(gpu: str) -> None:
    table = all_reduce(gpu)
    limit = NVLINK_BYTES_PER_S[gpu]
    assert (table.bus_bytes_per_s <= 1.1 * limit).all()
    best = table.groupby(["library", "gpus"]).bus_bytes_per_s.max()
    assert len(best) == 4 * table.gpus.nunique()
    if gpu == "gb200":
        best = best.drop(("vllm", 2))  # three times as slow as the other engines
    # Sizes read as bytes would halve these, below half of the link.
    assert (best >= 0.58 * limit).all()


@pytest.mark.parametrize("gpu", sorted(NVLINK_BYTES_PER_S))
def test_collectives_have_one_row_per_case(gpu: str) -> None:
    table = load_table(f"measured/{gpu}/collectives.csv")
    assert not table.duplicated(["library", "operation", "gpus", "message_bytes"]).any()
    assert table.time_us.between(2, 2e4).all()
    assert set(table.operation) == {"all-reduce", "all-gather", "all-to-all", "reduce-scatter"}


@pytest.mark.parametrize(
    ("gpu", "bytes_per_s", "flops_per_s"), [("a100-80gb", 2.039e12, 312e12), ("h100", 3.35e12, 989e12)]
)
def test_dense_gemm_stays_under_the_roofline(gpu: str, bytes_per_s: float, flops_per_s: float) -> None:
    name = f"measured/{gpu}/gemm_bf16.parquet"
    table = load_table(name)
    assert (DATA / name).stat().st_size < 600_000
    assert not table.duplicated(["note", *SHAPE]).any()
    assert (table.m * table.k.astype("int64")).min() >= 4_000_000
    assert table.n.between(1, 512).all()
    seconds = table.time_us * 1e-6
    weights = table.m.astype("int64") * table.k
    read, rate = 2 * weights / seconds, 2 * weights * table.n / seconds
    large = weights >= 64e6
    assert read[large].max() <= bytes_per_s
    assert read[large].max() >= 0.8 * bytes_per_s
    assert rate.max() <= flops_per_s


def test_quantised_kernels_have_model_shapes() -> None:
    table = load_table("measured/a100-80gb/quant_llm_speedup.csv")
    assert len(table) == 216
    printed = table.printed_shape.str.extract(r"([\d.]+)k\*([\d.]+)k").astype(float) * 1024
    assert (printed.to_numpy() == table[["m", "k"]].to_numpy()).all()
    shapes = set(map(tuple, table[table.model == "opt-30b"][["m", "k"]].to_numpy()))
    assert shapes == {(21504, 7168), (7168, 7168), (28672, 7168), (7168, 28672)}
    mean = table[table.kernel == "quant-llm-w6"].groupby("n").speedup.mean()
    assert mean.to_list() == pytest.approx([2.30, 2.26, 2.04], rel=0.01)


def test_quant_llm_breakdown_adds_up() -> None:
    table = load_table("measured/a100-80gb/quant_llm_e2e_breakdown.csv")
    parts = table[["matmul_s", "attention_s", "communication_s", "other_s"]].sum(axis=1)
    assert (parts - table.total_s).abs().max() <= 1.0


def test_boxplot_quantiles_are_ordered() -> None:
    table = load_table("measured/a100-40gb/spinfer_boxplot.csv")
    quantiles = table[[f"speedup_{name}" for name in ("min", "q1", "median", "q3", "max")]]
    assert len(table) == 48
    assert (quantiles.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
    median = table.query("n == 8 and kernel == 'flash-llm-noreorder'").speedup_median
    assert median.round(2).to_list() == [0.69, 0.78, 0.98, 1.27]


def test_rows_are_equal_where_evidence_and_gpus_are(monkeypatch: pytest.MonkeyPatch) -> None:
    table = with_residency(load_kernel_times("published/kernel_a100.csv"))
    first = Rows(table)
    assert first == Rows(table.assign(error=0.1))
    assert hash(first) == hash(Rows(table.copy()))
    for changed in (table.assign(time_us=table["time_us"] * 2), table.assign(source="x"), table.iloc[1:]):
        assert Rows(changed) != first
    slower = replace(machines(table), clock_hz=machines(table).clock_hz / 2)
    monkeypatch.setattr(rows_module, "machines", lambda rows: slower)
    assert Rows(table) != first


def test_devices_are_counted_once() -> None:
    names = pd.Series(["h100", "x@1", "x@2", "a100-80gb", "h100"])
    assert rows_module.devices_in_words(names) == "2 GPUs and 1 CPU"
    assert rows_module.devices_in_words(names[:1]) == "1 GPU"
    assert rows_module.devices_in_words(names[1:3]) == "1 CPU"
