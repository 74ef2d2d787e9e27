"""Real kernels for "load as sparse, compute as dense" products, and what proves them without a GPU.

Start with ``spmm.spmm(weights, x)`` and the encoders in `formats`. `gpu` holds the GPU kernels and what compiles,
launches and counts them, `ptx_emulator` executes them, `cpu` their CPU twins; `checkpoints` reads and writes real
weights, `bench` measures. `check` proves every kernel, `plan` chooses among them, `reference` is what all are judged
by. Importing this package imports none of that.

No folder or module here is called ``cuda``: its full name would contain "numba.cuda", which numba-cuda's import hook
takes for its own and sends into endless recursion.
"""

from kernels_numba.moved import keep_old_names

keep_old_names()
