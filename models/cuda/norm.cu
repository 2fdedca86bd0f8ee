// Root-mean-square norm and layer norm over rows of n channels.
//
// Backward, each block takes every gridDim.x-th row and adds up what those rows give to the scale's and shift's gradients in its own row of
// `parts` (grid, n) or (grid, 2 n); column_sums adds the blocks. The order of all sums is fixed: the same input gives the same bits.
#include "common.cuh"

template <typename T> __device__ float mean_square(const T *x, int n) {
    float sum = 0.0f;
    for (int c = threadIdx.x; c < n; c += ROW_THREADS) sum += wide(x[c]) * wide(x[c]);
    return reduce<Sum>(sum) / n;
}

template <typename T> __device__ void rms_norm(const T *x, const T *weight, T *out, int n, float eps) {
    x += blockIdx.x * (size_t)n, out += blockIdx.x * (size_t)n;
    float scale = 1.0f / sqrtf(mean_square(x, n) + eps);
    for (int c = threadIdx.x; c < n; c += ROW_THREADS) out[c] = narrow<T>(wide(x[c]) * scale * wide(weight[c]));
}

template <typename T>
__device__ void rms_norm_back(const T *x, const T *weight, const T *grad, T *dx, float *parts, int rows, int n, float eps) {
    float *part = parts + blockIdx.x * (size_t)n;
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *xr = x + row * (size_t)n, *gr = grad + row * (size_t)n;
        T *dr = dx + row * (size_t)n;
        float scale = 1.0f / sqrtf(mean_square(xr, n) + eps), inner = 0.0f;
        for (int c = threadIdx.x; c < n; c += ROW_THREADS) inner += wide(gr[c]) * wide(weight[c]) * wide(xr[c]);
        inner = reduce<Sum>(inner) * scale * scale / n;
        for (int c = threadIdx.x; c < n; c += ROW_THREADS) {
            float g = wide(gr[c]), v = wide(xr[c]);
            dr[c] = narrow<T>(scale * (g * wide(weight[c]) - v * inner));
            part[c] = (row == (int)blockIdx.x ? 0.0f : part[c]) + g * v * scale;
        }
    }
}

// Mean and reciprocal deviation of a row.
template <typename T> __device__ void moments(const T *x, int n, float eps, float &mean, float &scale) {
    float sum = 0.0f, squares = 0.0f;
    for (int c = threadIdx.x; c < n; c += ROW_THREADS) sum += wide(x[c]);
    mean = reduce<Sum>(sum) / n;
    for (int c = threadIdx.x; c < n; c += ROW_THREADS) squares += (wide(x[c]) - mean) * (wide(x[c]) - mean);
    scale = 1.0f / sqrtf(reduce<Sum>(squares) / n + eps);
}

template <typename T> __device__ void layer_norm(const T *x, const T *weight, const T *bias, T *out, int n, float eps) {
    x += blockIdx.x * (size_t)n, out += blockIdx.x * (size_t)n;
    float mean, scale;
    moments(x, n, eps, mean, scale);
    for (int c = threadIdx.x; c < n; c += ROW_THREADS)
        out[c] = narrow<T>((wide(x[c]) - mean) * scale * wide(weight[c]) + wide(bias[c]));
}

template <typename T>
__device__ void layer_norm_back(const T *x, const T *weight, const T *grad, T *dx, float *parts, int rows, int n, float eps) {
    float *part = parts + blockIdx.x * 2 * (size_t)n;
    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const T *xr = x + row * (size_t)n, *gr = grad + row * (size_t)n;
        T *dr = dx + row * (size_t)n;
        float mean, scale, average = 0.0f, inner = 0.0f;
        moments(xr, n, eps, mean, scale);
        for (int c = threadIdx.x; c < n; c += ROW_THREADS) {
            float gw = wide(gr[c]) * wide(weight[c]);
            average += gw;
            inner += gw * (wide(xr[c]) - mean) * scale;
        }
        average = reduce<Sum>(average) / n;
        inner = reduce<Sum>(inner) / n;
        for (int c = threadIdx.x; c < n; c += ROW_THREADS) {
            float g = wide(gr[c]), unit = (wide(xr[c]) - mean) * scale;
            bool first = row == (int)blockIdx.x;
            dr[c] = narrow<T>(scale * (g * wide(weight[c]) - average - unit * inner));
            part[c] = (first ? 0.0f : part[c]) + g * unit;
            part[n + c] = (first ? 0.0f : part[n + c]) + g;
        }
    }
}

template <typename T> __device__ void column_sums(const float *parts, T *out, int rows, int n) {
    for (size_t c = first_element(); c < (size_t)n; c += elements_at_once()) {
        float sum = 0.0f;
        for (int row = 0; row < rows; row++) sum += parts[row * (size_t)n + c];
        out[c] = narrow<T>(sum);
    }
}

#define NORMS(T, S)                                                                                                                 \
    extern "C" __global__ void rms_norm_##S(const T *x, const T *weight, T *out, int n, float eps) {                                \
        rms_norm<T>(x, weight, out, n, eps);                                                                                        \
    }                                                                                                                               \
    EXPORT(rms_norm_##S)                                                                                                            \
    extern "C" __global__ void rms_norm_back_##S(const T *x, const T *weight, const T *grad, T *dx, float *parts, int rows, int n,  \
                                                 float eps) {                                                                       \
        rms_norm_back<T>(x, weight, grad, dx, parts, rows, n, eps);                                                                 \
    }                                                                                                                               \
    EXPORT(rms_norm_back_##S)                                                                                                       \
    extern "C" __global__ void layer_norm_##S(const T *x, const T *weight, const T *bias, T *out, int n, float eps) {               \
        layer_norm<T>(x, weight, bias, out, n, eps);                                                                                \
    }                                                                                                                               \
    EXPORT(layer_norm_##S)                                                                                                          \
    extern "C" __global__ void layer_norm_back_##S(const T *x, const T *weight, const T *grad, T *dx, float *parts, int rows,       \
                                                   int n, float eps) {                                                              \
        layer_norm_back<T>(x, weight, grad, dx, parts, rows, n, eps);                                                               \
    }                                                                                                                               \
    EXPORT(layer_norm_back_##S)                                                                                                     \
    extern "C" __global__ void column_sums_##S(const float *parts, T *out, int rows, int n) { column_sums<T>(parts, out, rows, n); } \
    EXPORT(column_sums_##S)
NORMS(float, f32)
NORMS(bf16, bf16)
