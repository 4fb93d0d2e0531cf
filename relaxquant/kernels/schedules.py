"""The files of the schedule table: importing one adds its rows.

========================== ========== ===========================================================
name                       precision  what it is
========================== ========== ===========================================================
nchw_spatial_pack          all        direct convolution in register tiles; in own files depthwise,
                                      dense on several images, the first layer in int8, and, for
                                      few bits, dense on one image and sums in int16
nchw_simd                  int8       direct convolution in plain vector arithmetic
nhwc_spatial_pack          fp32       direct convolution from packed patches of NHWC
nhwc_quantized_interleaved int8       im2col and a GEMM on interleaved panels of NHWC
nchw_winograd              fp32       3x3 of stride 1 by F(2x2, 3x3) or F(4x4, 3x3): 2.25 or 4
                                      times fewer multiplications
nchw_winograd_int          int8       3x3 of stride 1 by F(2x2, 3x3) in exact integer arithmetic:
                                      2.25 times fewer multiplications, of int16
nchw_lookup                int8       weights of 1 to 4 bits by look-ups in tables of partial sums
nchw_bit_serial            int8       weights of 1 to 4 bits by bits of weights and activations
nchw_winograd_int8         int8       the same in bytes, where few bits allow it; weights packed
cuda_mma                   int8       NVIDIA's GPUs: implicit GEMM on tensor cores
cuda_dp4a                  int8       NVIDIA's GPUs: direct convolution by dot products of fours
cuda_direct                fp32, int8 NVIDIA's GPUs: direct convolution in fp32; in both depthwise
reference                  all        scalar loops, takes every layer
metaschedule               fp32, int8 what ``rq.tune(method="metaschedule")`` found for a layer
========================== ========== ===========================================================

All precisions are fp32, int8 and int16.

Weights of fewer than eight bits lie packed in memory for nchw_spatial_pack, but for its depthwise
kernel, and as nchw_lookup and nchw_bit_serial need them; the other schedules keep them in int8, or
in int16 where Winograd transforms them.

Which of them a layer gets is said in `choose`.
"""

from . import (
    conv2d_metaschedule,
    conv2d_nchw_bit_serial,
    conv2d_nchw_lookup,
    conv2d_nchw_simd,
    conv2d_nchw_spatial_pack,
    conv2d_nchw_winograd,
    conv2d_nchw_winograd_int,
    conv2d_nchw_winograd_int8,
    conv2d_nhwc_quantized_interleaved,
    conv2d_nhwc_spatial_pack,
    conv2d_reference,
    dense_nchw_spatial_pack,
    dense_packed_nchw_spatial_pack,
    depthwise_nchw_spatial_pack,
    image_nchw_spatial_pack,
    short_nchw_spatial_pack,
)
from .cuda import conv2d_direct as cuda_direct
from .cuda import conv2d_dp4a as cuda_dp4a
from .cuda import conv2d_mma as cuda_mma
from .cuda import conv2d_mma_half as cuda_mma_half

__all__ = [
    "conv2d_metaschedule",
    "conv2d_nchw_bit_serial",
    "conv2d_nchw_lookup",
    "conv2d_nchw_simd",
    "conv2d_nchw_spatial_pack",
    "conv2d_nchw_winograd",
    "conv2d_nchw_winograd_int",
    "conv2d_nchw_winograd_int8",
    "conv2d_nhwc_quantized_interleaved",
    "conv2d_nhwc_spatial_pack",
    "conv2d_reference",
    "cuda_direct",
    "cuda_dp4a",
    "cuda_mma",
    "cuda_mma_half",
    "dense_nchw_spatial_pack",
    "dense_packed_nchw_spatial_pack",
    "depthwise_nchw_spatial_pack",
    "image_nchw_spatial_pack",
    "short_nchw_spatial_pack",
]
