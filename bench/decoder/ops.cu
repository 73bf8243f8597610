// The layer's small operations on a GPU; ops.h says what each computes, ops_cuda.c how it is launched.
// BLOCK: threads of a block; HELD: vectors of eight fp16 that each has of a row of activations; HEAD_DIM: 64 or 128;
// PAGE: positions of a page; KV_BYTES: of an element of the cache; PICKS: blocks that share a row's logits; RING: steps
// of which the host can still read the tokens.

#include "decoder/kv.cuh"
#include "decoder/rotate.cuh"

typedef unsigned short half_word;

struct rms_norm_arguments {
    const half_word *x;
    const float *weight;
    half_word *y;
    int rows, width;
    float epsilon;
};

struct cache {
    kv_element *keys, *values;
    const int *pages;
    int kv_heads, head_dim, position;
};

struct rope_arguments {
    struct cache cache;
    half_word *qkv;
    const float *frequency;
    int tokens, heads;
};

struct gather_arguments {
    const half_word *x;
    const int *columns;
    half_word *y;
    int rows, width;
};

struct embed_arguments {
    const half_word *table;
    const int *ids;
    half_word *y;
    int rows, width, stride;
};

struct sequence {
    int token, position, step, slot;
};

struct pick {
    float logit;
    int id;
};

struct argmax_arguments {
    const half_word *logits;
    struct pick *picks;
    struct sequence *sequences;
    int *ring;
    int rows, width, limit;
};

struct score_arguments {
    const half_word *logits;
    const int *targets;
    double *scores;
    int rows, width, limit;
};

// The sum over a warp, in every lane.
__device__ inline float warp_sum(float value) {
    for (int step = 16; step; step /= 2) value += other_lane(value, step);
    return value;
}

// The sum over a block, in every thread.
__device__ inline float block_sum(float value) {
    __shared__ float partial[BLOCK / 32];
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < BLOCK / 32; i++) sum += partial[i];
    return sum;
}

// The sum of squares of a pair.
__device__ inline float pair_squares(unsigned pair) {
    float low, high;
    half2_to_floats(pair, low, high);
    return low * low + high * high;
}

// A pair times `scale` and its two weights.
__device__ inline unsigned pair_scaled(unsigned pair, float scale, const float *weight) {
    float low, high;
    half2_to_floats(pair, low, high);
    return half2_from_floats(low * scale * weight[0], high * scale * weight[1]);
}

// One block a row, of which each thread holds HELD vectors of eight elements. The weights do not come from the kernel
// ahead.
extern "C" __global__ void __launch_bounds__(BLOCK) rms_norm(const __grid_constant__ struct rms_norm_arguments a) {
    const uint4 *x = (const uint4 *)(a.x + (size_t)blockIdx.x * a.width);
    uint4 *y = (uint4 *)(a.y + (size_t)blockIdx.x * a.width), pairs[HELD];
    float squares = 0, weight[HELD][8];
    programmatic_launch();
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        const int i = j * BLOCK + threadIdx.x;
        if (i >= a.width / 8) break;
        *(float4 *)&weight[j][0] = ((const float4 *)a.weight)[2 * i];
        *(float4 *)&weight[j][4] = ((const float4 *)a.weight)[2 * i + 1];
    }
    programmatic_wait();
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        const int i = j * BLOCK + threadIdx.x;
        pairs[j] = i < a.width / 8 ? x[i] : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int j = 0; j < HELD; j++)
        squares +=
            pair_squares(pairs[j].x) + pair_squares(pairs[j].y) + pair_squares(pairs[j].z) + pair_squares(pairs[j].w);
    const float scale = 1 / sqrtf(block_sum(squares) / a.width + a.epsilon);
#pragma unroll
    for (int j = 0; j < HELD; j++) {
        const int i = j * BLOCK + threadIdx.x;
        if (i >= a.width / 8) break;
        y[i] = make_uint4(pair_scaled(pairs[j].x, scale, weight[j]), pair_scaled(pairs[j].y, scale, weight[j] + 2),
                          pair_scaled(pairs[j].z, scale, weight[j] + 4), pair_scaled(pairs[j].w, scale, weight[j] + 6));
    }
}

// One block a token, whose angles serve all its heads, counted through q, k and v; one thread two chunks of a head at a
// time. Neither angles nor pages come from the kernel ahead.
extern "C" __global__ void __launch_bounds__(BLOCK) rope(const __grid_constant__ struct rope_arguments a) {
    const struct cache &c = a.cache;
    const int position = c.position + (int)blockIdx.x, heads = a.heads + 2 * c.kv_heads;
    const int i = threadIdx.x % CHUNK_PAIRS * 8;
    half_word *rows = a.qkv + (size_t)blockIdx.x * heads * HEAD_DIM + i;
    programmatic_launch();
    const size_t cached = ((size_t)c.pages[position / PAGE] * c.kv_heads * PAGE + position % PAGE) * HEAD_DIM + i;
    const struct angles by = find_angles(a.frequency, position);
    programmatic_wait();
    for (int head = threadIdx.x / CHUNK_PAIRS; head < heads; head += BLOCK / CHUNK_PAIRS) {
        const int key = head - a.heads, value = key - c.kv_heads;
        half_word *row = rows + head * HEAD_DIM;
        void *to = row;
        uint4 low = *(const uint4 *)row, high = *(const uint4 *)(row + HEAD_DIM / 2);
        if (value < 0) rotate_chunks(low, high, by);
        if (key >= 0) to = (value < 0 ? c.keys + key * PAGE * HEAD_DIM : c.values + value * PAGE * HEAD_DIM) + cached;
        if (KV_BYTES == 1 && key >= 0) {
            store_elements((kv_element *)to, low);
            store_elements((kv_element *)to + HEAD_DIM / 2, high);
        } else {
            *(uint4 *)to = low;
            *(uint4 *)((half_word *)to + HEAD_DIM / 2) = high;
        }
    }
}

// One thread one column of one row.
extern "C" __global__ void __launch_bounds__(BLOCK) gather(const __grid_constant__ struct gather_arguments a) {
    int i = blockIdx.x * BLOCK + threadIdx.x;
    size_t start = (size_t)blockIdx.y * a.width;
    programmatic_launch();
    programmatic_wait();
    if (i < a.width) a.y[start + i] = a.x[start + a.columns[i]];
}

// One block a row, of which each thread moves HELD vectors. The table may be the host's memory.
extern "C" __global__ void __launch_bounds__(BLOCK) embed(const __grid_constant__ struct embed_arguments a) {
    uint4 held[HELD];
    programmatic_launch();
    programmatic_wait();
    const int id = max(a.ids[(size_t)blockIdx.x * a.stride], 0), vectors = a.width / 8;
    const uint4 *row = (const uint4 *)(a.table + (size_t)id * a.width);
    uint4 *y = (uint4 *)(a.y + (size_t)blockIdx.x * a.width);
#pragma unroll
    for (int j = 0; j < HELD; j++)
        if (j * BLOCK + threadIdx.x < vectors) held[j] = row[j * BLOCK + threadIdx.x];
#pragma unroll
    for (int j = 0; j < HELD; j++)
        if (j * BLOCK + threadIdx.x < vectors) y[j * BLOCK + threadIdx.x] = held[j];
}

// The largest logit, in two stages of one warp's and one block's picks: argmax_picks leaves one pick a block in
// picks (rows, PICKS), argmax_next one a row. A logit that is not finite wins over all others, as id -1.

// Whether `other` goes before `best`: among equals the lower id.
__device__ inline bool better(struct pick other, struct pick best) {
    return other.logit > best.logit || (other.logit == best.logit && other.id < best.id);
}

// The best pick of a warp, in every lane.
__device__ inline struct pick warp_best(struct pick best) {
    for (int step = 16; step; step /= 2) {
        const struct pick other = {other_lane(best.logit, step), other_lane(best.id, step)};
        if (better(other, best)) best = other;
    }
    return best;
}

// Takes the two logits of ids `id` and the next, those below `limit`.
__device__ inline void take_pair(struct pick &best, unsigned pair, int id, int limit) {
    const half_word words[2] = {(half_word)pair, (half_word)(pair >> 16)};
    for (int i = 0; i < 2 && id + i < limit; i++) {
        const bool finite = (words[i] & 0x7c00) != 0x7c00;
        const struct pick other = {finite ? half_to_float(words[i]) : 1e30f, finite ? id + i : -1};
        if (better(other, best)) best = other;
    }
}

// Blocks: x shares out the ids, y is the row.
extern "C" __global__ void __launch_bounds__(BLOCK) argmax_picks(const __grid_constant__ struct argmax_arguments a) {
    __shared__ struct pick picks[BLOCK / 32];
    const uint4 *logits = (const uint4 *)(a.logits + (size_t)blockIdx.y * a.width);
    struct pick best = {-1e30f, 0x7fffffff};
    programmatic_launch();
    programmatic_wait();
    for (int i = blockIdx.x * BLOCK + threadIdx.x; 8 * i < a.limit; i += PICKS * BLOCK) {
        const uint4 pairs = logits[i];
        take_pair(best, pairs.x, 8 * i, a.limit);
        take_pair(best, pairs.y, 8 * i + 2, a.limit);
        take_pair(best, pairs.z, 8 * i + 4, a.limit);
        take_pair(best, pairs.w, 8 * i + 6, a.limit);
    }
    best = warp_best(best);
    if (threadIdx.x % 32 == 0) picks[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < BLOCK / 32; i++)
        if (better(picks[i], best)) best = picks[i];
    a.picks[blockIdx.y * PICKS + blockIdx.x] = best;
}

// One warp a row: its sequence goes on with the chosen token, and the host finds that in the ring.
extern "C" __global__ void __launch_bounds__(32) argmax_next(const __grid_constant__ struct argmax_arguments a) {
    struct pick best = {-1e30f, 0x7fffffff};
    programmatic_wait();
    for (int i = threadIdx.x; i < PICKS; i += 32) {
        const struct pick other = a.picks[blockIdx.x * PICKS + i];
        if (better(other, best)) best = other;
    }
    best = warp_best(best);
    if (threadIdx.x) return;
    struct sequence *sequence = &a.sequences[blockIdx.x];
    a.ring[sequence->step % RING * a.rows + blockIdx.x] = best.id;
    sequence->token = best.id;
    sequence->position++;
    sequence->step++;
}

// One block a row: its largest logit, then the sum of what the others are beside it.
extern "C" __global__ void __launch_bounds__(BLOCK) score(const __grid_constant__ struct score_arguments a) {
    __shared__ float largest[BLOCK];
    __shared__ double sums[BLOCK];
    const half_word *logits = a.logits + (size_t)blockIdx.x * a.width;
    float most = half_to_float(logits[0]);
    for (int i = threadIdx.x; i < a.limit; i += BLOCK) most = fmaxf(most, half_to_float(logits[i]));
    largest[threadIdx.x] = most;
    __syncthreads();
    for (int i = 0; i < BLOCK; i++) most = fmaxf(most, largest[i]);
    double sum = 0;
    for (int i = threadIdx.x; i < a.limit; i += BLOCK) sum += expf(half_to_float(logits[i]) - most);
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < BLOCK; i++) sum += sums[i];
    a.scores[blockIdx.x] = (double)(half_to_float(logits[a.targets[blockIdx.x]]) - most) - log(sum);
}
