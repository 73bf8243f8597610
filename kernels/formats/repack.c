#include "kernels/formats/formats.h"

static const char *const format_names[] = {"AWQ", "GPTQ v1", "GPTQ v2", "Marlin"};

static int check(const struct repack *r, struct error *error) {
    bool ways = r->from != FORMAT_MARLIN && (r->to == FORMAT_MARLIN || r->to == FORMAT_AWQ);
    if (!ways)
        return error_set(error, "repack: there is no way from %s to %s; accepted: AWQ or GPTQ to Marlin or AWQ",
                         format_names[r->from], format_names[r->to]);
    if (r->k < 1 || r->n < 1 || r->k % 128 || r->n % 64)
        return error_set(error, "repack: K=%d, N=%d; K must be a multiple of 128 and N of 64", r->k, r->n);
    if (r->groups < 1 || r->k % r->groups)
        return error_set(error, "repack: K=%d is not a multiple of %d groups", r->k, r->groups);
    if (r->n_total % 64 || r->n_offset % 64 || r->n_offset < 0 || r->n_offset > r->n_total - r->n)
        return error_set(error,
                         "repack: columns %d to %d of %d; offset and total must be multiples of 64 that hold them",
                         r->n_offset, r->n_offset + r->n, r->n_total);
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
    long words = (long)repack->k * repack->n / 8;
    return run(device, repack, from, to, words, "repack_weights", layout_repack_weight, error);
}

int repack_scales(struct device *device, const struct repack *repack, const uint16_t *from, uint16_t *to,
                  struct error *error) {
    long scales = (long)repack->groups * repack->n;
    return run(device, repack, from, to, scales, "repack_scales", layout_repack_scale, error);
}

int repack_zeros(struct device *device, const struct repack *repack, const uint32_t *from, uint32_t *to,
                 struct error *error) {
    long words = (long)repack->groups * repack->n / 8;
    return run(device, repack, from, to, words, "repack_zeros", layout_repack_zero, error);
}
