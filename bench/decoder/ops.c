#include "bench/decoder/ops.h"

#include <stdio.h>

/* attend.cu: its warps stream tiles of positions through stages, of so many bytes an element all together, a page at a
 * time, for up to so many query heads. */
enum { TILE = 16, WARPS = 4, STAGE_BYTES = 4, HEADS = 8, MOST_SPLITS = 32, BLOCKS_A_PROCESSOR = 4 };
/* The most blocks of a cluster, which add up their parts in each other's shared memory; 1: always in memory. */
enum { CLUSTER = 8 };
/* attend_prompt.cu: a block's queries, of which each warp has 32, meet tiles of keys in two stages. */
enum { PROMPT_WARPS = 4, PROMPT_QUERIES = 32 * PROMPT_WARPS, PROMPT_KEYS = OPS_PAGE };
/* sample.cu: threads of the blocks that share out a row's logits, and warps of the block that chooses. */
enum { COUNT_THREADS = 256, NEXT_WARPS = 32 };

_Static_assert(TILE *WARPS == OPS_PAGE, "a block takes a page at a time");
_Static_assert(MOST_SPLITS <= 32, "a lane weighs a part");

int ops_open(struct device *device, int hidden, int head_dim, enum kv_type kv, struct ops *ops, struct error *error) {
    bool cuda = device->backend == BACKEND_CUDA;
    *ops = (struct ops){
        .device = device, .functions = cuda ? &ops_cuda : &ops_cpu, .hidden = hidden, .head_dim = head_dim, .kv = kv};
    if (head_dim < 2 || head_dim % 2)
        return error_set(error, "head dimension %d is odd; rotary positions need pairs", head_dim);
    return cuda ? ops_cuda_compile(ops, error) : 0;
}

static int divide_up(int a, int b) {
    return (a + b - 1) / b;
}

/* Key heads of a sequence, each as often as its query heads fill the matrix unit. */
static int attend_rows(int heads, int kv_heads) {
    return kv_heads * divide_up(heads / kv_heads, HEADS);
}

int ops_attend_splits(const struct device *device, int count, int kv_heads, int context) {
    if (device->backend == BACKEND_CPU) return 1;
    int wanted = divide_up(BLOCKS_A_PROCESSOR * device->multiprocessors, count * kv_heads);
    int pages = divide_up(context, OPS_PAGE), most = pages < MOST_SPLITS ? pages : MOST_SPLITS;
    return wanted < most ? wanted : most;
}

static int most_cluster(const struct device *device) {
    return device->compute_capability >= 90 ? CLUSTER : 1;
}

int ops_attend_cluster(const struct device *device, int splits) {
    int cluster = most_cluster(device);
    while (splits % cluster) cluster /= 2;
    return cluster;
}

size_t ops_attend_parts(const struct device *device, int count, int heads, int kv_heads, int context, int head_dim) {
    int most = 0;
    for (int i = 1; i <= count; i++) {
        int parts = i * ops_attend_splits(device, i, kv_heads, context);
        most = parts > most ? parts : most;
    }
    return (size_t)most * (size_t)heads * (size_t)(head_dim + 4) * sizeof(float);
}

size_t ops_attend_arrivals(int count, int heads, int kv_heads) {
    return (size_t)count * (size_t)attend_rows(heads, kv_heads) * HEADS * sizeof(unsigned);
}

/* As many bytes are on their way with either type. */
static int attend_stages(enum kv_type kv) {
    return STAGE_BYTES / (int)kv_bytes(kv);
}

void ops_attend_launch(const struct ops_attend *a, enum kv_type kv, struct device_grid *grid, size_t *shared_bytes) {
    *grid = (struct device_grid){
        .blocks = {(unsigned)a->splits, (unsigned)(a->count * attend_rows(a->heads, a->kv_heads)), 1},
        .threads = 32 * WARPS,
        .cluster = (unsigned)a->cluster,
        .overlaps = true,
    };
    *shared_bytes = WARPS * (size_t)(attend_stages(kv) * 2 * TILE * a->head_dim) * kv_bytes(kv) +
                    HEADS * (size_t)(a->head_dim + 4) * sizeof(float) + 16;
}

void ops_attend_options(const struct device *device, int head_dim, enum kv_type kv, size_t shared_bytes, char *options,
                        size_t size) {
    snprintf(options, size,
             "-DHEAD_DIM=%d -DWARPS=%d -DSTAGES=%d -DHEADS=%d -DKV_BYTES=%zu -DCLUSTER=%d -DSHARED_BYTES=%zu", head_dim,
             WARPS, attend_stages(kv), HEADS, kv_bytes(kv), most_cluster(device), shared_bytes);
}

void ops_attention_launch(const struct ops_attention *a, enum kv_type kv, struct device_grid *grid,
                          size_t *shared_bytes) {
    *grid = (struct device_grid){
        .blocks = {(unsigned)a->heads, (unsigned)divide_up(a->tokens, PROMPT_QUERIES), 1},
        .threads = 32 * PROMPT_WARPS,
        .overlaps = true,
    };
    size_t row = (size_t)a->cache.head_dim, fp16 = sizeof(uint16_t);
    *shared_bytes = row * (PROMPT_QUERIES * fp16 + 2 * PROMPT_KEYS * (fp16 + kv_bytes(kv)));
}

void ops_attention_options(int head_dim, enum kv_type kv, size_t shared_bytes, char *options, size_t size) {
    snprintf(options, size, "-DHEAD_DIM=%d -DWARPS=%d -DKEYS=%d -DKV_BYTES=%zu -DSHARED_BYTES=%zu", head_dim,
             PROMPT_WARPS, PROMPT_KEYS, kv_bytes(kv), shared_bytes);
}

void ops_sample_launch(const struct ops_sample *a, struct device_grid *count, struct device_grid *next) {
    unsigned blocks = (unsigned)divide_up(a->limit, 8 * COUNT_THREADS), rows = (unsigned)a->rows;
    *count = (struct device_grid){.blocks = {blocks, rows, 1}, .threads = COUNT_THREADS, .overlaps = true};
    *next = (struct device_grid){.blocks = {rows, 1, 1}, .threads = 32 * NEXT_WARPS, .overlaps = true};
}

void ops_sample_options(char *options, size_t size) {
    snprintf(options, size, "-DCOUNT_THREADS=%d -DWARPS=%d -DBINS=%d -DRING=%d", COUNT_THREADS, NEXT_WARPS, OPS_BINS,
             OPS_RING);
}
