// Attention of one query a sequence; ops.h says what it computes, ops.c how it is launched. HEAD_DIM: 64 or 128; WARPS,
// STAGES, HEADS: as ops.c has them; KV_BYTES: of an element of the cache; CLUSTER: the most blocks that a cluster may
// have, 1 before sm_90.
//
// Blocks: x takes pages of positions, y is a sequence, a key head of it and up to HEADS of the query heads that use
// that. Of n blocks that have positions, block x takes page x and every n-th from there: where its first page lies is
// known without the sequence's length. Each warp streams tiles of TILE positions through a ring of its own, without
// waiting for the others:
//
//     positions    | warp 0 | warp 1 | warp 2 | warp 3 | warp 0 | ...     TILE each
//     pages        |           block 0                 | block 1 ...      PAGE each
//     scores       keys (TILE x HEAD_DIM) queries (HEAD_DIM x HEADS), on the matrix unit
//     sums         values^T (HEAD_DIM x TILE) weights (TILE x HEADS), likewise
//
// The warps' sums meet in shared memory. Where a sequence has more than one block, those of a cluster send each other
// theirs: block r of it adds up those of query heads r, r + cluster and so on, in their order, which is y where there
// is but one cluster. Otherwise, for each query head, the last block to finish adds up the parts that all have left in
// memory, in their order; without clusters, that is one block for all heads.
//
// Position, pages and cache were written before the step, or by earlier ones, which have ended when a step begins: the
// ring is filled before the kernel waits for the one ahead of it.

#include "decoder/kv.cuh"
#include "decoder/rotate.cuh"

typedef unsigned short half_word;

struct sequence {
    int token, position, step, slot;
};

struct attend_arguments {
    kv_element *keys, *values; // (all pages, kv_heads, PAGE, HEAD_DIM)
    const int *pages;          // (count, pitch)
    const half_word *qkv;
    const float *frequency;
    const struct sequence *sequences;
    float *parts;
    unsigned *arrivals;
    half_word *y;
    int count, heads, kv_heads, pitch, head_dim, splits, cluster;
};

constexpr int TILE = 16, THREADS = 32 * WARPS, PAGE = TILE * WARPS;
// A tile's chunk is 16 bytes: elements of one, and how many a row has.
constexpr int ELEMENTS = 16 / KV_BYTES, CHUNKS = HEAD_DIM / ELEMENTS;
constexpr int TILE_BYTES = TILE * HEAD_DIM * KV_BYTES, RING_BYTES = STAGES * 2 * TILE_BYTES;
// Floats of a part: sums, the largest score, base 2, and the sum of the weights relative to it, two unused; halves of a
// query. Both pitches spread a warp's accesses over the banks.
constexpr int PART = HEAD_DIM + 4, QUERY = HEAD_DIM + 8;
// Codes are unpacked where they are: so, of each 16 elements, the matrix unit has them in another order. Of keys, lane
// l has in its columns elements KEY_STEP * (l % 4), KEY_NEXT further on, and those behind them; of values in its rows
// VALUE_STEP * (l / 4), and VALUE_NEXT further on.
constexpr int KEY_STEP = KV_BYTES == 1 ? 4 : 2, KEY_NEXT = KV_BYTES == 1 ? 2 : 8;
constexpr int VALUE_STEP = KV_BYTES == 1 ? 2 : 1, VALUE_NEXT = KV_BYTES == 1 ? 1 : 8;
// Behind the rings: what the cluster's blocks sent, a part each of each head that this block adds up, and what counts
// it.
constexpr int RECEIVED = WARPS * RING_BYTES, TRANSFER = RECEIVED + HEADS * PART * 4;
static_assert(SHARED_BYTES >= TRANSFER + 16, "ops.c disagrees");
static_assert(HEADS % CLUSTER == 0, "so that parts of all heads are as many floats in any block of a cluster");
static_assert(RING_BYTES >= HEADS * PART * 4, "a ring holds a warp's sums in the end");
static_assert(HEADS % WARPS == 0, "a warp weighs the parts of as many heads as another");
// Parts of which a thread adds up elements that it requests at once.
constexpr int PARTS_AT_ONCE = 16;

extern __shared__ uint4 shared_memory[];

// Rotated queries and key of this step, and its value.
__shared__ __align__(16) half_word queries[HEADS][QUERY];
__shared__ __align__(16) half_word fresh[2][HEAD_DIM];
// Of each head that the block adds up, in their order, and each part, what that counts for in y.
__shared__ float weight_of_part[HEADS][32];

// Where a block works.
struct place {
    int sequence, kv_head, head, heads; // first query head and how many
    int cached;                         // positions in the cache
    int splits;                         // blocks that have positions
    int cluster, rank;                  // blocks of the cluster, a power of two, and which of them this is
    int senders;                        // blocks of it that have positions
    int parts, part;                    // clusters that have positions, and which of all clusters this is
    int own;                            // heads that the block adds up: rank, rank + cluster and so on
    int stride;                         // positions from one of the block's pages to the next
    bool fresh_here;                    // whether the block has this step's position
    const int *pages;                   // the sequence's
    int first_page, fresh_page;         // in memory: the block's first, and that of this step's position
    int lane, warp;
    unsigned ring; // shared address of the warp's
};

__device__ inline struct place place_of(const struct attend_arguments &a) {
    const int group = a.heads / a.kv_heads, parts = (group + HEADS - 1) / HEADS;
    struct place p;
    p.sequence = blockIdx.y / (a.kv_heads * parts);
    p.kv_head = blockIdx.y / parts % a.kv_heads;
    p.head = p.kv_head * group + blockIdx.y % parts * HEADS;
    p.heads = min(HEADS, (p.kv_head + 1) * group - p.head);
    p.pages = a.pages + (size_t)p.sequence * a.pitch;
    p.first_page = p.pages[blockIdx.x];
    p.cached = a.sequences[p.sequence].position;
    const int last = p.cached / PAGE, share = last / a.splits + 1;
    p.splits = last / share + 1;
    p.cluster = CLUSTER > 1 ? a.cluster : 1;
    const int shift = log2_of(p.cluster);
    p.part = blockIdx.x >> shift;
    p.rank = blockIdx.x & (p.cluster - 1);
    p.senders = min(p.cluster, p.splits - ((int)blockIdx.x - p.rank));
    p.parts = (p.splits + p.cluster - 1) >> shift;
    p.own = (p.heads - p.rank + p.cluster - 1) >> shift;
    p.stride = p.splits * PAGE;
    p.fresh_here = last % p.splits == blockIdx.x;
    p.fresh_page = p.pages[last];
    p.lane = threadIdx.x % 32;
    p.warp = threadIdx.x / 32;
    p.ring = shared_address(shared_memory) + p.warp * RING_BYTES;
    return p;
}

// Chunk `chunk` of row `row` of a tile: swapped within the row, so that eight rows use all banks, which eight chunks
// do.
__device__ inline unsigned chunk_at(unsigned tile, int row, int chunk) {
    constexpr int SWAPS = CHUNKS < 8 ? CHUNKS : 8;
    return tile + (row * CHUNKS + (chunk ^ row * SWAPS / 8 % SWAPS)) * 16;
}

// Keys and values of the block's key head in the first page of all; elements from one page to the next.
struct cache {
    kv_element *keys, *values;
    size_t pitch;
};

// Begins to copy the positions from `first` on, which lie in `page`, keys and values, to `tile`; zeros for those that
// are not in the cache.
__device__ inline void copy_tile(const struct place &p, const struct cache &c, int first, int page, unsigned tile) {
    const size_t start = page * c.pitch + first % PAGE * HEAD_DIM;
#pragma unroll
    for (int i = 0; i < TILE * CHUNKS / 32; i++) {
        const int row = (32 * i + p.lane) / CHUNKS, chunk = (32 * i + p.lane) % CHUNKS;
        const bool inside = first + row < p.cached;
        const size_t from = start + row * HEAD_DIM + chunk * ELEMENTS;
        copy_async(chunk_at(tile, row, chunk), c.keys + from, inside);
        copy_async(chunk_at(tile + TILE_BYTES, row, chunk), c.values + from, inside);
    }
}

// Rows of qkv that a block may need: queries, key and value. A thread has two chunks of one.
constexpr int ROWS = HEADS + 2;
static_assert(ROWS * CHUNK_PAIRS <= THREADS, "a block rotates all its rows at once");

// Where qkv has the first of a thread's chunks.
__device__ inline size_t find_chunk(const struct attend_arguments &a, const struct place &p) {
    const int row = threadIdx.x / CHUNK_PAIRS, i = threadIdx.x % CHUNK_PAIRS * 8;
    const int head = row < HEADS ? p.head + row : a.heads + (row - HEADS) * a.kv_heads + p.kv_head;
    return ((size_t)p.sequence * (a.heads + 2 * a.kv_heads) + head) * HEAD_DIM + i;
}

// The rows of qkv that this block needs to shared memory: queries and, where they are its own, key and value, which go
// to the cache as well.
__device__ inline void rotate(const struct place &p, const struct cache &c, const half_word *from,
                              const struct angles &by) {
    const int row = threadIdx.x / CHUNK_PAIRS, i = threadIdx.x % CHUNK_PAIRS * 8;
    if (row < HEADS ? row >= p.heads : row >= ROWS || !p.fresh_here) return;
    uint4 low = *(const uint4 *)from, high = *(const uint4 *)(from + HEAD_DIM / 2);
    if (row != HEADS + 1) rotate_chunks(low, high, by);
    half_word *to = (row < HEADS ? queries[row] : fresh[row - HEADS]) + i;
    *(uint4 *)to = low;
    *(uint4 *)(to + HEAD_DIM / 2) = high;
    if (row < HEADS) return;
    kv_element *at = (row == HEADS ? c.keys : c.values) + p.fresh_page * c.pitch + p.cached % PAGE * HEAD_DIM + i;
    store_elements(at, low);
    store_elements(at + HEAD_DIM / 2, high);
}

// Zeros for the columns of the matrix unit that have no query head.
__device__ inline void clear_queries(const struct place &p) {
    for (int i = p.heads * QUERY + threadIdx.x; i < HEADS * QUERY; i += THREADS) queries[0][i] = 0;
}

// The fresh key and value into the tile that has their position.
__device__ inline void place_fresh(const struct place &p, int row, unsigned tile) {
    for (int i = p.lane; i < 2 * CHUNKS; i += 32)
        store_shared4(chunk_at(tile + i / CHUNKS * TILE_BYTES, row, i % CHUNKS),
                      elements_of((const uint4 *)&fresh[i / CHUNKS][i % CHUNKS * ELEMENTS]));
}

// A warp's softmax so far. As multiply() has them: lane l holds query heads 2 * (l % 4) and the next, and of the sums
// (HEAD_DIM x HEADS) of tile t of 16 elements rows l / 4 (sums[t][0..1]) and l / 4 + 8.
struct partial {
    float most[2], sum[2]; // the sum over this lane's positions
    float sums[HEAD_DIM / 16][4];
};

// Codes of a tile's keys or values, 16 elements of all positions to two words, which begin at codes[t / 2][t % 2 * 2]:
// lane l has elements 4 * (l % 4) to + 3 of positions l / 4, then l / 4 + 8; transposed, elements 2 * (l / 4) and the
// next of positions 2 * (l % 4) and the next, then of those 8 further on.
template <bool TRANSPOSED>
__device__ inline void load_codes(const struct place &p, unsigned tile, unsigned (&codes)[HEAD_DIM / 32][4]) {
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 32; i++) {
        const unsigned from = chunk_at(tile, p.lane % 16, 2 * i + p.lane / 16);
        if (TRANSPOSED)
            load_matrices_transposed(from, codes[i]);
        else
            load_matrices(from, codes[i]);
    }
}

// A tile's keys: of each 16 elements what multiply() takes.
__device__ inline void load_keys(const struct place &p, unsigned tile, unsigned (&keys)[HEAD_DIM / 16][4]) {
    if (KV_BYTES == 1) {
        unsigned codes[HEAD_DIM / 32][4];
        load_codes<false>(p, tile, codes);
#pragma unroll
        for (int k = 0; k < HEAD_DIM / 16; k++)
            for (int i = 0; i < 2; i++) halves_from_codes(codes[k / 2][k % 2 * 2 + i], keys[k][i], keys[k][i + 2]);
    } else {
#pragma unroll
        for (int k = 0; k < HEAD_DIM / 16; k++)
            load_matrices(chunk_at(tile, p.lane % 16, 2 * k + p.lane / 16), keys[k]);
    }
}

// Scores (TILE x HEADS) of the keys of a tile, lane l having positions l / 4 and l / 4 + 8. Two sums, so that a product
// does not wait for the one before; all keys first, so that none waits for shared memory.
__device__ inline void score_tile(const struct place &p, const unsigned (&query)[HEAD_DIM / 16][2], unsigned tile,
                                  float (&scores)[4]) {
    unsigned keys[HEAD_DIM / 16][4];
    float sums[2][4] = {};
    load_keys(p, tile, keys);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++) multiply(sums[k % 2], keys[k], query[k][0], query[k][1]);
#pragma unroll
    for (int i = 0; i < 4; i++) scores[i] = sums[0][i] + sums[1][i];
}

// Scores into weights relative to the new maximum; what was summed up before shrinks to that.
__device__ inline void weigh(struct partial &part, float (&scores)[4]) {
#pragma unroll
    for (int column = 0; column < 2; column++) {
        float &low = scores[column], &high = scores[column + 2];
        float most = fmaxf(part.most[column], fmaxf(low, high));
        for (int step = 4; step < 32; step *= 2) most = fmaxf(most, other_lane(most, step));
        const float keep = exp2f(part.most[column] - most);
        part.most[column] = most;
        low = exp2f(low - most);
        high = exp2f(high - most);
        part.sum[column] = part.sum[column] * keep + low + high;
#pragma unroll
        for (int t = 0; t < HEAD_DIM / 16; t++) part.sums[t][column] *= keep, part.sums[t][column + 2] *= keep;
    }
}

// A tile's values, transposed: of tile t of 16 elements, what multiply() takes. Of codes, two positions' first elements
// are brought together, and their second ones.
__device__ inline void load_values(const struct place &p, unsigned tile, unsigned (&values)[HEAD_DIM / 16][4]) {
    if (KV_BYTES == 1) {
        unsigned codes[HEAD_DIM / 32][4];
        load_codes<true>(p, tile + TILE_BYTES, codes);
#pragma unroll
        for (int t = 0; t < HEAD_DIM / 16; t++)
            for (int i = 0; i < 2; i++)
                halves_from_codes(select_bytes(codes[t / 2][t % 2 * 2 + i], 0, 0x3120), values[t][2 * i],
                                  values[t][2 * i + 1]);
    } else {
        const int row = p.lane % 8 + p.lane / 16 * 8, chunk = p.lane / 8 % 2;
#pragma unroll
        for (int t = 0; t < HEAD_DIM / 16; t++)
            load_matrices_transposed(chunk_at(tile + TILE_BYTES, row, 2 * t + chunk), values[t]);
    }
}

// Adds them, weighted.
__device__ inline void add_values(const unsigned (&values)[HEAD_DIM / 16][4], const float (&weights)[4],
                                  struct partial &part) {
    const unsigned low = transpose(half2_from_floats(weights[0], weights[1]));
    const unsigned high = transpose(half2_from_floats(weights[2], weights[3]));
#pragma unroll
    for (int t = 0; t < HEAD_DIM / 16; t++) multiply(part.sums[t], values[t], low, high);
}

// The page that a position lies in; 0 behind the last one.
__device__ inline int page_of(const struct place &p, int position) {
    return position <= p.cached ? p.pages[position / PAGE] : 0;
}

// Begins to copy this warp's first STAGES tiles to its ring; the page that the next one lies in.
__device__ inline int fill_ring(const struct place &p, const struct cache &c) {
    const int start = blockIdx.x * PAGE + TILE * p.warp;
    int pages[STAGES + 1] = {p.first_page};
#pragma unroll
    for (int i = 1; i <= STAGES; i++) pages[i] = page_of(p, start + i * p.stride);
#pragma unroll
    for (int i = 0; i < STAGES; i++) {
        const int first = start + i * p.stride;
        if (first <= p.cached) copy_tile(p, c, first, pages[i], p.ring + i * 2 * TILE_BYTES);
        copy_async_commit();
    }
    return pages[STAGES];
}

// Streams this warp's tiles; `page` is what fill_ring() returned.
__device__ inline void stream(const struct place &p, const struct cache &c, int page, struct partial &part) {
    const float scale = 1.4426950408889634f / sqrtf((float)HEAD_DIM);
    unsigned query[HEAD_DIM / 16][2], stage = 0;
    for (int k = 0; k < HEAD_DIM / 16; k++)
        for (int half = 0; half < 2; half++)
            query[k][half] = *(const unsigned *)&queries[p.lane / 4][16 * k + KEY_NEXT * half + p.lane % 4 * KEY_STEP];
    for (int first = blockIdx.x * PAGE + TILE * p.warp; first <= p.cached; first += p.stride) {
        const int ahead = first + STAGES * p.stride;
        const unsigned tile = p.ring + stage * 2 * TILE_BYTES;
        unsigned values[HEAD_DIM / 16][4];
        float scores[4];
        copy_async_wait<STAGES - 1>();
        __syncwarp();
        if (p.cached - first < TILE) {
            place_fresh(p, p.cached - first, tile);
            __syncwarp();
        }
        score_tile(p, query, tile, scores);
        load_values(p, tile, values);
        for (int i = 0; i < 4; i++) scores[i] = first + p.lane / 4 + i / 2 * 8 <= p.cached ? scores[i] * scale : -1e30f;
        weigh(part, scores);
        add_values(values, scores, part);
        __syncwarp();
        if (ahead <= p.cached) copy_tile(p, c, ahead, page, tile);
        copy_async_commit();
        page = page_of(p, ahead + p.stride);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
}

// A warp's part to shared memory, where its ring was: [HEADS][PART].
__device__ inline void store_partial(const struct place &p, struct partial &part) {
    float *sums = (float *)shared_memory + p.warp * (RING_BYTES / 4);
    for (int column = 0; column < 2; column++) {
        const int head = p.lane % 4 * 2 + column;
        for (int step = 4; step < 32; step *= 2) part.sum[column] += other_lane(part.sum[column], step);
#pragma unroll
        for (int t = 0; t < HEAD_DIM / 16; t++) {
            sums[head * PART + 16 * t + p.lane / 4 * VALUE_STEP] = part.sums[t][column];
            sums[head * PART + 16 * t + p.lane / 4 * VALUE_STEP + VALUE_NEXT] = part.sums[t][column + 2];
        }
        if (p.lane < 4) sums[head * PART + HEAD_DIM] = part.most[column];
        if (p.lane < 4) sums[head * PART + HEAD_DIM + 1] = part.sum[column];
    }
}

// Four elements of a part.
struct piece {
    float4 sum;
    float most, total;
};

// sum += weight * value.
__device__ inline void add_weighted(float4 &sum, float weight, const float4 &value) {
    sum.x += weight * value.x, sum.y += weight * value.y;
    sum.z += weight * value.z, sum.w += weight * value.w;
}

// Elements `i` to `i + 3` of up to MOST parts in shared memory, `pitch` floats apart, added up.
template <int MOST> __device__ inline struct piece merge(const float *parts, int pitch, int count, int i) {
    struct piece piece = {make_float4(0, 0, 0, 0), -1e30f, 0};
    float4 sums[MOST];
    float most[MOST], totals[MOST];
#pragma unroll
    for (int j = 0; j < MOST; j++) {
        const float *part = parts + j * pitch;
        sums[j] = make_float4(0, 0, 0, 0), most[j] = -1e30f, totals[j] = 0;
        if (j < count) sums[j] = *(const float4 *)(part + i), most[j] = part[HEAD_DIM], totals[j] = part[HEAD_DIM + 1];
    }
#pragma unroll
    for (int j = 0; j < MOST; j++) piece.most = fmaxf(piece.most, most[j]);
#pragma unroll
    for (int j = 0; j < MOST; j++) {
        const float weight = exp2f(most[j] - piece.most);
        piece.total += weight * totals[j];
        add_weighted(piece.sum, weight, sums[j]);
    }
    return piece;
}

// Which row of heads query head `head` of the block's sequence is.
__device__ inline size_t row_of(const struct attend_arguments &a, const struct place &p, int head) {
    return (size_t)p.sequence * a.heads + p.head + head;
}

// Elements `i` to `i + 3` of y, `scale` times `sum`.
__device__ inline void store_y(const struct attend_arguments &a, const struct place &p, int head, int i,
                               const float4 &sum, float scale) {
    const uint2 pairs = {half2_from_floats(sum.x * scale, sum.y * scale),
                         half2_from_floats(sum.z * scale, sum.w * scale)};
    *(uint2 *)(a.y + row_of(a, p, head) * HEAD_DIM + i) = pairs;
}

// The first of the parts of a query head in memory.
__device__ inline float *parts_of(const struct attend_arguments &a, const struct place &p, int head) {
    return a.parts + row_of(a, p, head) * a.splits * PART;
}

// Elements `i` to `i + 3` of the block's or its cluster's part, or of y where there is no other.
__device__ inline void store_piece(const struct attend_arguments &a, const struct place &p, int head, int i,
                                   const struct piece &piece) {
    if (p.parts == 1) {
        store_y(a, p, head, i, piece.sum, 1 / piece.total);
        return;
    }
    float4 *part = (float4 *)parts_of(a, p, head) + p.part * (PART / 4);
    part[i / 4] = piece.sum;
    if (i == 0) part[HEAD_DIM / 4] = make_float4(piece.most, piece.total, 0, 0);
}

// Where the block that adds up query head `head` has the part of block `sender` of the cluster.
__device__ inline unsigned received_at(const struct place &p, int head, int sender) {
    return RECEIVED + ((head & -p.cluster) + sender) * PART * 4;
}

// Says how much this block will be sent, before any block sends.
__device__ inline void announce_parts(const struct place &p) {
    if (threadIdx.x == 0)
        transfer_open(shared_address(shared_memory) + TRANSFER, p.own * p.senders * (HEAD_DIM + 4) * 4);
    cluster_arrive();
}

// Elements `i` to `i + 3` of the block's part, to the block that adds up that query head.
__device__ inline void send_piece(const struct place &p, int head, int i, const struct piece &piece) {
    const unsigned memory = shared_address(shared_memory), owner = head & (p.cluster - 1);
    const unsigned to = cluster_address(memory + received_at(p, head, p.rank), owner);
    const unsigned transfer = cluster_address(memory + TRANSFER, owner);
    send_remote4(to + i * 4, piece.sum, transfer);
    if (i == 0) send_remote4(to + HEAD_DIM * 4, make_float4(piece.most, piece.total, 0, 0), transfer);
}

// Whether the cluster's blocks send each other their parts.
__device__ inline bool joined(const struct place &p) {
    return CLUSTER > 1 && p.cluster > 1 && p.splits > 1;
}

// The block's positions: its part to where it is added up, or y.
__device__ inline void attend_pages(const struct attend_arguments &a, const struct place &p) {
    const size_t head = (size_t)p.kv_head * PAGE * HEAD_DIM;
    const struct cache c = {a.keys + head, a.values + head, (size_t)a.kv_heads * PAGE * HEAD_DIM};
    const int page = fill_ring(p, c);
    if (joined(p)) cluster_wait();
    clear_queries(p);
    const struct angles by = find_angles(a.frequency, p.cached);
    const size_t chunk = computed(find_chunk(a, p));
    programmatic_wait();
    rotate(p, c, a.qkv + chunk, by);
    __syncthreads();
    struct partial part = {{-1e30f, -1e30f}, {0, 0}, {}};
    stream(p, c, page, part);
    store_partial(p, part);
    __syncthreads();
    for (int item = threadIdx.x; item < p.heads * HEAD_DIM / 4; item += THREADS) {
        const int head = item / (HEAD_DIM / 4), i = item % (HEAD_DIM / 4) * 4;
        const struct piece piece = merge<WARPS>((const float *)shared_memory + head * PART, RING_BYTES / 4, WARPS, i);
        if (joined(p))
            send_piece(p, head, i, piece);
        else
            store_piece(a, p, head, i, piece);
    }
}

// The parts of the cluster's blocks added up, of this block's heads.
__device__ inline void merge_received(const struct attend_arguments &a, const struct place &p) {
    transfer_wait(shared_address(shared_memory) + TRANSFER);
    for (int item = threadIdx.x; item < p.own * HEAD_DIM / 4; item += THREADS) {
        const int head = p.rank + item / (HEAD_DIM / 4) * p.cluster, i = item % (HEAD_DIM / 4) * 4;
        const float *parts = (const float *)shared_memory + received_at(p, head, 0) / 4;
        store_piece(a, p, head, i, merge<CLUSTER>(parts, PART, p.senders, i));
    }
}

// What each part in memory counts for in y: a warp takes a query head at a time, a lane a part. Those of all its heads
// are requested at once.
__device__ inline void weigh_parts(const struct attend_arguments &a, const struct place &p) {
    float4 extremes[HEADS / WARPS];
#pragma unroll
    for (int j = 0; j < HEADS / WARPS; j++) {
        const int own = p.warp + j * WARPS;
        const float4 *parts = (const float4 *)parts_of(a, p, p.rank + own * p.cluster);
        extremes[j] = make_float4(-1e30f, 0, 0, 0);
        if (own < p.own && p.lane < p.parts) extremes[j] = load_published(parts + p.lane * (PART / 4) + HEAD_DIM / 4);
    }
#pragma unroll
    for (int j = 0; j < HEADS / WARPS; j++) {
        float most = extremes[j].x;
        for (int step = 1; step < 32; step *= 2) most = fmaxf(most, other_lane(most, step));
        const float weight = exp2f(extremes[j].x - most);
        float total = weight * extremes[j].y;
        for (int step = 1; step < 32; step *= 2) total += other_lane(total, step);
        weight_of_part[p.warp + j * WARPS][p.lane] = weight / total;
    }
}

// Elements `i` to `i + 3` of y, from all parts of the block's head `own` in memory in their order.
__device__ inline void merge_parts(const struct attend_arguments &a, const struct place &p, int own, int i) {
    const int head = p.rank + own * p.cluster;
    const float4 *parts = (const float4 *)(parts_of(a, p, head) + i);
    float4 sum = make_float4(0, 0, 0, 0);
    for (int first = 0; first < p.parts; first += PARTS_AT_ONCE) {
        float4 values[PARTS_AT_ONCE];
#pragma unroll
        for (int j = 0; j < PARTS_AT_ONCE; j++)
            if (first + j < p.parts) values[j] = load_published(parts + (first + j) * (PART / 4));
#pragma unroll
        for (int j = 0; j < PARTS_AT_ONCE; j++)
            if (first + j < p.parts) add_weighted(sum, weight_of_part[own][first + j], values[j]);
    }
    store_y(a, p, head, i, sum, 1);
}

// Leaves y to the last of the blocks that have the same heads.
__device__ inline void merge_memory(const struct attend_arguments &a, const struct place &p) {
    __syncthreads();
    unsigned *arrivals = &a.arrivals[blockIdx.y * HEADS + p.rank];
    const bool last = threadIdx.x == 0 && count_arrival(arrivals) == p.parts - 1;
    if (!__syncthreads_or(last)) return;
    if (threadIdx.x == 0) *arrivals = 0;
    weigh_parts(a, p);
    __syncthreads();
    for (int item = threadIdx.x; item < p.own * HEAD_DIM / 4; item += THREADS)
        merge_parts(a, p, item / (HEAD_DIM / 4), item % (HEAD_DIM / 4) * 4);
}

// One block an SM is all that is asked for: shared memory limits their number before registers do, and with more of
// those the tiles' fragments are requested well ahead of their products. A block of a cluster that has positions adds
// up its heads though it may have no positions itself.
extern "C" __global__ void __launch_bounds__(THREADS, 1) attend(const __grid_constant__ struct attend_arguments a) {
    programmatic_launch();
    const struct place p = place_of(a);
    if (joined(p) ? p.senders <= 0 : blockIdx.x >= p.splits) return;
    if (joined(p)) announce_parts(p);
    if (blockIdx.x < p.splits) {
        attend_pages(a, p);
    } else if (joined(p)) {
        cluster_wait();
        programmatic_wait();
    }
    if (p.splits == 1 || p.own == 0) return;
    if (joined(p)) merge_received(a, p);
    if (p.parts > 1) merge_memory(a, p);
}
