/* Launches of ops.cu, attend.cu, attend_prompt.cu and sample.cu. Needs no CUDA headers: device.h does the rest. */
#include <stdio.h>

#include "bench/decoder/ops.h"

/* Threads of a block, as ops.cu gets it. */
enum { BLOCK = 256 };

static int compile(struct ops *ops, int which, const char *entry, struct error *error) {
    const int vectors = ops->hidden / 8;
    char options[128];
    snprintf(options, sizeof options,
             "-DBLOCK=%d -DHELD=%d -DHEAD_DIM=%d -DPAGE=%d -DKV_BYTES=%zu -DPICKS=%d -DRING=%d", BLOCK,
             (vectors + BLOCK - 1) / BLOCK, ops->head_dim, OPS_PAGE, kv_bytes(ops->kv), OPS_PICKS, OPS_RING);
    return device_function(ops->device, "decoder/ops.cu", entry, options, 0, &ops->compiled[which], error);
}

static int compile_attend(struct ops *ops, struct error *error) {
    const struct ops_attend attend = {.count = 1, .heads = 1, .kv_heads = 1, .head_dim = ops->head_dim, .splits = 1};
    struct device_grid grid;
    size_t shared_bytes;
    char options[128];
    ops_attend_launch(&attend, ops->kv, &grid, &shared_bytes);
    ops_attend_options(ops->device, ops->head_dim, ops->kv, shared_bytes, options, sizeof options);
    return device_function(ops->device, "decoder/attend.cu", "attend", options, shared_bytes,
                           &ops->compiled[OPS_ATTEND], error);
}

static int compile_attention(struct ops *ops, struct error *error) {
    const struct ops_attention attention = {.cache.head_dim = ops->head_dim, .tokens = 1, .heads = 1};
    struct device_grid grid;
    size_t shared_bytes;
    char options[128];
    ops_attention_launch(&attention, ops->kv, &grid, &shared_bytes);
    ops_attention_options(ops->head_dim, ops->kv, shared_bytes, options, sizeof options);
    return device_function(ops->device, "decoder/attend_prompt.cu", "attend_prompt", options, shared_bytes,
                           &ops->compiled[OPS_ATTENTION], error);
}

static int compile_sample(struct ops *ops, struct error *error) {
    char options[128];
    ops_sample_options(options, sizeof options);
    if (device_function(ops->device, "decoder/sample.cu", "sample_count", options, 0, &ops->compiled[OPS_SAMPLE_COUNT],
                        error))
        return -1;
    return device_function(ops->device, "decoder/sample.cu", "sample_next", options, 0, &ops->compiled[OPS_SAMPLE_NEXT],
                           error);
}

int ops_cuda_compile(struct ops *ops, struct error *error) {
    if (ops->head_dim != 64 && ops->head_dim != 128)
        return error_set(error, "head dimension %d: attention on a GPU takes 64 or 128; `--device cpu` takes any",
                         ops->head_dim);
    if (ops->kv == KV_FP8 && ops->device->compute_capability < 89)
        return error_set(error, "--kv fp8 needs compute capability 8.9 or later; %s (%s) has %d.%d. Next: --kv fp16",
                         ops->device->id, ops->device->name, ops->device->compute_capability / 10,
                         ops->device->compute_capability % 10);
    if (compile(ops, OPS_RMS_NORM, "rms_norm", error)) return -1;
    if (compile(ops, OPS_ROPE, "rope", error)) return -1;
    if (compile(ops, OPS_GATHER, "gather", error)) return -1;
    if (compile(ops, OPS_EMBED, "embed", error)) return -1;
    if (compile(ops, OPS_ARGMAX_PICKS, "argmax_picks", error)) return -1;
    if (compile(ops, OPS_ARGMAX_NEXT, "argmax_next", error)) return -1;
    if (compile(ops, OPS_SCORE, "score", error)) return -1;
    return compile_attend(ops, error) || compile_attention(ops, error) || compile_sample(ops, error) ? -1 : 0;
}

/* `overlaps`: those kernels wait by themselves for the one ahead of them. */
static int launch(struct ops *ops, int which, int x, int y, int block, bool overlaps, const void *arguments,
                  struct error *error) {
    const struct device_grid grid = {
        .blocks = {(unsigned)x, (unsigned)y, 1}, .threads = (unsigned)block, .overlaps = overlaps};
    return device_launch(ops->device, ops->compiled[which], &grid, arguments, error);
}

static int rms_norm(struct ops *ops, const struct ops_rms_norm *a, struct error *error) {
    return launch(ops, OPS_RMS_NORM, a->rows, 1, BLOCK, true, a, error);
}

static int rope(struct ops *ops, const struct ops_rope *a, struct error *error) {
    return launch(ops, OPS_ROPE, a->tokens, 1, BLOCK, true, a, error);
}

static int attention(struct ops *ops, const struct ops_attention *a, struct error *error) {
    struct device_grid grid;
    size_t shared_bytes;
    ops_attention_launch(a, ops->kv, &grid, &shared_bytes);
    return device_launch(ops->device, ops->compiled[OPS_ATTENTION], &grid, a, error);
}

static int gather(struct ops *ops, const struct ops_gather *a, struct error *error) {
    return launch(ops, OPS_GATHER, (a->width + BLOCK - 1) / BLOCK, a->rows, BLOCK, true, a, error);
}

static int embed(struct ops *ops, const struct ops_embed *a, struct error *error) {
    return launch(ops, OPS_EMBED, a->rows, 1, BLOCK, true, a, error);
}

static int attend(struct ops *ops, const struct ops_attend *a, struct error *error) {
    struct device_grid grid;
    size_t shared_bytes;
    ops_attend_launch(a, ops->kv, &grid, &shared_bytes);
    return device_launch(ops->device, ops->compiled[OPS_ATTEND], &grid, a, error);
}

static int argmax(struct ops *ops, const struct ops_argmax *a, struct error *error) {
    if (launch(ops, OPS_ARGMAX_PICKS, OPS_PICKS, a->rows, BLOCK, true, a, error)) return -1;
    return launch(ops, OPS_ARGMAX_NEXT, a->rows, 1, 32, true, a, error);
}

static int score(struct ops *ops, const struct ops_score *a, struct error *error) {
    return launch(ops, OPS_SCORE, a->rows, 1, BLOCK, false, a, error);
}

static int sample(struct ops *ops, const struct ops_sample *a, struct error *error) {
    struct device_grid count, next;
    ops_sample_launch(a, &count, &next);
    if (device_launch(ops->device, ops->compiled[OPS_SAMPLE_COUNT], &count, a, error)) return -1;
    return device_launch(ops->device, ops->compiled[OPS_SAMPLE_NEXT], &next, a, error);
}

const struct ops_functions ops_cuda = {rms_norm, rope, attention, gather, embed, attend, argmax, score, sample};
