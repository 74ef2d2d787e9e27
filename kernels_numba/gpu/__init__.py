"""GPU kernels in Numba-CUDA, from the PTX they are written in to the launch that runs them, on a GPU or emulated.

`tiled_csl` (the paper's), `bitmap`, `sparta`, `dense` and `csr` are the kernels, built from `stages` and `ptx`;
`variants` lists their compiled choices, `compile` and `sass` make and read their machine code; `launch` plans a
product, `device` runs it on a GPU, `emulate` on the PTX emulator, `trace` counts it.
"""
