// What all kernels share: element types, sums over a block, and how a kernel is named.
//
// A kernel's parameters are its inputs, then its outputs, then its sizes; all arrays are dense. Elements are f32 or bf16, arithmetic is f32.
// The same files compile as C++ for the host (host/emulate.h), where tests compare every kernel with its readable twin.
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <mma.h>
#define EXPORT(name)
#else
#include "host/emulate.h"
#endif

typedef __nv_bfloat16 bf16;

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return __float2bfloat16(x); }

// Threads of a block of the kernels that reduce rows.
constexpr int ROW_THREADS = 256;

struct Sum {
    static __device__ __forceinline__ float both(float a, float b) { return a + b; }
};
struct Max {
    static __device__ __forceinline__ float both(float a, float b) { return fmaxf(a, b); }
};

// One value for the whole block of ROW_THREADS threads, from one value of each.
template <typename How> __device__ float reduce(float value) {
    __shared__ float values[ROW_THREADS];
    int me = threadIdx.x;
    values[me] = value;
    __syncthreads();
    for (int half = ROW_THREADS / 2; half > 0; half /= 2) {
        if (me < half) values[me] = How::both(values[me], values[me + half]);
        __syncthreads();
    }
    float result = values[0];
    __syncthreads();
    return result;
}

// Elements of a grid of one dimension: for (size_t i = first_element(); i < n; i += elements_at_once()).
__device__ __forceinline__ size_t first_element() { return blockIdx.x * (size_t)blockDim.x + threadIdx.x; }
__device__ __forceinline__ size_t elements_at_once() { return gridDim.x * (size_t)blockDim.x; }
