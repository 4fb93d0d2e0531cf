// Enough of CUDA C++ to run TVM's generated kernels on a CPU, thread by thread.
//
// A block's threads are fibers. One runs until it comes to a warp's instruction, or to its end;
// when all 32 have come to the same one, it is executed for all, as NVIDIA's PTX ISA describes it,
// and they go on. Shared memory is the process's, as one block runs after the other; at a barrier a
// thread lets all others of its block come as far.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(count)

struct Place { int x, y, z; };
static Place blockIdx, threadIdx;

#define VECTOR(name, type)                                                  \
  struct alignas(4 * sizeof(type)) name##4 { type x, y, z, w; };            \
  static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTOR(int, int)
VECTOR(uint, unsigned)
VECTOR(float, float)
VECTOR(short, short)
VECTOR(ushort, unsigned short)
VECTOR(longlong, long long)
#define SHORTER(name, type)                                                 \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                  \
  static inline name##2 make_##name##2(type x, type y) { return {x, y}; }   \
  struct name##3 { type x, y, z; };                                         \
  static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }
SHORTER(int, int)
SHORTER(uint, unsigned)
SHORTER(float, float)
typedef _Float16 half;
VECTOR(half, half)
static inline half __float2half_rn(float a) { return a; }
struct alignas(16) longlong2 { long long x, y; };
static inline longlong2 make_longlong2(long long x, long long y) { return {x, y}; }

static inline int max(int a, int b) { return a > b ? a : b; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline int __mulhi(int a, int b) { return (int)(((long long)a * b) >> 32); }
static inline int __float2int_rn(float a) { return (int)lrintf(a); }

// Number k of the values that lie in a register.
template <typename T>
static T value_of(unsigned word, int k) {
  T values[4 / sizeof(T)];
  memcpy(values, &word, 4);
  return values[k];
}

static inline int __dp4a(unsigned x, int w, int acc) {
  for (int k = 0; k < 4; ++k) acc += value_of<uint8_t>(x, k) * value_of<int8_t>(w, k);
  return acc;
}

// One lane's operands of a warp's instruction, and what executes it.
struct Fiber;
struct Operands {
  void (*execute)(Fiber*);
  int rows, depth;
  void* d[4];
  unsigned a[4], b[2];
};
struct Fiber { ucontext_t context; std::vector<char> stack; Operands operands; bool waits, ended; };
static ucontext_t scheduler;
static Fiber* current;
static std::function<void()> kernel;

static void wait_for_warp(Operands operands) {
  current->operands = operands;
  current->waits = true;
  swapcontext(&current->context, &scheduler);
}

// d += a * b. A lane is group * 4 + member; of the left operand it has the rows group and group + 8,
// of the right one the column group, and of the sums the columns 2 * member and 2 * member + 1.
template <typename Sum, typename Left, typename Right>
static void multiply(Fiber* warp) {
  const Operands& shape = warp[0].operands;
  const int count = 4 / sizeof(Left);  // values of a register
  Sum left[16][32], right[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const Operands& o = warp[lane].operands;
    if (!warp[lane].waits || o.execute != shape.execute || o.rows != shape.rows) {
      fputs("divergent warp\n", stderr);
      abort();
    }
    int group = lane / 4, member = lane % 4;
    for (int k = 0; k < count; ++k)
      for (int part = 0; part < shape.depth / (4 * count); ++part) {
        int at = count * (4 * part + member) + k;
        right[at][group] = value_of<Right>(o.b[part], k);
        for (int low = 0; low < shape.rows / 8; ++low)
          left[group + 8 * low][at] = value_of<Left>(o.a[2 * part + low], k);
      }
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < shape.rows / 4; ++i)
      for (int k = 0; k < shape.depth; ++k)
        *(Sum*)warp[lane].operands.d[i] +=
            left[lane / 4 + 8 * (i / 2)][k] * right[k][lane % 4 * 2 + i % 2];
  for (int lane = 0; lane < 32; ++lane) warp[lane].waits = false;
}

static void m16n8k32(int& d0, int& d1, int& d2, int& d3, int a0, int a1, int a2, int a3, int b0,
                     int b1) {
  wait_for_warp({multiply<int, uint8_t, int8_t>, 16, 32, {&d0, &d1, &d2, &d3},
                 {(unsigned)a0, (unsigned)a1, (unsigned)a2, (unsigned)a3},
                 {(unsigned)b0, (unsigned)b1}});
}

static void m16n8k16(float& d0, float& d1, float& d2, float& d3, int a0, int a1, int a2, int a3,
                     int b0, int b1) {
  wait_for_warp({multiply<float, half, half>, 16, 16, {&d0, &d1, &d2, &d3},
                 {(unsigned)a0, (unsigned)a1, (unsigned)a2, (unsigned)a3},
                 {(unsigned)b0, (unsigned)b1}});
}

static void m8n8k16(int& d0, int& d1, int a0, int b0) {
  wait_for_warp({multiply<int, uint8_t, int8_t>, 8, 16, {&d0, &d1}, {(unsigned)a0}, {(unsigned)b0}});
}

// Every fiber runs once in each pass of `run_block`, from one barrier to the next.
static void __syncthreads() { swapcontext(&current->context, &scheduler); }

static void run_fiber() {
  kernel();
  current->ended = true;
  swapcontext(&current->context, &scheduler);
}

static void run_block(int width, int height) {
  static std::vector<Fiber> fibers;
  fibers.resize(width * height);
  for (Fiber& fiber : fibers) {
    fiber.stack.resize(1 << 16);
    fiber.waits = fiber.ended = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (bool any = true; any;) {
    any = false;
    for (int i = 0; i < width * height; ++i) {
      if (fibers[i].ended) continue;
      threadIdx = {i % width, i / width, 0};
      current = &fibers[i];
      swapcontext(&scheduler, &current->context);
      any = true;
    }
    for (size_t warp = 0; warp + 32 <= fibers.size(); warp += 32)
      if (fibers[warp].waits) fibers[warp].operands.execute(&fibers[warp]);
    for (Fiber& fiber : fibers)
      if (fiber.waits) { fputs("a lane waits for its warp\n", stderr); abort(); }
  }
}

static void launch(int columns, int rows, int width, int height, std::function<void()> what) {
  kernel = what;
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < columns; ++x) {
      blockIdx = {x, y, 0};
      run_block(width, height);
    }
}
