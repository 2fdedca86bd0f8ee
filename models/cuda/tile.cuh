// Products of small matrices in shared memory, by one block of 128 threads: tensor cores for bf16, plain arithmetic for f32.
#pragma once
#include "common.cuh"

constexpr int THREADS = 128;

// How many rows (and columns) of scores a block works on at a time. What a block keeps fits the 48 KiB every GPU gives it.
template <typename T> constexpr int TILE = 16;
template <> constexpr int TILE<bf16> = 32;

// Rows in shared memory are a little longer than their content, so that they start in different banks.
constexpr int PAD = 8;

// A matrix in shared memory: as it lies there, or read as its transpose.
template <typename T> struct Plain {
    const T *data;
    int stride;
};
template <typename T> struct Transposed {
    const T *data;
    int stride;
};

// An M x N sum of products in f32, spread over the threads of the block. All threads take part in each call.
template <typename T, int M, int N> struct Product;

template <int M, int N> struct Product<float, M, N> {
    static constexpr int OWN = M * N / THREADS;
    float values[OWN];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < OWN; i++) values[i] = 0.0f;
    }

    static __device__ __forceinline__ float at(Plain<float> x, int row, int column) { return x.data[row * x.stride + column]; }
    static __device__ __forceinline__ float at(Transposed<float> x, int row, int column) { return x.data[column * x.stride + row]; }

    // Adds a (M x depth) times b (depth x N).
    template <typename A, typename B> __device__ void add(A a, B b, int depth) {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int element = threadIdx.x + i * THREADS, row = element / N, column = element % N;
            float sum = 0.0f;
            for (int k = 0; k < depth; k++) sum += at(a, row, k) * at(b, k, column);
            values[i] += sum;
        }
    }

    __device__ void store(float *out, int stride) const {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int element = threadIdx.x + i * THREADS;
            out[element / N * stride + element % N] = values[i];
        }
    }
};

// 16 x 16 pieces, dealt to the four warps in turn.
template <int M, int N> struct Product<bf16, M, N> {
    static constexpr int WARPS = THREADS / 32, OWN = M * N / 256 / WARPS;
    static_assert(M % 16 == 0 && N % 16 == 0 && M * N / 256 % WARPS == 0, "each warp has as many pieces");
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> pieces[OWN];

    __device__ void clear() {
#pragma unroll
        for (int i = 0; i < OWN; i++) nvcuda::wmma::fill_fragment(pieces[i], 0.0f);
    }

    static __device__ __forceinline__ void
    load(nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, bf16, nvcuda::wmma::row_major> &to, Plain<bf16> x, int row, int k) {
        nvcuda::wmma::load_matrix_sync(to, x.data + row * x.stride + k, x.stride);
    }
    static __device__ __forceinline__ void
    load(nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, bf16, nvcuda::wmma::col_major> &to, Transposed<bf16> x, int row, int k) {
        nvcuda::wmma::load_matrix_sync(to, x.data + k * x.stride + row, x.stride);
    }
    static __device__ __forceinline__ void
    load(nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, bf16, nvcuda::wmma::row_major> &to, Plain<bf16> x, int k, int column) {
        nvcuda::wmma::load_matrix_sync(to, x.data + k * x.stride + column, x.stride);
    }
    static __device__ __forceinline__ void
    load(nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, bf16, nvcuda::wmma::col_major> &to, Transposed<bf16> x, int k, int column) {
        nvcuda::wmma::load_matrix_sync(to, x.data + column * x.stride + k, x.stride);
    }

    template <typename X> struct Layout;

    // Adds a (M x depth) times b (depth x N); depth is a multiple of 16.
    template <typename A, typename B> __device__ void add(A a, B b, int depth) {
        nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, bf16, typename Layout<A>::Is> left;
        nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, bf16, typename Layout<B>::Is> right;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int piece = threadIdx.x / 32 + i * WARPS, row = piece / (N / 16) * 16, column = piece % (N / 16) * 16;
            for (int k = 0; k < depth; k += 16) {
                load(left, a, row, k);
                load(right, b, k, column);
                nvcuda::wmma::mma_sync(pieces[i], left, right, pieces[i]);
            }
        }
    }

    __device__ void store(float *out, int stride) const {
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            int piece = threadIdx.x / 32 + i * WARPS, row = piece / (N / 16) * 16, column = piece % (N / 16) * 16;
            nvcuda::wmma::store_matrix_sync(out + row * stride + column, pieces[i], stride, nvcuda::wmma::mem_row_major);
        }
    }

    template <typename U> struct Layout<Plain<U>> {
        typedef nvcuda::wmma::row_major Is;
    };
    template <typename U> struct Layout<Transposed<U>> {
        typedef nvcuda::wmma::col_major Is;
    };
};
