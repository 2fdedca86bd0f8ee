// Element by element: SwiGLU, tanh-GELU, rotary positions.
#include "common.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// out = silu(gate) * up
template <typename T> __device__ void swiglu(const T *gate, const T *up, T *out, size_t n) {
    for (size_t i = first_element(); i < n; i += elements_at_once()) {
        float g = wide(gate[i]);
        out[i] = narrow<T>(g * sigmoid(g) * wide(up[i]));
    }
}

template <typename T>
__device__ void swiglu_back(const T *gate, const T *up, const T *grad, T *dgate, T *dup, size_t n) {
    for (size_t i = first_element(); i < n; i += elements_at_once()) {
        float g = wide(gate[i]), d = wide(grad[i]), s = sigmoid(g);
        dgate[i] = narrow<T>(d * wide(up[i]) * s * (1.0f + g * (1.0f - s)));
        dup[i] = narrow<T>(d * g * s);
    }
}

constexpr float TWICE_ROOT = 1.5957691216f; // 2 sqrt(2 / pi)
constexpr float CUBIC = 0.044715f;

// out = x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), which is the tanh form of GELU.
template <typename T> __device__ void gelu(const T *x, T *out, size_t n) {
    for (size_t i = first_element(); i < n; i += elements_at_once()) {
        float v = wide(x[i]);
        out[i] = narrow<T>(v * sigmoid(TWICE_ROOT * (v + CUBIC * v * v * v)));
    }
}

template <typename T> __device__ void gelu_back(const T *x, const T *grad, T *dx, size_t n) {
    for (size_t i = first_element(); i < n; i += elements_at_once()) {
        float v = wide(x[i]), s = sigmoid(TWICE_ROOT * (v + CUBIC * v * v * v));
        float inner = TWICE_ROOT * (1.0f + 3.0f * CUBIC * v * v);
        dx[i] = narrow<T>(wide(grad[i]) * (s + v * s * (1.0f - s) * inner));
    }
}

// Rotates the heads of 2 * half channels in rows of `width` by the (rows, half) tables; direction -1 undoes it.
template <typename T>
__device__ void rotate(const T *x, const float *cosine, const float *sine, T *out, int rows, int width, int half, float direction) {
    size_t pairs = width / 2, n = rows * pairs;
    for (size_t i = first_element(); i < n; i += elements_at_once()) {
        size_t row = i / pairs, pair = i % pairs, head = pair / half, channel = pair % half;
        size_t at = row * width + head * 2 * half + channel;
        float c = cosine[row * half + channel], s = sine[row * half + channel] * direction;
        float a = wide(x[at]), b = wide(x[at + half]);
        out[at] = narrow<T>(a * c - b * s);
        out[at + half] = narrow<T>(b * c + a * s);
    }
}

#define ELEMENTS(T, S)                                                                                                              \
    extern "C" __global__ void swiglu_##S(const T *gate, const T *up, T *out, size_t n) { swiglu<T>(gate, up, out, n); }         \
    EXPORT(swiglu_##S)                                                                                                              \
    extern "C" __global__ void swiglu_back_##S(const T *gate, const T *up, const T *grad, T *dgate, T *dup, size_t n) {          \
        swiglu_back<T>(gate, up, grad, dgate, dup, n);                                                                              \
    }                                                                                                                               \
    EXPORT(swiglu_back_##S)                                                                                                         \
    extern "C" __global__ void gelu_##S(const T *x, T *out, size_t n) { gelu<T>(x, out, n); }                                    \
    EXPORT(gelu_##S)                                                                                                                \
    extern "C" __global__ void gelu_back_##S(const T *x, const T *grad, T *dx, size_t n) { gelu_back<T>(x, grad, dx, n); }       \
    EXPORT(gelu_back_##S)                                                                                                           \
    extern "C" __global__ void rotate_##S(const T *x, const float *cosine, const float *sine, T *out, int rows, int width,          \
                                          int half, float direction) {                                                              \
        rotate<T>(x, cosine, sine, out, rows, width, half, direction);                                                              \
    }                                                                                                                               \
    EXPORT(rotate_##S)
ELEMENTS(float, f32)
ELEMENTS(bf16, bf16)
