"""GPU kernels in Numba-CUDA, from the PTX they are written in to the launch that runs them, on a GPU or emulated.

`tiled_csl` (the paper's), `sparta`, `dense` and `csr` are kernels, built from `stages` and `ptx`. `ring` and, on Hopper
`bulk` are those of all formats that are decoded in registers: they stream records, which a decoder of `bitmap` or
`condensed` multiplies (`decoders`), and their blocks share one list of work (`share`). `elements` turns fp16 kernels
into bfloat16 ones; `variants` lists the compiled choices.

`compile` and `sass` make and read machine code, `build`, `cubins` and `toolchain` keep it and find what makes it;
`launch` plans a product, `device` and `driver` run it on a GPU, `emulate` on the PTX emulator, `trace` counts it.
"""
