// Choosing the next tokens on a GPU, with the numbers of sample.c, which says what they are; ops.c launches.
// COUNT_THREADS: threads of a block of sample_count; WARPS: of the block of sample_next; BINS: values of an fp16 word;
// RING: steps of which the host can still read the tokens.
//
//   sample_count   logits (limit) -> ids of each bin (BINS), by all of the card
//   sample_next    a block a row, three times a tree of sums over 32 * 32 leaves of 32 lanes:
//                  bins -> the largest, the k-th; their weights -> where p is crossed, what is drawn; ids -> the drawn

#include "decoder/ptx.cuh"

typedef unsigned short half_word;
typedef unsigned long long sum_word;

struct sampling {
    sum_word seed, top_p;
    float scale, penalty;
    int top_k, greedy;
};

struct sequence {
    int token, position, step, slot;
};

struct sample_arguments {
    const half_word *logits;
    unsigned *counts;
    const struct sampling *sampling;
    unsigned char *seen;
    struct sequence *sequences;
    int *ring;
    int rows, width, limit;
};

constexpr int LEAVES = 32 * 32;
// Leaves that a warp fetches at a time.
constexpr int AHEAD = 4;
// The weight of the largest, and of all where the scale is 0.
constexpr sum_word ONE = 1ull << 40;

// The bin of a logit: the largest have the lowest; 0 if it is not finite.
__device__ inline int bin_of(half_word logit, bool seen, float penalty) {
    if ((logit & 0x7c00) == 0x7c00) return 0;
    if (seen) {
        const float value = half_to_float(logit);
        const float less = value < 0 ? value * penalty : value / penalty;
        logit = half_from_float(fminf(fmaxf(less, -65504), 65504));
    }
    if (logit == 0x8000) logit = 0;
    return logit & 0x8000 ? logit : logit ^ 0x7fff;
}

// The value of a bin.
__device__ inline float value_of(int bin) {
    return half_to_float((half_word)(bin & 0x8000 ? bin : bin ^ 0x7fff));
}

// A row of logits by its ids, eight a vector.
struct row {
    const uint4 *logits;
    const unsigned char *seen;
    float penalty;
    int limit;
};

// The logits of a vector, and a bit an id that was seen.
struct eight {
    uint4 pairs;
    unsigned seen;
};

__device__ inline struct row row_of(const struct sample_arguments &a, int index, int slot) {
    return {(const uint4 *)(a.logits + (size_t)index * a.width), a.seen + (size_t)slot * ((a.width + 7) / 8),
            a.sampling[slot].penalty, a.limit};
}

__device__ inline struct eight load_eight(const struct row &row, int at) {
    if (8 * at >= row.limit) return {make_uint4(0, 0, 0, 0), 0};
    return {row.logits[at], row.seen[at]};
}

// The bin of id 8 * at + i; BINS if that is not to be chosen.
__device__ inline int bin_in(const struct row &row, const struct eight &eight, int at, int i) {
    const unsigned pair = i < 2 ? eight.pairs.x : i < 4 ? eight.pairs.y : i < 6 ? eight.pairs.z : eight.pairs.w;
    if (8 * at + i >= row.limit) return BINS;
    return bin_of((half_word)(pair >> i % 2 * 16), eight.seen >> i & 1, row.penalty);
}

// Blocks: x shares out the ids, y is the row.
extern "C" __global__ void __launch_bounds__(COUNT_THREADS)
    sample_count(const __grid_constant__ struct sample_arguments a) {
    const int at = blockIdx.x * COUNT_THREADS + threadIdx.x;
    programmatic_launch();
    programmatic_wait();
    const struct row row = row_of(a, blockIdx.y, a.sequences[blockIdx.y].slot);
    const struct eight eight = load_eight(row, at);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int bin = bin_in(row, eight, at, i);
        if (bin < BINS) atomicAdd(&a.counts[(size_t)blockIdx.y * BINS + bin], 1u);
    }
}

// --- the tree ---

// Sums over the leaves, and over 32 neighbouring ones each. A lane's share of leaf l is that of place 32 * l + lane.
struct tree {
    sum_word leaves[LEAVES], branches[32];
};

// The sum over a warp, in every lane.
__device__ inline sum_word warp_sum(sum_word value) {
    for (int step = 16; step; step /= 2) value += other_lane(value, step);
    return value;
}

// Sums up what `shares` has at each place.
template <class SHARES> __device__ inline void fill(struct tree &tree, const SHARES &shares) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads();
    for (int first = warp; first < LEAVES; first += AHEAD * WARPS) {
        typename SHARES::words held[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) held[i] = shares.load((first + i * WARPS) * 32 + lane);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int leaf = first + i * WARPS;
            sum_word sum = shares.sum(held[i], leaf * 32 + lane);
            if (warp_any(sum != 0)) sum = warp_sum(sum);
            if (lane == 0) tree.leaves[leaf] = sum;
        }
    }
    __syncthreads();
    for (int branch = warp; branch < 32; branch += WARPS) {
        const sum_word sum = warp_sum(tree.leaves[branch * 32 + lane]);
        if (lane == 0) tree.branches[branch] = sum;
    }
    __syncthreads();
}

__device__ inline sum_word total(const struct tree &tree) {
    return warp_sum(tree.branches[threadIdx.x % 32]);
}

// The first lane with whose value the sum of `before` and all up to it reaches the target; adds those below to
// `before`.
__device__ inline int reach_lane(sum_word value, sum_word target, sum_word &before) {
    sum_word sum = value;
    for (int step = 1; step < 32; step *= 2) {
        const sum_word below = lane_below(sum, step);
        if (threadIdx.x % 32 >= step) sum += below;
    }
    const int lane = first_lane(before + sum >= target);
    before += from_lane(sum - value, lane);
    return lane;
}

// The place with whose share the sum reaches the target, which the total does; `before`: the sum of those ahead of it.
template <class SHARES>
__device__ inline int reach(const struct tree &tree, const SHARES &shares, sum_word target, sum_word &before) {
    const int lane = threadIdx.x % 32;
    before = 0;
    int at = reach_lane(tree.branches[lane], target, before) * 32;
    at = (at + reach_lane(tree.leaves[at + lane], target, before)) * 32;
    return at + reach_lane(shares.sum(shares.load(at + lane), at + lane), target, before);
}

// --- bins ---

// The weights of the ids of two bins a place, up to `last`.
struct bins {
    typedef uint2 words;
    const unsigned *counts;
    float most, scale;
    int last;

    __device__ uint2 load(int at) const {
        return ((const uint2 *)counts)[at];
    }
    __device__ sum_word sum(uint2 pair, int at) const {
        return (pair.x ? pair.x * weight(2 * at) : 0) + (pair.y ? pair.y * weight(2 * at + 1) : 0);
    }
    // Of one id.
    __device__ sum_word weight(int bin) const {
        const float exponent = rounded_product(value_of(bin) - most, scale);
        if (bin > last || exponent < -40) return 0;
        const float whole = floorf(exponent), fraction = exponent - whole;
        float power = 0.000208179146f;
        power = fmaf(power, fraction, 0.00126921665f);
        power = fmaf(power, fraction, 0.0096521955f);
        power = fmaf(power, fraction, 0.0554960221f);
        power = fmaf(power, fraction, 0.240227208f);
        power = fmaf(power, fraction, 0.693147182f);
        power = fmaf(power, fraction, 1);
        return (sum_word)(power * 0x1p40f) >> (int)-whole;
    }
};

// Where the sum of weights reaches a target: with so many ids of a bin.
struct place {
    int bin;
    sum_word ids, sum;
};

__device__ inline struct place reach_bin(const struct tree &tree, const struct bins &bins, sum_word target) {
    sum_word before;
    int bin = 2 * reach(tree, bins, target, before);
    sum_word each = bins.weight(bin), all = bins.counts[bin] * each;
    if (before + all < target) {
        before += all;
        each = bins.weight(++bin);
    }
    const sum_word ids = (target - before + each - 1) / each;
    return {bin, ids, before + ids * each};
}

// sum * part / 2^32.
__device__ inline sum_word share(sum_word sum, sum_word part) {
    return (sum >> 32) * part + ((sum & 0xffffffff) * part >> 32);
}

// SplitMix64's number for a position.
__device__ inline sum_word draw(sum_word seed, int position) {
    sum_word z = seed + ((sum_word)position + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) >> 32;
}

// The bin, and which of its ids.
__device__ inline struct place choose(struct tree &tree, const unsigned *counts, const struct sampling &sampling,
                                      int limit, int position) {
    const struct bins all = {counts, 0, 0, BINS - 1};
    fill(tree, all);
    const float most = value_of(reach_bin(tree, all, ONE).bin);
    const int last = reach_bin(tree, all, min(sampling.top_k, limit) * ONE).bin;
    const struct bins kept = {counts, most, sampling.scale, last};
    fill(tree, kept);
    const sum_word crossed = max(share(total(tree), sampling.top_p), 1ull);
    const sum_word sum = reach_bin(tree, kept, crossed).sum;
    return reach_bin(tree, kept, 1 + share(sum, sampling.greedy ? 0 : draw(sampling.seed, position)));
}

// --- ids ---

// How many of the eight ids of a place, from vector `first` on, are in the bin.
struct matches {
    typedef struct eight words;
    struct row row;
    int first, bin;

    __device__ struct eight load(int at) const {
        return load_eight(row, first + at);
    }
    __device__ sum_word sum(const struct eight &eight, int at) const {
        unsigned count = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) count += bin_in(row, eight, first + at, i) == bin;
        return count;
    }
};

// The id that is number `place.ids` of those in the bin.
__device__ inline int find(struct tree &tree, const struct row &row, struct place place) {
    struct matches matches = {row, 0, place.bin};
    sum_word before;
    for (fill(tree, matches); total(tree) < place.ids; fill(tree, matches)) {
        place.ids -= total(tree);
        matches.first += LEAVES * 32;
    }
    const int at = matches.first + reach(tree, matches, place.ids, before);
    const struct eight eight = load_eight(row, at);
    int i = -1;
    do
        if (bin_in(row, eight, at, ++i) == place.bin) before++;
    while (before < place.ids);
    return 8 * at + i;
}

// One block a row: its sequence goes on with the token, and the host finds that in the ring.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
    sample_next(const __grid_constant__ struct sample_arguments a) {
    __shared__ struct tree tree;
    unsigned *counts = a.counts + (size_t)blockIdx.x * BINS;
    programmatic_wait();
    const struct sequence sequence = a.sequences[blockIdx.x];
    const struct row row = row_of(a, blockIdx.x, sequence.slot);
    int id = -1;
    if (!counts[0]) {
        const struct place place = choose(tree, counts, a.sampling[sequence.slot], a.limit, sequence.position);
        id = find(tree, row, place);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS / 4; i += 32 * WARPS) ((uint4 *)counts)[i] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x) return;
    if (id >= 0) a.seen[(size_t)sequence.slot * ((a.width + 7) / 8) + id / 8] |= 1 << id % 8;
    a.ring[sequence.step % RING * a.rows + blockIdx.x] = id;
    a.sequences[blockIdx.x] = {id, sequence.position + 1, sequence.step + 1, sequence.slot};
}
