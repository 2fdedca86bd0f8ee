// Attention over packed rows: out = softmax(q kT scale) v where each row sees up to three ranges of columns.
//
// Queries and keys come rotated. Row r sees columns [sight[6r], sight[6r+1]) with its prefix query (kind 1: the prefix of a stream) and columns
// [sight[6r+2], sight[6r+3]) and [sight[6r+4], sight[6r+5]) with its ordinary one (kind 0). Scores are cut into tiles; which tiles hold any that
// count is listed by the host: tile t of rows meets list[starts[t]] .. list[starts[t+1]-1], each a tile of columns times two plus the kind;
// for gradients of keys and values the same the other way round. Scores are never stored: each kernel makes them anew, in a first pass for
// the logarithm of each row's sum of exponentials (`logsum`, which is (heads, rows)), then with it for probabilities.
#include "tile.cuh"

struct Sizes {
    int rows, heads, kv_heads, dim;
    float scale;
};

// What a tile of rows sees, in shared memory.
template <int R> struct Sight {
    unsigned ranges[R][6];

    __device__ void load(const unsigned *sight, int first, int rows) {
        for (int i = threadIdx.x; i < R * 6; i += THREADS) ranges[i / 6][i % 6] = first + i / 6 < rows ? sight[first * 6 + i] : 0;
    }

    __device__ bool sees(int row, unsigned column, int kind) const {
        const unsigned *r = ranges[row];
        if (kind == 1) return column >= r[0] && column < r[1];
        return (column >= r[2] && column < r[3]) || (column >= r[4] && column < r[5]);
    }
};

// Rows of one head into shared memory, R rows of D channels; zero beyond the matrix and the head.
template <typename T, int D, int R> __device__ void load(T *tile, const T *from, int first, int rows, int width, int head, int dim) {
    for (int i = threadIdx.x; i < R * D; i += THREADS) {
        int row = i / D, channel = i % D;
        bool inside = first + row < rows && channel < dim;
        tile[row * (D + PAD) + channel] = inside ? from[(size_t)(first + row) * width + head * dim + channel] : narrow<T>(0.0f);
    }
}

// The reverse, from f32.
template <typename T, int D, int R> __device__ void save(const float *tile, T *to, int first, int rows, int width, int head, int dim) {
    for (int i = threadIdx.x; i < R * D; i += THREADS) {
        int row = i / D, channel = i % D;
        if (first + row < rows && channel < dim)
            to[(size_t)(first + row) * width + head * dim + channel] = narrow<T>(tile[row * (D + PAD) + channel]);
    }
}

// Scores of a tile: q (R x D) times the transpose of k (R x D), into `out`.
template <typename T, int D, int R> __device__ void scores(float *out, const T *q, const T *k) {
    Product<T, R, R> product;
    product.clear();
    product.add(Plain<T>{q, D + PAD}, Transposed<T>{k, D + PAD}, D);
    product.store(out, R + PAD / 2);
}

template <typename T, int D>
__device__ void attend(const T *q, const T *prefix_q, const T *k, const T *v, const unsigned *sight, const unsigned *starts,
                       const unsigned *list, T *out, float *logsum, Sizes sizes) {
    constexpr int R = TILE<T>, LONG = R * (D + PAD), WIDE = R + PAD / 2, OWN = R * R / THREADS, PER_ROW = THREADS / R;
    __shared__ __align__(32) T queries[LONG];
    __shared__ __align__(32) T columns[2][LONG]; // keys and values; at the end the result
    __shared__ __align__(32) float score[R * WIDE];
    __shared__ __align__(32) T probability[R * (R + PAD)];
    __shared__ float largest[R][PER_ROW], sum[R][PER_ROW];
    __shared__ float row_logsum[R];
    __shared__ Sight<R> seen;
    const int first = blockIdx.x * R, head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads), me = threadIdx.x;
    const int width = sizes.heads * sizes.dim, kv_width = sizes.kv_heads * sizes.dim;
    seen.load(sight, first, sizes.rows);

    // The logarithm of each row's sum: every thread keeps that of some columns of one row.
    const int mine = me / PER_ROW, part = me % PER_ROW;
    float most = -INFINITY, total = 0.0f;
    int loaded = -1;
    for (unsigned at = starts[blockIdx.x]; at < starts[blockIdx.x + 1]; at++) {
        const int kind = list[at] & 1, column = (list[at] >> 1) * R;
        if (kind != loaded) load<T, D, R>(queries, kind ? prefix_q : q, first, sizes.rows, width, head, sizes.dim);
        loaded = kind;
        load<T, D, R>(columns[0], k, column, sizes.rows, kv_width, kv_head, sizes.dim);
        __syncthreads();
        scores<T, D, R>(score, queries, columns[0]);
        __syncthreads();
        for (int j = part; j < R; j += PER_ROW) {
            if (!seen.sees(mine, column + j, kind)) continue;
            float s = score[mine * WIDE + j] * sizes.scale, more = fmaxf(most, s);
            total = total * expf(most - more) + expf(s - more);
            most = more;
        }
    }
    largest[mine][part] = most;
    sum[mine][part] = total;
    __syncthreads();
    if (me < R) {
        float all = -INFINITY, together = 0.0f;
        for (int i = 0; i < PER_ROW; i++) all = fmaxf(all, largest[me][i]);
        for (int i = 0; i < PER_ROW; i++)
            if (sum[me][i] > 0.0f) together += sum[me][i] * expf(largest[me][i] - all);
        row_logsum[me] = first + me < sizes.rows ? all + logf(together) : 0.0f;
        if (first + me < sizes.rows) logsum[(size_t)head * sizes.rows + first + me] = row_logsum[me];
    }

    Product<T, R, D> result;
    result.clear();
    for (unsigned at = starts[blockIdx.x]; at < starts[blockIdx.x + 1]; at++) {
        const int kind = list[at] & 1, column = (list[at] >> 1) * R;
        __syncthreads();
        if (kind != loaded) load<T, D, R>(queries, kind ? prefix_q : q, first, sizes.rows, width, head, sizes.dim);
        loaded = kind;
        load<T, D, R>(columns[0], k, column, sizes.rows, kv_width, kv_head, sizes.dim);
        load<T, D, R>(columns[1], v, column, sizes.rows, kv_width, kv_head, sizes.dim);
        __syncthreads();
        scores<T, D, R>(score, queries, columns[0]);
        __syncthreads();
#pragma unroll
        for (int e = 0; e < OWN; e++) {
            const int i = (me + e * THREADS) / R, j = (me + e * THREADS) % R;
            float p = seen.sees(i, column + j, kind) ? expf(score[i * WIDE + j] * sizes.scale - row_logsum[i]) : 0.0f;
            probability[i * (R + PAD) + j] = narrow<T>(p);
        }
        __syncthreads();
        result.add(Plain<T>{probability, R + PAD}, Plain<T>{columns[1], D + PAD}, R);
    }
    __syncthreads();
    float *whole = reinterpret_cast<float *>(columns);
    result.store(whole, D + PAD);
    __syncthreads();
    save<T, D, R>(whole, out, first, sizes.rows, width, head, sizes.dim);
}

// delta[head][row] = sum of out * grad over the head's channels, as the gradient of softmax needs it.
template <typename T> __device__ void attend_delta(const T *out, const T *grad, float *delta, int rows, int heads, int dim) {
    for (size_t i = first_element(); i < (size_t)rows * heads; i += elements_at_once()) {
        size_t row = i / heads, head = i % heads, at = (row * heads + head) * dim;
        float sum = 0.0f;
        for (int c = 0; c < dim; c++) sum += wide(out[at + c]) * wide(grad[at + c]);
        delta[head * rows + row] = sum;
    }
}

// Probability and gradient of one score, from the tiles of q kT and grad vT.
struct Both {
    float probability, score_grad;
};
template <int R>
__device__ Both both(const Sight<R> &seen, int i, int j, unsigned column, int kind, float score, float grad, float logsum, float delta,
                     float scale) {
    if (!seen.sees(i, column, kind)) return Both{0.0f, 0.0f};
    float p = expf(score * scale - logsum);
    return Both{p, p * (grad - delta) * scale};
}

// Gradient of the queries of one kind.
template <typename T, int D>
__device__ void attend_back_q(const T *q, const T *k, const T *v, const T *grad, const float *logsum, const float *delta,
                              const unsigned *sight, const unsigned *starts, const unsigned *list, T *dq, Sizes sizes, int only) {
    constexpr int R = TILE<T>, LONG = R * (D + PAD), WIDE = R + PAD / 2, OWN = R * R / THREADS;
    __shared__ __align__(32) T rows[2][LONG];    // queries and what comes back to them
    __shared__ __align__(32) T columns[2][LONG]; // keys and values; at the end the result
    __shared__ __align__(32) float score[R * WIDE];
    __shared__ __align__(32) float score_grad[R * WIDE];
    __shared__ __align__(32) T narrowed[R * (R + PAD)];
    __shared__ float row_logsum[R], row_delta[R];
    __shared__ Sight<R> seen;
    const int first = blockIdx.x * R, head = blockIdx.y, kv_head = head / (sizes.heads / sizes.kv_heads), me = threadIdx.x;
    const int width = sizes.heads * sizes.dim, kv_width = sizes.kv_heads * sizes.dim;
    seen.load(sight, first, sizes.rows);
    load<T, D, R>(rows[0], q, first, sizes.rows, width, head, sizes.dim);
    load<T, D, R>(rows[1], grad, first, sizes.rows, width, head, sizes.dim);
    if (me < R) {
        bool inside = first + me < sizes.rows;
        row_logsum[me] = inside ? logsum[(size_t)head * sizes.rows + first + me] : 0.0f;
        row_delta[me] = inside ? delta[(size_t)head * sizes.rows + first + me] : 0.0f;
    }
    Product<T, R, D> result;
    result.clear();
    for (unsigned at = starts[blockIdx.x]; at < starts[blockIdx.x + 1]; at++) {
        const int kind = list[at] & 1, column = (list[at] >> 1) * R;
        if (kind != only) continue;
        __syncthreads();
        load<T, D, R>(columns[0], k, column, sizes.rows, kv_width, kv_head, sizes.dim);
        load<T, D, R>(columns[1], v, column, sizes.rows, kv_width, kv_head, sizes.dim);
        __syncthreads();
        scores<T, D, R>(score, rows[0], columns[0]);
        scores<T, D, R>(score_grad, rows[1], columns[1]);
        __syncthreads();
#pragma unroll
        for (int e = 0; e < OWN; e++) {
            const int i = (me + e * THREADS) / R, j = (me + e * THREADS) % R;
            Both b = both<R>(seen, i, j, column + j, kind, score[i * WIDE + j], score_grad[i * WIDE + j], row_logsum[i], row_delta[i],
                             sizes.scale);
            narrowed[i * (R + PAD) + j] = narrow<T>(b.score_grad);
        }
        __syncthreads();
        result.add(Plain<T>{narrowed, R + PAD}, Plain<T>{columns[0], D + PAD}, R);
    }
    __syncthreads();
    float *whole = reinterpret_cast<float *>(columns);
    result.store(whole, D + PAD);
    __syncthreads();
    save<T, D, R>(whole, dq, first, sizes.rows, width, head, sizes.dim);
}

// Gradients of keys and values: a block has a tile of columns of one key head and goes over all rows and query heads that look at them.
template <typename T, int D>
__device__ void attend_back_kv(const T *q, const T *prefix_q, const T *k, const T *v, const T *grad, const float *logsum,
                               const float *delta, const unsigned *sight, const unsigned *starts, const unsigned *list, T *dk, T *dv,
                               Sizes sizes) {
    constexpr int R = TILE<T>, LONG = R * (D + PAD), WIDE = R + PAD / 2, OWN = R * R / THREADS;
    __shared__ __align__(32) T columns[2][LONG]; // keys and values
    __shared__ __align__(32) T rows[2][LONG];    // queries and what comes back to them; at the end the results
    __shared__ __align__(32) float score[R * WIDE];
    __shared__ __align__(32) float score_grad[R * WIDE];
    __shared__ __align__(32) T narrowed[R * (R + PAD)];
    __shared__ float row_logsum[R], row_delta[R];
    __shared__ Sight<R> seen;
    const int first = blockIdx.x * R, kv_head = blockIdx.y, group = sizes.heads / sizes.kv_heads, me = threadIdx.x;
    const int width = sizes.heads * sizes.dim, kv_width = sizes.kv_heads * sizes.dim;
    load<T, D, R>(columns[0], k, first, sizes.rows, kv_width, kv_head, sizes.dim);
    load<T, D, R>(columns[1], v, first, sizes.rows, kv_width, kv_head, sizes.dim);
    Product<T, R, D> dkeys, dvalues;
    dkeys.clear();
    dvalues.clear();
    for (unsigned at = starts[blockIdx.x]; at < starts[blockIdx.x + 1]; at++) {
        const int kind = list[at] & 1, row = (list[at] >> 1) * R;
        for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
            __syncthreads();
            seen.load(sight, row, sizes.rows);
            load<T, D, R>(rows[0], kind ? prefix_q : q, row, sizes.rows, width, head, sizes.dim);
            load<T, D, R>(rows[1], grad, row, sizes.rows, width, head, sizes.dim);
            if (me < R) {
                bool inside = row + me < sizes.rows;
                row_logsum[me] = inside ? logsum[(size_t)head * sizes.rows + row + me] : 0.0f;
                row_delta[me] = inside ? delta[(size_t)head * sizes.rows + row + me] : 0.0f;
            }
            __syncthreads();
            scores<T, D, R>(score, rows[0], columns[0]);
            scores<T, D, R>(score_grad, rows[1], columns[1]);
            __syncthreads();
            float kept[OWN];
#pragma unroll
            for (int e = 0; e < OWN; e++) {
                const int i = (me + e * THREADS) / R, j = (me + e * THREADS) % R;
                Both b = both<R>(seen, i, j, first + j, kind, score[i * WIDE + j], score_grad[i * WIDE + j], row_logsum[i],
                                 row_delta[i], sizes.scale);
                narrowed[i * (R + PAD) + j] = narrow<T>(b.probability);
                kept[e] = b.score_grad;
            }
            __syncthreads();
            dvalues.add(Transposed<T>{narrowed, R + PAD}, Plain<T>{rows[1], D + PAD}, R);
            __syncthreads();
#pragma unroll
            for (int e = 0; e < OWN; e++) {
                const int i = (me + e * THREADS) / R, j = (me + e * THREADS) % R;
                narrowed[i * (R + PAD) + j] = narrow<T>(kept[e]);
            }
            __syncthreads();
            dkeys.add(Transposed<T>{narrowed, R + PAD}, Plain<T>{rows[0], D + PAD}, R);
        }
    }
    float *whole = reinterpret_cast<float *>(rows);
    __syncthreads();
    dkeys.store(whole, D + PAD);
    __syncthreads();
    save<T, D, R>(whole, dk, first, sizes.rows, kv_width, kv_head, sizes.dim);
    __syncthreads();
    dvalues.store(whole, D + PAD);
    __syncthreads();
    save<T, D, R>(whole, dv, first, sizes.rows, kv_width, kv_head, sizes.dim);
}

#define ATTENTION(T, S, D)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                           \
        attend_##S##_##D(const T *q, const T *prefix_q, const T *k, const T *v, const unsigned *sight, const unsigned *starts,      \
                         const unsigned *list, T *out, float *logsum, int rows, int heads, int kv_heads, int dim, float scale) {    \
        attend<T, D>(q, prefix_q, k, v, sight, starts, list, out, logsum, Sizes{rows, heads, kv_heads, dim, scale});                \
    }                                                                                                                               \
    EXPORT(attend_##S##_##D)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                           \
        attend_back_q_##S##_##D(const T *q, const T *k, const T *v, const T *grad, const float *logsum, const float *delta,         \
                                const unsigned *sight, const unsigned *starts, const unsigned *list, T *dq, int rows, int heads,    \
                                int kv_heads, int dim, float scale, int kind) {                                                     \
        attend_back_q<T, D>(q, k, v, grad, logsum, delta, sight, starts, list, dq, Sizes{rows, heads, kv_heads, dim, scale}, kind); \
    }                                                                                                                               \
    EXPORT(attend_back_q_##S##_##D)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                           \
        attend_back_kv_##S##_##D(const T *q, const T *prefix_q, const T *k, const T *v, const T *grad, const float *logsum,         \
                                 const float *delta, const unsigned *sight, const unsigned *starts, const unsigned *list, T *dk,    \
                                 T *dv, int rows, int heads, int kv_heads, int dim, float scale) {                                  \
        attend_back_kv<T, D>(q, prefix_q, k, v, grad, logsum, delta, sight, starts, list, dk, dv,                                   \
                             Sizes{rows, heads, kv_heads, dim, scale});                                                             \
    }                                                                                                                               \
    EXPORT(attend_back_kv_##S##_##D)
#define ATTENTIONS(T, S)                                                                                                            \
    ATTENTION(T, S, 32)                                                                                                             \
    ATTENTION(T, S, 64)                                                                                                             \
    ATTENTION(T, S, 96)                                                                                                             \
    ATTENTION(T, S, 128)                                                                                                            \
    extern "C" __global__ void attend_delta_##S(const T *out, const T *grad, float *delta, int rows, int heads, int dim) {          \
        attend_delta<T>(out, grad, delta, rows, heads, dim);                                                                        \
    }                                                                                                                               \
    EXPORT(attend_delta_##S)
ATTENTIONS(float, f32)
ATTENTIONS(bf16, bf16)
