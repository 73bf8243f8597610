/* Launches of ops.cu. Needs no CUDA headers: device.h does the rest. */
#include <stdio.h>

#include "bench/decoder/ops.h"

/* Threads of a block and tokens of an attention tile, as ops.cu gets them. */
enum { BLOCK = 256, TILE = 4 };

static int compile(struct ops *ops, int which, const char *entry, int head_dim, int rows, struct error *error) {
    char options[96];
    snprintf(options, sizeof options, "-DBLOCK=%d -DHEAD_DIM=%d -DROWS=%d", BLOCK, head_dim, rows);
    return device_function(ops->device, "decoder/ops.cu", entry, options, 0, &ops->compiled[which], error);
}

int ops_cuda_compile(struct ops *ops, int head_dim, struct error *error) {
    if (head_dim != 64 && head_dim != 128)
        return error_set(error, "head dimension %d: attention on a GPU takes 64 or 128; `--device cpu` takes any",
                         head_dim);
    if (compile(ops, OPS_RMS_NORM, "rms_norm", head_dim, 1, error)) return -1;
    if (compile(ops, OPS_ROPE, "rope", head_dim, 1, error)) return -1;
    if (compile(ops, OPS_ATTENTION, "attention", head_dim, 1, error)) return -1;
    if (compile(ops, OPS_ATTENTION_TILE, "attention", head_dim, TILE, error)) return -1;
    return compile(ops, OPS_GATHER, "gather", head_dim, 1, error);
}

static int launch(struct ops *ops, int which, int x, int y, int block, const void *arguments, struct error *error) {
    const struct device_grid grid = {.blocks = {(unsigned)x, (unsigned)y, 1}, .threads = (unsigned)block};
    return device_launch(ops->device, ops->compiled[which], &grid, arguments, error);
}

static int rms_norm(struct ops *ops, const struct ops_rms_norm *a, struct error *error) {
    return launch(ops, OPS_RMS_NORM, a->rows, 1, BLOCK, a, error);
}

static int rope(struct ops *ops, const struct ops_rope *a, struct error *error) {
    return launch(ops, OPS_ROPE, a->heads + 2 * a->cache.kv_heads, a->tokens, a->cache.head_dim / 2, a, error);
}

/* One token leaves too few rows for tiles: then every (token, head) is a block of its own. */
static int attention(struct ops *ops, const struct ops_attention *a, struct error *error) {
    if (a->tokens < TILE) return launch(ops, OPS_ATTENTION, a->heads, a->tokens, BLOCK, a, error);
    return launch(ops, OPS_ATTENTION_TILE, a->heads, (a->tokens + TILE - 1) / TILE, BLOCK, a, error);
}

static int gather(struct ops *ops, const struct ops_gather *a, struct error *error) {
    return launch(ops, OPS_GATHER, (a->width + BLOCK - 1) / BLOCK, a->rows, BLOCK, a, error);
}

const struct ops_functions ops_cuda = {rms_norm, rope, attention, gather};
