"""Kernels for NVIDIA's GPUs: rows of the schedule table like those of a CPU.

- `bind`: what is written as parallel loops, for any machine, on the threads of a GPU;
- `thread_tile`: what convolutions have in common, a register tile of pixels and channels a thread;
- `mma_tile`: the same for tensor cores, a tile of pixels and channels a warp;
- `generate`: from there to CUDA's text;
- `conv2d_dp4a`, `conv2d_mma` and `conv2d_direct`: what multiplies.

A warp's threads are 32 neighbouring pixels, and the four channels that a thread stores are one
32-bit word of NCHW16c. So activations are read and written in whole lines of 128 bytes, where they
lie, and no kernel uses shared memory or waits for other threads.
"""
