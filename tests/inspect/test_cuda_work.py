"""What a CUDA kernel's threads do, read from text whose counts are known by hand."""

from __future__ import annotations

import math

from relaxquant.inspect.classes import DP4A, MMA
from relaxquant.inspect.cuda_work import kernel_work

HEAD = 'extern "C" __global__ void __launch_bounds__(128) '
DOT = (
    HEAD
    + "dot_kernel(uchar* __restrict__ x_ptr, signed char* __restrict__ w_ptr, "
    + """int* __restrict__ y_ptr) {
  alignas(64) int sums[4];
  *(int4*)(sums + 0) = make_int4(0, 0, 0, 0);
  for (int k = 0; k < 3; ++k) {
    alignas(64) int x[1];
      uint v_ = *(uint*)(x_ptr + ((((int)threadIdx.x) * 12) + (k * 4)));
    x[0] = (*(int *)(&(v_)));
    int4 w = *(int4*)(w_ptr + (k * 16));
    for (int j = 0; j < 4; ++j) {
      sums[j] = __dp4a(x[0], w.x, sums[j]);
    }
  }
  *(int4*)(y_ptr + (((int)threadIdx.x) * 4)) = *(int4*)(sums + 0);
}
"""
)
SCALARS = (
    HEAD
    + "plain_kernel(signed char* __restrict__ x_ptr, float* __restrict__ w_ptr, "
    + """int* __restrict__ y_ptr, float* __restrict__ z_ptr) {
  for (int i = 0; i < 5; ++i) {
    if (((int)threadIdx.x) < 100) {
      y_ptr[0] = (y_ptr[0] + (((int)x_ptr[(i * 2)]) * ((int)x_ptr[1])));
    }
    z_ptr[0] = __fmaf_rn(w_ptr[i], w_ptr[0], z_ptr[0]);
    z_ptr[1] = (w_ptr[i] * 2.5f);
  }
}
"""
)
VECTORS = (
    HEAD
    + """tiled_kernel(half* __restrict__ x_ptr) {
  alignas(64) float2 sums[2];
  __shared__ alignas(64) half tile[64];
  for (int64_t n = (int64_t)0; n < (int64_t)7; ++n) {
    float2 __1;
    float2 __2;
    half2 v_ = *(half2*)(tile + ((int)threadIdx.x));
    float2 v__1;
    v__1.x = (float)(v_.x);
    v__1.y = (float)(v_.y);
    __2.x = (v__1.x*v__1.x);
    __2.y = (v__1.y*v__1.y);
    float2 v__2 = sums[1];
    __1.x = (__2.x+v__2.x);
    __1.y = (__2.y+v__2.y);
    sums[1] = __1;
    sums[0] = __1;
  }
}
"""
)
WARPS = (
    """__forceinline__ __device__ void multiply(int* sums, int a) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {}" : "+r"(sums[0]));
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {}" : "+r"(sums[1]));
}
"""
    + HEAD
    + """warp_kernel(int n, half* __restrict__ x_ptr) {
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> acc[1];
  nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, half, nvcuda::wmma::row_major> a[2];
  for (int i = 0; i < n; ++i) {
    multiply((&(sums[0])), 3);
  }
  nvcuda::wmma::mma_sync(acc[0], a[((int)threadIdx.x)], b[0], acc[0]);
}
"""
)


def work_of(text: str):
    (work,) = kernel_work(text).values()
    return work


def test_loads_are_weighed_by_loops_and_vectors_counted_once():
    work = work_of(DOT)
    assert (work.name, work.threads, work.exact) == ("dot_kernel", 128, True)
    assert work.macs == {"int8": 3 * 4 * 4}
    counts = work.counts
    assert (counts["loads"], counts["bytes loaded"]) == (3 * 2, 3 * (4 + 16))
    assert (counts["stores"], counts["bytes stored"]) == (1, 16)
    assert (counts["dp4a"], counts["conversions"]) == (12, 0)
    assert (work.hottest.times, work.hottest.macs) == (12, {"int8": 4})
    assert work.per_mac("loads", "stores") == 7 / 48


def test_scalar_products_count_by_what_is_multiplied():
    work = work_of(SCALARS)
    assert work.macs == {"int8": 5, "float32": 5}
    assert not work.exact  # an if decides on one of them
    counts = work.counts
    assert counts["loads"] == 5 * (3 + 3 + 1)
    assert counts["stores"] == 5 * 3
    assert counts["conversions"] == 5 * 2
    assert counts["float multiplications"] == 5 * 2


def test_vectors_are_followed_to_where_their_sums_came_from():
    work = work_of(VECTORS)
    assert work.macs == {"float32": 7 * 2}  # converted before they are multiplied
    assert work.counts["conversions"] == 7 * 2
    assert (work.counts["shared memory accesses"], work.counts["bytes of shared memory"]) == (7, 28)
    assert work.counts["loads"] == 0
    assert math.isnan(work_of(VECTORS.replace("sums[1] = __1", "sums[0] = __1")).per_mac("loads"))


def test_warps_share_their_products_and_unknown_loops_count_once():
    work = work_of(WARPS)
    assert work.macs == {"int8": 2 * 16 * 8 * 32 // 32, "float16": 16**3 // 32}
    assert work.counts["mma"] == 3
    assert not work.exact


def test_a_text_without_kernels_has_none():
    assert kernel_work("#include <cuda.h>") == {}


CALLS = """
static int __dp4a(unsigned a, int b, int c) { return c; }
__forceinline__ __device__ void twice(int* sums) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32" : "+r"(sums[0]));
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32" : "+r"(sums[1]));
}
extern "C" __global__ void __launch_bounds__(128) first_kernel(int* __restrict__ a);
extern "C" __global__ void __launch_bounds__(128) first_kernel(int* __restrict__ a) {
  twice(a);
  for (int i = 0; i < 2; ++i) { twice(a); }
}
extern "C" __global__ void __launch_bounds__(64) second_kernel(int* a, float* b) {
  a[0] = __dp4a(a[1], a[2], a[0]);
}
extern "C" __global__ void third(float* b) {
  b[0] = b[1] * b[2];
}
"""


def test_instructions_are_counted_through_the_functions_that_a_kernel_calls():
    found = {name: work.written for name, work in kernel_work(CALLS).items()}
    assert list(found) == ["first_kernel", "second_kernel", "third"]
    assert {word: found["first_kernel"][word] for word in (DP4A, MMA)} == {DP4A: 0, MMA: 4}
    assert {word: found["second_kernel"][word] for word in (DP4A, MMA)} == {DP4A: 1, MMA: 0}
    assert not found["third"][DP4A] and not found["third"][MMA]
