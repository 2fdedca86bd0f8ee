// Cross-entropy of rows of logits (labels, vocab), one block per row; logits themselves are a matrix product and not made here.
#include "common.cuh"

// Largest logit of a row and the sum of exp(logit - largest).
template <typename T> __device__ void partition(const T *logits, int vocab, float &largest, float &sum) {
    largest = -INFINITY;
    for (int c = threadIdx.x; c < vocab; c += ROW_THREADS) largest = fmaxf(largest, wide(logits[c]));
    largest = reduce<Max>(largest);
    sum = 0.0f;
    for (int c = threadIdx.x; c < vocab; c += ROW_THREADS) sum += expf(wide(logits[c]) - largest);
    sum = reduce<Sum>(sum);
}

// terms[row] = -weight log softmax(logits)[target]
template <typename T>
__device__ void loss_terms(const T *logits, const unsigned *targets, const float *weights, float *terms, int vocab) {
    float largest, sum;
    logits += blockIdx.x * (size_t)vocab;
    partition(logits, vocab, largest, sum);
    if (threadIdx.x == 0) terms[blockIdx.x] = weights[blockIdx.x] * (logf(sum) + largest - wide(logits[targets[blockIdx.x]]));
}

// Gradient of the terms' sum in which each counts as often as `upstream` says.
template <typename T>
__device__ void loss_back(const T *logits, const unsigned *targets, const float *weights, const float *upstream, T *grad, int vocab) {
    float largest, sum;
    logits += blockIdx.x * (size_t)vocab, grad += blockIdx.x * (size_t)vocab;
    partition(logits, vocab, largest, sum);
    float factor = weights[blockIdx.x] * upstream[blockIdx.x];
    for (int c = threadIdx.x; c < vocab; c += ROW_THREADS) {
        float p = expf(wide(logits[c]) - largest) / sum - (c == (int)targets[blockIdx.x] ? 1.0f : 0.0f);
        grad[c] = narrow<T>(p * factor);
    }
}

#define LOSSES(T, S)                                                                                                                \
    extern "C" __global__ void loss_terms_##S(const T *logits, const unsigned *targets, const float *weights, float *terms,         \
                                              int vocab) {                                                                          \
        loss_terms<T>(logits, targets, weights, terms, vocab);                                                                      \
    }                                                                                                                               \
    EXPORT(loss_terms_##S)                                                                                                          \
    extern "C" __global__ void loss_back_##S(const T *logits, const unsigned *targets, const float *weights, const float *upstream, \
                                             T *grad, int vocab) {                                                                  \
        loss_back<T>(logits, targets, weights, upstream, grad, vocab);                                                              \
    }                                                                                                                               \
    EXPORT(loss_back_##S)
LOSSES(float, f32)
LOSSES(bf16, bf16)
