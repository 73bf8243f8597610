#include "kernels/formats/formats.h"

static const char *const format_names[] = {"AWQ", "GPTQ v1", "GPTQ v2", "Marlin", "fp16"};

static int stretch(const struct repack *r) {
    return r->columns == COLUMNS_TOGETHER ? r->n : 2 * r->n;
}

static int check(const struct repack *r, struct error *error) {
    bool half = r->from == FORMAT_HALF && r->to == FORMAT_HALF;
    bool ways = half || (r->from <= FORMAT_GPTQ_V2 && (r->to == FORMAT_MARLIN || r->to == FORMAT_AWQ));
    int depth = half ? 64 : 128, end = r->n_offset + stretch(r);
    if (!ways)
        return error_set(error,
                         "repack: there is no way from %s to %s; accepted: AWQ or GPTQ to Marlin or AWQ, fp16 to fp16",
                         format_names[r->from], format_names[r->to]);
    if (r->k < 1 || r->n < 1 || r->k % depth || r->n % 64)
        return error_set(error, "repack: K=%d, N=%d; K must be a multiple of %d and N of 64", r->k, r->n, depth);
    if (r->groups < 1 || r->k % r->groups)
        return error_set(error, "repack: K=%d is not a multiple of %d groups", r->k, r->groups);
    if (r->n_total % 64 || r->n_offset % 64 || r->n_offset < 0 || end > r->n_total)
        return error_set(error,
                         "repack: columns %d to %d of %d; offset and total must be multiples of 64 that hold them",
                         r->n_offset, end, r->n_total);
    return 0;
}

/* One thread an element, in blocks of 256; the grid strides over what is beyond it. */
static int launch(struct device *device, const char *entry, const struct layout_repack *r, struct error *error) {
    enum { BLOCK = 256, MOST_BLOCKS = 65535 };
    long blocks = (r->count + BLOCK - 1) / BLOCK;
    const struct device_grid grid = {.blocks = {(unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS), 1, 1},
                                     .threads = BLOCK};
    struct device_function *function;
    if (device_function(device, "formats/repack.cu", entry, "", 0, &function, error)) return -1;
    return device_launch(device, function, &grid, r, error);
}

static int run(struct device *device, const struct repack *r, const void *from, void *to, long count, const char *entry,
               void (*element)(const struct layout_repack *, long), struct error *error) {
    if (check(r, error)) return -1;
    const struct layout_repack all = {
        .from = from,
        .to = to,
        .perm = r->perm,
        .from_format = (int)r->from,
        .to_format = (int)r->to,
        .columns = (int)r->columns,
        .k = r->k,
        .n = r->n,
        .groups = r->groups,
        .n_total = r->n_total,
        .n_offset = r->n_offset,
        .count = count,
    };
    if (device->backend == BACKEND_CUDA) return launch(device, entry, &all, error);
    for (long i = 0; i < count; i++) element(&all, i);
    return 0;
}

int repack_weights(struct device *device, const struct repack *repack, const uint32_t *from, uint32_t *to,
                   struct error *error) {
    if (repack->from == FORMAT_HALF)
        return run(device, repack, from, to, (long)repack->k * repack->n / 2, "repack_pairs", layout_repack_pair,
                   error);
    long words = (long)repack->k * stretch(repack) / 8;
    return run(device, repack, from, to, words, "repack_weights", layout_repack_weight, error);
}

int repack_scales(struct device *device, const struct repack *repack, const uint16_t *from, uint16_t *to,
                  struct error *error) {
    long scales = (long)repack->groups * repack->n;
    return run(device, repack, from, to, scales, "repack_scales", layout_repack_scale, error);
}

int repack_zeros(struct device *device, const struct repack *repack, const uint32_t *from, uint32_t *to,
                 struct error *error) {
    long words = (long)repack->groups * stretch(repack) / 8;
    return run(device, repack, from, to, words, "repack_zeros", layout_repack_zero, error);
}
