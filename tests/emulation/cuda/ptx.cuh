/* kernels/cuda/ptx.cuh for the host: the same functions, on fibers (emulate.cc). */
#ifndef TILEBOOK_EMULATION_PTX_CUH
#define TILEBOOK_EMULATION_PTX_CUH

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "half.h"

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes)
/* All fibers run on one thread of the host: what is local to it, they share. */
#define __shared__ thread_local

using std::max;
using std::min;
using std::size_t;

struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct float4 {
    float x, y, z, w;
};
struct index3 {
    unsigned x, y, z;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

struct operands {
    const void *x, *weights, *scales, *zeros, *addend;
    void *y, *workspace;
    const float *gain;
    float epsilon;
};
struct arguments {
    struct operands operands;
    int m, n, k, group;
    int overlaps;
};
constexpr int WORKSPACE_COUNTER_BYTES = 65536;

/* As kernels/device.h has it, behind the matrix's address (tests/test_emulation.c). */
struct device_tensor {
    int element_bytes;
    size_t rows, columns;
    int box_rows, box_columns;
    bool swizzle;
};
struct alignas(64) tensor_map {
    const char *memory;
    struct device_tensor tensor;
    char rest[72];
};

/* --- the fiber that runs --- */

struct copy {
    unsigned to;
    const void *from;
    bool inside;
};
struct box {
    unsigned to;
    struct tensor_map map; /* a copy: who requested may be gone, and its arguments with it */
    int row, column;
    unsigned barrier, blocks; /* of the cluster, a bit each, that get it; 0: this one alone */
};
/* A barrier of bulk copies, in its 8 bytes. */
struct phase {
    unsigned arrivals : 8, pending : 8, number : 16;
    int bytes;
};
struct exchange {
    unsigned words[6];
};
struct product {
    float *sums;
    const unsigned *a;
    unsigned long long b;
    unsigned tokens;
    unsigned long long a_matrix; /* where a is no register */
};
struct remote_store {
    unsigned to, transfer; /* that counts it; rank << 24 | address */
    float4 value;
};
/* As kernels/device.h has it. */
struct device_grid {
    unsigned blocks[3], threads, cluster;
    bool overlaps;
};
/* What runs: a kernel with its arguments, and the shared memory of the block that has its turn. */
struct launched {
    void (*entry)();
    char *shared;
    unsigned shared_bytes;
};
extern struct launched launched;
/* Returns the bank conflicts that ldmatrix met. */
long run_launch(const struct launched &launch, const struct device_grid *grid, bool late, unsigned seed);

extern index3 threadIdx, blockIdx, gridDim;
extern bool copies_late; /* what is asynchronous happens when waited for or published; else at once */
extern long bank_conflicts;

/* Waits for so many threads (0: the whole block) at a barrier; whether any of them came with `value`. */
bool rest_at_barrier(unsigned barrier, unsigned threads, bool value);
/* Publishes six words to the warp, waits for all of it, and returns what its 32 lanes published. */
const struct exchange *exchange_words(const struct exchange &own);
/* Waits until the warp has read them. */
void rest_in_warp();
std::vector<std::vector<copy>> &copy_groups(); /* the last is open */
std::vector<std::vector<product>> &product_groups();
void store_to_cluster(const struct remote_store &store);
std::vector<box> &boxes(); /* that are under way to this block */
/* Waits until the phase of this parity has ended. */
void rest_at_phase(unsigned barrier, unsigned parity);

[[noreturn]] static inline void broken(const char *what) {
    fprintf(stderr, "emulation: %s in thread %u of block %u,%u\n", what, threadIdx.x, blockIdx.x, blockIdx.y);
    abort();
}

static inline void __syncthreads() {
    rest_at_barrier(0, 0, false);
}
static inline void __syncwarp() {
    exchange_words({});
    rest_in_warp();
}
static inline bool __syncthreads_or(bool value) {
    return rest_at_barrier(0, 0, value);
}
static inline void barrier(unsigned number, unsigned threads) {
    rest_at_barrier(number, threads, false);
}

static inline unsigned shared_address(const void *pointer) {
    return (unsigned)((const char *)pointer - launched.shared);
}
static inline char *shared_at(unsigned address, unsigned bytes) {
    if (address % bytes) broken("misaligned shared address");
    if (address + bytes > launched.shared_bytes) broken("address behind the shared memory of the launch");
    return launched.shared + address;
}

/* --- fp16 (half_to_float is half.h's) --- */

static inline unsigned half2_from_floats(float low, float high) {
    return half_from_float(low) | (unsigned)half_from_float(high) << 16;
}
static inline void half2_to_floats(unsigned pair, float &low, float &high) {
    low = half_to_float((uint16_t)pair), high = half_to_float((uint16_t)(pair >> 16));
}

/* --- values: fp16, or bf16 with -DBF16 --- */

#ifdef BF16
constexpr bool VALUES_ARE_BF16 = true;
#else
constexpr bool VALUES_ARE_BF16 = false;
#endif
static inline float value_to_float(uint16_t value) {
    return VALUES_ARE_BF16 ? bf16_to_float(value) : half_to_float(value);
}
static inline unsigned values_from_floats(float low, float high) {
    if (VALUES_ARE_BF16) return bf16_from_float(low) | (unsigned)bf16_from_float(high) << 16;
    return half2_from_floats(low, high);
}
static inline void values_to_floats(unsigned pair, float &low, float &high) {
    low = value_to_float((uint16_t)pair), high = value_to_float((uint16_t)(pair >> 16));
}
static inline unsigned values_from_half2(unsigned pair) {
    float low, high;
    half2_to_floats(pair, low, high);
    return values_from_floats(low, high);
}
static inline uint16_t bf16_fma(unsigned a, unsigned b, unsigned c) {
    return bf16_from_float(bf16_to_float((uint16_t)a) * bf16_to_float((uint16_t)b) + bf16_to_float((uint16_t)c));
}
static inline unsigned bf16x2_fma(unsigned a, unsigned b, unsigned c) {
    return bf16_fma(a, b, c) | (unsigned)bf16_fma(a >> 16, b >> 16, c >> 16) << 16;
}

static inline float silu(float value) {
    return value / (1 + expf(-value));
}
static inline unsigned half2_fma(unsigned a, unsigned b, unsigned c) {
    float low[3], high[3];
    half2_to_floats(a, low[0], high[0]), half2_to_floats(b, low[1], high[1]), half2_to_floats(c, low[2], high[2]);
    return half2_from_floats(low[0] * low[1] + low[2], high[0] * high[1] + high[2]);
}
static inline unsigned half2_sub(unsigned a, unsigned b) {
    return half2_fma(b, 0xbc00bc00, a);
}
static inline unsigned half2_mul(unsigned a, unsigned b) {
    return half2_fma(a, b, 0);
}

static inline unsigned and_or(unsigned a, unsigned b, unsigned c) {
    return (a & b) | c;
}
static inline unsigned low_halves(unsigned a, unsigned b) {
    return (a & 0xffff) | b << 16;
}
static inline unsigned high_halves(unsigned a, unsigned b) {
    return a >> 16 | (b & 0xffff0000);
}

static inline unsigned select_bytes(unsigned a, unsigned b, unsigned order) {
    unsigned word = 0;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned byte = order >> 4 * i & 7;
        word |= ((byte < 4 ? a : b) >> byte % 4 * 8 & 0xff) << 8 * i;
    }
    return word;
}
static inline float float_from_bits(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline unsigned bits_from_float(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* --- copies --- */

static inline void perform(const struct copy &copy) {
    char *to = shared_at(copy.to, 16);
    if (copy.inside)
        memcpy(to, copy.from, 16);
    else
        memset(to, 0, 16);
}
static inline void copy_async(unsigned to, const void *from, bool inside) {
    if (inside && (size_t)from % 16) broken("misaligned source of a copy");
    struct copy copy = {to, from, inside};
    if (copies_late)
        copy_groups().back().push_back(copy);
    else
        perform(copy);
}
static inline void copy_async_commit() {
    copy_groups().push_back({});
}
template <int PENDING> static inline void copy_async_wait() {
    auto &groups = copy_groups();
    while ((int)groups.size() - 1 > PENDING) {
        for (const struct copy &copy : groups.front()) perform(copy);
        groups.erase(groups.begin());
    }
}

/* --- shared memory and the matrix unit --- */

static inline unsigned load_shared(unsigned address) {
    unsigned word;
    memcpy(&word, shared_at(address, 4), 4);
    return word;
}
static inline void load_shared2(unsigned address, unsigned (&words)[2]) {
    memcpy(words, shared_at(address, 8), 8);
}
static inline uint4 load_shared4(unsigned address) {
    uint4 words;
    memcpy(&words, shared_at(address, 16), 16);
    return words;
}

static inline void store_shared4(unsigned address, uint4 words) {
    memcpy(shared_at(address, 16), &words, 16);
}

static inline void load_matrices(unsigned address, unsigned (&pairs)[4]) {
    const unsigned lane = threadIdx.x % 32;
    shared_at(address, 16);
    const struct exchange *lanes = exchange_words({{address}});
    for (unsigned i = 0; i < 4; i++) {
        memcpy(&pairs[i], shared_at(lanes[8 * i + lane / 4].words[0], 16) + 4 * (lane % 4), 4);
        for (unsigned row = 0; lane == 0 && row < 8; row++)
            for (unsigned other = 0; other < row; other++) {
                const unsigned a = lanes[8 * i + row].words[0], b = lanes[8 * i + other].words[0];
                bank_conflicts += a != b && a / 16 % 8 == b / 16 % 8;
            }
    }
    rest_in_warp();
}

/* The half of `pair` that `odd` says. */
static inline float pick(unsigned pair, unsigned odd) {
    return value_to_float((uint16_t)(odd ? pair >> 16 : pair));
}

static inline void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const unsigned lane = threadIdx.x % 32;
    const struct exchange *lanes = exchange_words({{a[0], a[1], a[2], a[3], b0, b1}});
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = c[i];
        for (unsigned k = 0; k < 16; k++)
            sum += (double)pick(lanes[row % 8 * 4 + k % 8 / 2].words[row / 8 + k / 8 * 2], k % 2) *
                   pick(lanes[column * 4 + k % 8 / 2].words[4 + k / 8], k % 2);
        c[i] = (float)sum;
    }
    rest_in_warp();
}

static inline void multiply_bytes(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    const unsigned lane = threadIdx.x % 32;
    const struct exchange *lanes = exchange_words({{a[0], a[1], a[2], a[3], b0, b1}});
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 32; k++)
            c[i] += (uint8_t)(lanes[row % 8 * 4 + k % 16 / 4].words[row / 8 + k / 16 * 2] >> k % 4 * 8) *
                    (int8_t)(lanes[column * 4 + k % 16 / 4].words[4 + k / 16] >> k % 4 * 8);
    }
    rest_in_warp();
}

static inline unsigned warp_max(unsigned value) {
    const struct exchange *lanes = exchange_words({{value}});
    for (unsigned i = 0; i < 32; i++) value = max(value, lanes[i].words[0]);
    rest_in_warp();
    return value;
}
static inline int warp_sum(int value) {
    const struct exchange *lanes = exchange_words({{(unsigned)value}});
    unsigned sum = 0;
    for (unsigned i = 0; i < 32; i++) sum += lanes[i].words[0];
    rest_in_warp();
    return (int)sum;
}

static inline unsigned uniform(unsigned value) {
    const unsigned first = exchange_words({{value}})[0].words[0];
    if (first != value) broken("a value that is not the same in all of a warp");
    rest_in_warp();
    return value;
}

static inline float other_lane(float value, int mask) {
    struct exchange own = {};
    memcpy(own.words, &value, 4);
    memcpy(&value, exchange_words(own)[threadIdx.x % 32 ^ mask].words, 4);
    rest_in_warp();
    return value;
}

static inline unsigned other_lane(unsigned value, int mask) {
    const unsigned other = exchange_words({{value}})[threadIdx.x % 32 ^ mask].words[0];
    rest_in_warp();
    return other;
}

/* --- the matrix unit of a warpgroup: each warp does its 16 rows --- */

/* The value at (token, k) of a matrix: bits 7 to 9 of its address are added to bits 4 to 6. */
static inline float swizzled(unsigned long long matrix, unsigned token, unsigned k) {
    const unsigned pitch = (unsigned)(matrix >> 32 & 0x3fff) * 16;
    const unsigned at = (unsigned)(matrix & 0x3fff) * 16 + token / 8 * pitch + token % 8 * 128 + 2 * k;
    uint16_t value;
    if (matrix >> 62 != 1 || pitch % 1024) broken("a matrix that is not swizzled by 128 bytes");
    memcpy(&value, shared_at(at ^ (at >> 7 & 7) << 4, 2), 2);
    return value_to_float(value);
}
static inline void perform(const struct product &product) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, none[4] = {},
                   *a = product.a ? product.a : none;
    const struct exchange *lanes = exchange_words({{a[0], a[1], a[2], a[3]}});
    for (unsigned i = 0; i < product.tokens / 2; i++) {
        const unsigned row = lane / 4 + i / 2 % 2 * 8, token = i / 4 * 8 + lane % 4 * 2 + i % 2;
        double sum = product.sums[i];
        for (unsigned k = 0; k < 16; k++)
            sum += (double)(product.a ? pick(lanes[row % 8 * 4 + k % 8 / 2].words[row / 8 + k / 8 * 2], k % 2)
                                      : swizzled(product.a_matrix, 16 * warp + row, k)) *
                   swizzled(product.b, token, k);
        product.sums[i] = (float)sum;
    }
    rest_in_warp();
}
static inline unsigned long long swizzled_matrix(unsigned address) {
    if (address % 1024) broken("a swizzled matrix that does not start at a multiple of 1024");
    return 1ull << 62 | 64ull << 32 | 1ull << 16 | address >> 4;
}
template <int FLOATS>
static inline void multiply_group(float (&sums)[FLOATS], const unsigned (&a)[4], unsigned long long b) {
    struct product product = {sums, a, b, 2 * FLOATS};
    if (copies_late)
        product_groups().back().push_back(product);
    else
        perform(product);
}
template <int FLOATS>
static inline void multiply_tiles(float (&sums)[FLOATS], unsigned long long a, unsigned long long b) {
    struct product product = {sums, nullptr, b, 2 * FLOATS, a};
    if (copies_late)
        product_groups().back().push_back(product);
    else
        perform(product);
}
static inline void multiply_group_fence() {
}
static inline void multiply_group_commit() {
    product_groups().push_back({});
}
template <int PENDING> static inline void multiply_group_wait() {
    auto &groups = product_groups();
    while ((int)groups.size() - 1 > PENDING) {
        for (const struct product &product : groups.front()) perform(product);
        groups.erase(groups.begin());
    }
}
template <int FLOATS> static inline void hold(float (&)[FLOATS]) {
}
static inline void publish_to_matrix_unit() {
}

/* --- a cluster of blocks, which take turns --- */

void cluster_arrive();
void cluster_wait();
static inline unsigned cluster_address(unsigned address, unsigned rank) {
    return rank << 24 | address;
}
static inline void send_remote4(unsigned to, float4 value, unsigned transfer) {
    if (to >> 24 != transfer >> 24) broken("a transfer of another block");
    store_to_cluster({to, transfer, value});
}
static inline void transfer_open(unsigned transfer, unsigned bytes) {
    memset(shared_at(transfer, 8), 0, 8);
    memcpy(shared_at(transfer, 8), &bytes, 4);
}
void transfer_wait(unsigned transfer);

/* --- bulk copies --- */

static inline void end_phase(struct phase *phase) {
    if (phase->pending || phase->bytes) return;
    phase->pending = phase->arrivals;
    phase->number++;
}
static inline struct phase *phase_at(unsigned barrier) {
    return (struct phase *)shared_at(barrier, 8);
}
/* The shared memory of a block of the cluster. */
char *memory_of(unsigned rank);
unsigned own_rank();
static inline void bring(const struct box &box, unsigned rank) {
    const struct device_tensor &t = box.map.tensor;
    const unsigned row_bytes = t.box_columns * t.element_bytes, bytes = t.box_rows * row_bytes;
    char *memory = memory_of(rank);
    for (int r = 0; r < t.box_rows; r++)
        for (unsigned byte = 0; byte < row_bytes; byte++) {
            const size_t row = box.row + r, column = box.column + byte / t.element_bytes;
            const unsigned chunk = byte / 16 ^ (t.swizzle ? r & 7 : 0);
            const size_t from = (row * t.columns + box.column) * t.element_bytes + byte;
            memory[box.to + r * row_bytes + chunk * 16 + byte % 16] =
                row < t.rows && column < t.columns ? box.map.memory[from] : 0;
        }
    struct phase *phase = (struct phase *)(memory + box.barrier);
    phase->bytes -= (int)bytes;
    end_phase(phase);
}
static inline void perform(const struct box &box) {
    const struct device_tensor &t = box.map.tensor;
    const unsigned row_bytes = t.box_columns * t.element_bytes, bytes = t.box_rows * row_bytes;
    if (box.to % (t.swizzle ? 1024 : 128) || (t.swizzle && row_bytes != 128)) broken("a misplaced box");
    if (t.box_rows > 256 || t.box_columns > 256 || row_bytes % 16 || (size_t)box.map.memory % 16 ||
        t.columns * t.element_bytes % 16)
        broken("a box that the unit does not have");
    if (box.to + bytes > launched.shared_bytes) broken("a box behind the shared memory of the launch");
    phase_at(box.barrier);
    for (unsigned rank = 0; box.blocks >> rank; rank++)
        if (box.blocks >> rank & 1) bring(box, rank);
    if (!box.blocks) bring(box, own_rank());
}
static inline void phase_open(unsigned barrier, unsigned arrivals) {
    *phase_at(barrier) = {arrivals, arrivals, 0, 0};
}
static inline void arrive(struct phase *phase) {
    if (!phase->pending) broken("one arrival too many");
    phase->pending--;
    end_phase(phase);
}
static inline void phase_arrive(unsigned barrier) {
    arrive(phase_at(barrier));
}
static inline void phase_arrive_at(unsigned barrier, unsigned rank) {
    phase_at(barrier);
    arrive((struct phase *)(memory_of(rank) + barrier));
}
static inline void phase_expect(unsigned barrier, unsigned bytes) {
    phase_at(barrier)->bytes += (int)bytes;
    phase_arrive(barrier);
}
static inline void phase_wait(unsigned barrier, unsigned parity) {
    rest_at_phase(barrier, parity);
}
static inline void request(const struct box &box) {
    if (copies_late)
        boxes().push_back(box);
    else
        perform(box);
}
static inline void copy_box(unsigned to, const struct tensor_map &map, int row, int column, unsigned barrier) {
    request({to, map, row, column, barrier, 0});
}
static inline void copy_box_to_all(unsigned to, const struct tensor_map &map, int row, int column, unsigned barrier,
                                   unsigned blocks) {
    request({to, map, row, column, barrier, blocks});
}
template <int REGISTERS> static inline void release_registers() {
}
template <int REGISTERS> static inline void claim_registers() {
}

/* --- between launches and blocks, which run one after the other --- */

static inline void programmatic_wait() {
}
static inline void programmatic_launch() {
}
/* Reads what it asks for, so that a sanitizer sees requests behind the end. */
static inline void prefetch_cache(const void *from, int bytes) {
    static volatile char read;
    if (bytes <= 0 || bytes % 16 || (size_t)from % 16) broken("misaligned prefetch");
    for (int i = 0; i < bytes; i++) read = ((const char *)from)[i];
}
static inline uint4 load_streaming4(const void *from) {
    if ((size_t)from % 16) broken("misaligned load");
    return *(const uint4 *)from;
}

static inline unsigned count_arrival(unsigned *counter) {
    return (*counter)++;
}
void rest_at_counter(const unsigned *counter, unsigned count);
static inline void wait_for_count(const unsigned *counter, unsigned count) {
    rest_at_counter(counter, count);
}
static inline unsigned atomicXor(unsigned *word, unsigned value) {
    const unsigned before = *word;
    *word ^= value;
    return before;
}
static inline float4 load_published(const float4 *from) {
    return *from;
}

#endif
