"""Counts of integer products in CUDA text."""

from __future__ import annotations

from relaxquant.inspect import cuda

TEXT = """
static int __dp4a(unsigned a, int b, int c) { return c; }
__forceinline__ __device__ void twice(int* sums) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col" : "+r"(sums[0]));
  asm volatile("mma.sync.aligned.m16n8k32.row.col" : "+r"(sums[1]));
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


def test_products_are_counted_by_kernel_through_the_functions_it_calls():
    found = cuda.integer_products(TEXT)
    assert list(found) == ["first_kernel", "second_kernel", "third"]
    assert dict(found["first_kernel"]) == {"mma.sync": 4}
    assert dict(found["second_kernel"]) == {"dp4a": 1}
    assert not found["third"]


def test_a_text_without_kernels_has_none():
    assert cuda.integer_products("#include <cuda.h>") == {}
