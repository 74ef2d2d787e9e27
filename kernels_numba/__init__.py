"""Real kernels for "load as sparse, compute as dense" products, and what proves them without a GPU.

Start with ``spmm.spmm(weights, x)`` and the encoders in ``formats``. The GPU kernels are ``gpu_tiled_csl`` (the
paper's), ``gpu_dense`` and ``gpu_csr`` (baselines). ``compile`` turns them into machine code, ``ptx_emulator`` executes
them, ``check`` and ``trace`` do both for all of them, ``device`` runs them on a GPU, ``bench_gpu`` checks and measures
them there. ``cpu`` holds the CPU twins. Importing this package imports none of that.

No module here is called ``cuda_*``: its full name would contain "numba.cuda", which numba-cuda's import hook takes for
its own and sends into endless recursion.
"""
