// CUDA's execution model for the host, as far as the kernels of this folder use it, so that tests can run the very same sources.
//
// A block's threads are fibers of one system thread. They run one at a time and hand over only where they wait for each other, and each time in
// another, random order: a kernel that forgets a barrier gives other results in another order. Blocks too run in a random order. A barrier
// that not all threads reach ends the process with a message. Tensor cores are emulated by the first thread of a warp, with CUDA's rules
// on alignment checked. Nothing here is fast.
#pragma once
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __shared__ static thread_local
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
static thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline __nv_bfloat16 __float2bfloat16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return __nv_bfloat16{0x7fff};
    // To the nearest, to the even one of two that are as near.
    return __nv_bfloat16{uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

namespace emulation {
constexpr size_t STACK = 64 << 10;

[[noreturn]] inline void fault(const char *what) {
    std::fprintf(stderr, "kernel emulation: %s (block %u %u, thread %u)\n", what, blockIdx.x, blockIdx.y, threadIdx.x);
    std::abort();
}

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool waits = false, done = false;
};

// The block that runs on this system thread.
struct Block {
    std::vector<Fiber> fibers;
    ucontext_t scheduler;
    size_t current = 0, threads = 0;
    void (*body)(void *) = nullptr;
    void *argument = nullptr;
    std::mt19937_64 random;
};
static thread_local Block block;

inline void enter() {
    block.body(block.argument);
    block.fibers[block.current].done = true;
    swapcontext(&block.fibers[block.current].context, &block.scheduler);
}

inline void barrier() {
    block.fibers[block.current].waits = true;
    swapcontext(&block.fibers[block.current].context, &block.scheduler);
}

// Runs all threads of one block, from barrier to barrier.
inline void run_block() {
    if (block.fibers.size() < block.threads) block.fibers.resize(block.threads);
    for (size_t i = 0; i < block.threads; i++) {
        Fiber &fiber = block.fibers[i];
        if (!fiber.stack) fiber.stack.reset(new char[STACK]);
        fiber.waits = fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    std::vector<size_t> order(block.threads);
    for (size_t i = 0; i < order.size(); i++) order[i] = i;
    for (;;) {
        std::shuffle(order.begin(), order.end(), block.random);
        size_t finished = 0;
        for (size_t i : order) {
            block.current = i;
            threadIdx.x = unsigned(i);
            block.fibers[i].waits = false;
            swapcontext(&block.scheduler, &block.fibers[i].context);
            finished += block.fibers[i].done;
        }
        if (finished == order.size()) return;
        if (finished > 0) fault("some threads ended while others wait at a barrier");
    }
}

// Kernels by name, called with an array of pointers to their arguments as the driver does it.
typedef void (*Call)(void **);
inline std::map<std::string, Call> &kernels() {
    static std::map<std::string, Call> all;
    return all;
}

template <typename F, F *kernel> struct Caller;
template <typename... A, void (*kernel)(A...)> struct Caller<void(A...), kernel> {
    template <size_t... I> static void with(void **arguments, std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_const_t<A> *>(arguments[I])...);
    }
    static void call(void **arguments) { with(arguments, std::index_sequence_for<A...>()); }
};

struct Register {
    Register(const char *name, Call call) { kernels()[name] = call; }
};

struct Task {
    Call call;
    void **arguments;
};
} // namespace emulation

#define EXPORT(name) static emulation::Register registered_##name(#name, &emulation::Caller<decltype(name), &name>::call);

inline void __syncthreads() { emulation::barrier(); }

// Runs a kernel; 0 where it ran, 1 where there is none of this name. `seed` decides in which order threads and blocks run.
extern "C" int utr_emulate(const char *name, unsigned grid_x, unsigned grid_y, unsigned threads, void **arguments, uint64_t seed) {
    auto found = emulation::kernels().find(name);
    if (found == emulation::kernels().end()) return 1;
    emulation::Block &block = emulation::block;
    emulation::Task task{found->second, arguments};
    block.random.seed(seed);
    block.threads = threads;
    block.argument = &task;
    block.body = [](void *task) {
        auto *t = static_cast<emulation::Task *>(task);
        t->call(t->arguments);
    };
    blockDim.x = threads;
    gridDim.x = grid_x;
    gridDim.y = grid_y;
    std::vector<unsigned> order(size_t(grid_x) * grid_y);
    for (size_t i = 0; i < order.size(); i++) order[i] = unsigned(i);
    std::shuffle(order.begin(), order.end(), block.random);
    for (unsigned i : order) {
        blockIdx.x = i % grid_x;
        blockIdx.y = i / grid_x;
        emulation::run_block();
    }
    return 0;
}

// The 16 x 16 x 16 products of a warp. The first thread of the warp has the matrices, the others have nothing.
namespace nvcuda {
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
    std::unique_ptr<float[]> values;
    fragment() {
        if (threadIdx.x % 32 == 0) values.reset(new float[256]());
    }
};

template <typename Use, typename T, typename Layout> void fill_fragment(fragment<Use, 16, 16, 16, T, Layout> &f, float value) {
    if (f.values) std::fill(f.values.get(), f.values.get() + 256, value);
}

inline void check(const void *address, int stride, int multiple) {
    if (reinterpret_cast<uintptr_t>(address) % 32 != 0) emulation::fault("a tensor core's matrix does not begin at a multiple of 32 bytes");
    if (stride % multiple != 0) emulation::fault("a tensor core's matrix has rows of a length that is not allowed");
}

template <typename Use, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, __nv_bfloat16, Layout> &f, const __nv_bfloat16 *from, int stride) {
    check(from, stride, 8);
    if (!f.values) return;
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++)
            f.values[r * 16 + c] = __bfloat162float(from[std::is_same<Layout, row_major>::value ? r * stride + c : c * stride + r]);
}

template <typename LA, typename LB>
void mma_sync(fragment<accumulator, 16, 16, 16, float> &out, const fragment<matrix_a, 16, 16, 16, __nv_bfloat16, LA> &a,
              const fragment<matrix_b, 16, 16, 16, __nv_bfloat16, LB> &b, const fragment<accumulator, 16, 16, 16, float> &plus) {
    if (!out.values) return;
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) {
            float sum = plus.values[r * 16 + c];
            for (int k = 0; k < 16; k++) sum += a.values[r * 16 + k] * b.values[k * 16 + c];
            out.values[r * 16 + c] = sum;
        }
}

inline void store_matrix_sync(float *to, const fragment<accumulator, 16, 16, 16, float> &f, int stride, layout_t) {
    check(to, stride, 4);
    if (!f.values) return;
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) to[r * stride + c] = f.values[r * 16 + c];
}
} // namespace wmma
} // namespace nvcuda
