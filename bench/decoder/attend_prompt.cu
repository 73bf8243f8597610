// Attention of a prompt's chunk; ops.h says what it computes (ops_attention), ops.c how it is launched. HEAD_DIM: 64 or
// 128; WARPS, KEYS: as ops.c has them; KV_BYTES: of an element of the cache.
//
// Blocks: x is a query head, y counts ROWS neighbouring queries from the chunk's end on, so that those with the most
// positions start first. Of its queries each warp has WARP_ROWS; tiles of KEYS positions, a page of the cache
// each, pass by all of them, one in use and one on its way:
//
//     positions 0 ..          | KEYS | KEYS | ...  | KEYS |
//     queries   0 .. 31       |      |      |      |\     |  warp 0     scores = queries (WARP_ROWS x HEAD_DIM) keys^T
//              32 .. 63       |      |      |      |  \   |  warp 1     sums  += weights (WARP_ROWS x KEYS) values
//              ...            |      |      |      |    \ |  ...        behind the diagonal: weight 0, or no work
//
// Scores and weights never leave a warp's registers: what the matrix unit returns as sums is laid out as it takes the
// left operand of the next product. A cache of codes has one tile in use, unpacked; on their way are the codes of the
// next.

#include "decoder/kv.cuh"

typedef unsigned short half_word;

struct cache {
    kv_element *keys, *values; // (all pages, kv_heads, KEYS, HEAD_DIM)
    const int *pages;          // the sequence's
    int kv_heads, head_dim, position;
};

struct attention_arguments {
    struct cache cache;
    const half_word *qkv;
    half_word *y;
    int tokens, heads;
};

constexpr int THREADS = 32 * WARPS, WARP_ROWS = 32, ROWS = WARPS * WARP_ROWS, CHUNKS = HEAD_DIM / 8;
constexpr int ROW_BYTES = HEAD_DIM * 2, QUERY_BYTES = ROWS * ROW_BYTES, TILE_BYTES = KEYS * ROW_BYTES;
constexpr int STAGE_BYTES = 2 * TILE_BYTES; // keys, then values
static_assert(SHARED_BYTES == QUERY_BYTES + STAGE_BYTES + STAGE_BYTES / 2 * KV_BYTES, "ops.c disagrees");

extern __shared__ __align__(1024) uint4 shared_memory[];

// Where a block and its warp work.
struct place {
    int head, kv_head;
    int row;                 // the block's first query, counted in the chunk
    int end;                 // positions that its queries see
    int lane, warp_row;      // the warp's first query, counted in the block
    int warp_first;          // the last position that this one sees
    int warp_last;           // the last that any of the warp sees; -1 without queries
    unsigned queries, tiles; // shared addresses
};

__device__ inline struct place place_of(const struct attention_arguments &a) {
    struct place p;
    p.head = blockIdx.x;
    p.kv_head = p.head / (a.heads / a.cache.kv_heads);
    p.row = ((a.tokens - 1) / ROWS - (int)blockIdx.y) * ROWS;
    p.end = a.cache.position + min(p.row + ROWS, a.tokens);
    p.lane = threadIdx.x % 32;
    p.warp_row = threadIdx.x / 32 * WARP_ROWS;
    const int first = p.row + p.warp_row, last = min(first + WARP_ROWS, a.tokens) - 1;
    p.warp_first = a.cache.position + first;
    p.warp_last = first <= last ? a.cache.position + last : -1;
    p.queries = shared_address(shared_memory);
    p.tiles = p.queries + QUERY_BYTES;
    return p;
}

// Chunk (eight elements) `chunk` of row `row` of a matrix: swapped within the row, so that eight rows use all banks.
// From chunk 0 or 1, `^ 32 * i` leads on by 2 * i: every row begins at a multiple of its bytes.
__device__ inline unsigned chunk_at(unsigned matrix, int row, int chunk) {
    return matrix + row * ROW_BYTES + (chunk ^ row % 8) * 16;
}

// Begins to copy COUNT rows, of which `inside` are there, `pitch` elements apart; zeros for the others.
template <int COUNT> __device__ inline void copy_rows(const half_word *from, size_t pitch, int inside, unsigned to) {
    constexpr int AT_ONCE = THREADS / CHUNKS;
    static_assert(AT_ONCE % 8 == 0, "all chunks of a thread are swapped alike");
    const int first = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    from += first * pitch + chunk * 8;
    to = chunk_at(to, first, chunk);
    inside -= first;
#pragma unroll
    for (int row = 0; row < COUNT; row += AT_ONCE) copy_async(to + row * ROW_BYTES, from + row * pitch, row < inside);
}

// Of codes, 16 to a chunk, a thread has one in every so many rows.
constexpr int CODE_CHUNKS = HEAD_DIM / 16, CODE_ROWS = THREADS / CODE_CHUNKS;
static_assert(CODE_ROWS % 8 == 0, "all chunks of a thread are swapped alike");

// Begins to copy the codes of a tile's keys or values; zeros for rows that are not `inside`.
__device__ inline void copy_codes(const kv_element *from, int inside, unsigned to) {
    const int first = threadIdx.x / CODE_CHUNKS;
#pragma unroll
    for (int row = 0; row < KEYS; row += CODE_ROWS)
        copy_async(to + row * HEAD_DIM + threadIdx.x * 16, from + row * HEAD_DIM + threadIdx.x * 16,
                   first + row < inside);
}

// Begins to copy the positions from `first` on, those of page `page` in memory, that the block sees. Others may hold
// anything, even NaN, which weight 0 would not keep out of the sums.
__device__ inline void copy_tile(const struct place &p, const struct cache &c, int page, int first, unsigned to) {
    const size_t from = ((size_t)page * c.kv_heads + p.kv_head) * KEYS * HEAD_DIM;
    if (KV_BYTES == 1) {
        copy_codes(c.keys + from, p.end - first, to);
        copy_codes(c.values + from, p.end - first, to + TILE_BYTES / 2);
    } else {
        copy_rows<KEYS>((const half_word *)c.keys + from, HEAD_DIM, p.end - first, to);
        copy_rows<KEYS>((const half_word *)c.values + from, HEAD_DIM, p.end - first, to + TILE_BYTES);
    }
}

// The codes that this thread copied to `codes`, keys and values, as rows of a tile.
__device__ inline void unpack(unsigned codes, unsigned tile) {
    const unsigned to = chunk_at(tile, threadIdx.x / CODE_CHUNKS, threadIdx.x % CODE_CHUNKS * 2);
#pragma unroll
    for (int row = 0; row < 2 * KEYS; row += CODE_ROWS) {
        const uint4 from = load_shared4(codes + row * HEAD_DIM + threadIdx.x * 16);
        uint4 low, high;
        halves_from_codes(from.x, low.x, low.y);
        halves_from_codes(from.y, low.z, low.w);
        halves_from_codes(from.z, high.x, high.y);
        halves_from_codes(from.w, high.z, high.w);
        store_shared4(to + row * ROW_BYTES, low);
        store_shared4((to ^ 16) + row * ROW_BYTES, high);
    }
}

// A warp's softmax so far. Lane l has of each m16 x n8 tile of scores and sums rows l / 4 ([0], [1]) and l / 4 + 8
// ([2], [3]), columns 2 * (l % 4) and the next; `half` 0 or 1 is one of the two rows.
struct partial {
    float most[2][2];               // what the weights of a row are relative to
    float sum[2][2];                // of the weights in this lane's columns
    float sums[2][HEAD_DIM / 8][4]; // weighted values
};

// Adds the products of this warp's queries with a tile's keys to scores that are 0.
__device__ inline void score_tile(const struct place &p, unsigned tile, float (&scores)[2][KEYS / 8][4]) {
    const unsigned queries = chunk_at(p.queries, p.warp_row + p.lane % 16, p.lane / 16);
    const unsigned keys = chunk_at(tile, p.lane / 16 * 8 + p.lane % 8, p.lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < HEAD_DIM / 16; k++) {
        unsigned query[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++) load_matrices((queries ^ 32 * k) + 16 * m * ROW_BYTES, query[m]);
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            unsigned key[4];
            load_matrices((keys ^ 32 * k) + 16 * n * ROW_BYTES, key);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply(scores[m][2 * n], query[m], key[0], key[1]);
                multiply(scores[m][2 * n + 1], query[m], key[2], key[3]);
            }
        }
    }
}

// The least of scores for the positions that a query does not see, in a tile that begins at `first`.
__device__ inline void mask(const struct place &p, int first, float (&scores)[2][KEYS / 8][4]) {
    const int seen = p.warp_first + p.lane / 4 - first - p.lane % 4 * 2; // the last column of row 0 that is
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (8 * n + i % 2 > seen + 16 * m + i / 2 * 8) scores[m][n][i] = -1e30f;
}

// The largest score of each row so far.
__device__ inline void find_most(const struct partial &part, const float (&scores)[2][KEYS / 8][4],
                                 float (&most)[2][2]) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float largest = part.most[m][half];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
                largest = fmaxf(largest, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
            largest = fmaxf(largest, other_lane(largest, 1));
            most[m][half] = fmaxf(largest, other_lane(largest, 2));
        }
}

// From scores to exponents of two.
constexpr float SCALE = HEAD_DIM == 64 ? 0.125f * 1.4426950408889634f : 0.08838834764831845f * 1.4426950408889634f;
// Weights may reach two to this power: far from fp16's end, and far from a new maximum in every tile.
constexpr float HEADROOM = 8;

// Makes the weights relative to new maxima, once a score is too far above the old ones; what was summed up before
// shrinks to that.
__device__ inline void follow(struct partial &part, const float (&most)[2][2]) {
    bool far = false;
#pragma unroll
    for (int i = 0; i < 4; i++) far |= (most[i / 2][i % 2] - part.most[i / 2][i % 2]) * SCALE > HEADROOM;
    if (!warp_any(far)) return;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float keep = exp2_approximately((part.most[m][half] - most[m][half]) * SCALE);
            part.most[m][half] = most[m][half];
            part.sum[m][half] *= keep;
#pragma unroll
            for (int t = 0; t < HEAD_DIM / 8; t++)
                part.sums[m][t][2 * half] *= keep, part.sums[m][t][2 * half + 1] *= keep;
        }
}

// Scores into weights.
__device__ inline void weigh(struct partial &part, float (&scores)[2][KEYS / 8][4]) {
    float most[2][2];
    find_most(part, scores, most);
    follow(part, most);
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float &score = scores[m][n][i];
                score = exp2_approximately(score * SCALE - part.most[m][i / 2] * SCALE);
                part.sum[m][i / 2] += score;
            }
}

// Adds a tile's values, weighted.
__device__ inline void add_values(const struct place &p, const float (&weights)[2][KEYS / 8][4], unsigned tile,
                                  struct partial &part) {
    const unsigned values = chunk_at(tile + TILE_BYTES, p.lane % 16, p.lane / 16);
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++) {
        unsigned weight[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float(&w)[4] = weights[m][2 * n + i / 2];
                weight[m][i] = half2_from_floats(w[i % 2 * 2], w[i % 2 * 2 + 1]);
            }
#pragma unroll
        for (int t = 0; t < HEAD_DIM / 16; t++) {
            unsigned value[4];
            load_matrices_transposed((values ^ 32 * t) + 16 * n * ROW_BYTES, value);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply(part.sums[m][2 * t], weight[m], value[0], value[1]);
                multiply(part.sums[m][2 * t + 1], weight[m], value[2], value[3]);
            }
        }
    }
}

// Writes this warp's rows of y.
__device__ inline void store_rows(const struct attention_arguments &a, const struct place &p,
                                  const struct partial &part) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = part.sum[m][half];
            sum += other_lane(sum, 1);
            const float share = 1 / (sum + other_lane(sum, 2));
            const int row = p.row + p.warp_row + 16 * m + 8 * half + p.lane / 4;
            if (row >= a.tokens) continue;
            unsigned *y = (unsigned *)(a.y + ((size_t)row * a.heads + p.head) * HEAD_DIM) + p.lane % 4;
#pragma unroll
            for (int t = 0; t < HEAD_DIM / 8; t++)
                y[4 * t] = half2_from_floats(part.sums[m][t][2 * half] * share, part.sums[m][t][2 * half + 1] * share);
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attend_prompt(const __grid_constant__ struct attention_arguments a) {
    const struct place p = place_of(a);
    const size_t pitch = (size_t)(a.heads + 2 * a.cache.kv_heads) * HEAD_DIM;
    struct partial part = {{{-1e30f, -1e30f}, {-1e30f, -1e30f}}, {}, {}};
    programmatic_launch();
    programmatic_wait();
    copy_rows<ROWS>(a.qkv + p.row * pitch + p.head * HEAD_DIM, pitch, a.tokens - p.row, p.queries);
    copy_tile(p, a.cache, a.cache.pages[0], 0, p.tiles + (KV_BYTES == 1) * STAGE_BYTES);
    copy_async_commit();
    for (int first = 0, stage = 0; first < p.end; first += KEYS, stage ^= KV_BYTES == 2) {
        const unsigned tile = p.tiles + stage * STAGE_BYTES, next = p.tiles + (stage ^ 1) * STAGE_BYTES;
        const bool more = first + KEYS < p.end;
        const int page = more ? a.cache.pages[first / KEYS + 1] : 0; // on its way while the block meets
        copy_async_wait<0>();
        __syncthreads();
        if (KV_BYTES == 1) unpack(next, tile);
        if (more) copy_tile(p, a.cache, page, first + KEYS, next);
        copy_async_commit();
        if (KV_BYTES == 1) __syncthreads();
        if (first > p.warp_last) continue;
        float scores[2][KEYS / 8][4] = {};
        score_tile(p, tile, scores);
        if (first + KEYS - 1 > p.warp_first) mask(p, first, scores);
        weigh(part, scores);
        add_values(p, scores, tile, part);
    }
    store_rows(a, p, part);
}
