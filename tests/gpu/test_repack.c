/* Repacking on a GPU equals repacking on the CPU, bit for bit, for every way there is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/formats/formats.h"
#include "kernels/reference.h"
#include "tests/gpu/devices.h"

/* A part of a fused matrix, its other columns poisoned. */
enum { K = 640, N = 192, TOTAL = 448, OFFSET = 128 };

enum part { WEIGHTS, ZEROS, SCALES, PARTS };

static int repack_part(struct device *device, enum part part, const struct repack *r, const void *from, void *to) {
    if (part == WEIGHTS) return repack_weights(device, r, from, to, &error);
    return part == ZEROS ? repack_zeros(device, r, from, to, &error) : repack_scales(device, r, from, to, &error);
}

/* Bytes of one part of a matrix of `n` columns. */
static size_t part_bytes(enum part part, int groups, int n) {
    return part == WEIGHTS ? (size_t)K * (size_t)n / 2 : (size_t)(groups * n) * (part == ZEROS ? 1 : 4) / 2;
}

/* Repacks random bits on a device; the caller frees what comes back. */
static unsigned char *repacked(struct device *device, enum part part, struct repack r, const int32_t *perm) {
    size_t from_bytes = part_bytes(part, r.groups, N), to_bytes = part_bytes(part, r.groups, TOTAL);
    void *from = get(device, from_bytes), *to = get(device, to_bytes);
    int32_t *device_perm = get(device, K * sizeof *perm);
    unsigned char *host = malloc(to_bytes);
    assert_non_null(host);
    done(reference_fill_bits(device, from, from_bytes, 9, &error));
    done(device_fill(device, to, 0xa5, to_bytes, &error));
    done(device_write(device, device_perm, perm, K * sizeof *perm, &error));
    if (r.perm) r.perm = device_perm;
    done(repack_part(device, part, &r, from, to));
    done(device_read(device, host, to, to_bytes, &error));
    device_free(device, from), device_free(device, to), device_free(device, device_perm);
    return host;
}

static void check(enum part part, const struct repack *r, const int32_t *perm) {
    unsigned char *here = repacked(cpu, part, *r, perm), *there = repacked(gpu, part, *r, perm);
    assert_memory_equal(here, there, part_bytes(part, r->groups, TOTAL));
    free(here);
    free(there);
}

static void every_way(void **state) {
    (void)state;
    static const int every_groups[] = {K / 128, K / 32, 1};
    int32_t perm[K];
    for (int i = 0; i < K; i++) perm[i] = i * 7 % K; /* K is no multiple of 7 */
    for (int from = FORMAT_AWQ; from <= FORMAT_GPTQ_V2; from++)
        for (int to = FORMAT_AWQ; to <= FORMAT_MARLIN; to += FORMAT_MARLIN - FORMAT_AWQ)
            for (int g = 0; g < 3; g++)
                for (int desc_act = 0; desc_act < 2; desc_act++)
                    for (int part = 0; part < PARTS; part++)
                        for (int columns = COLUMNS_TOGETHER; columns <= COLUMNS_SECOND_EIGHTS; columns++) {
                            struct repack r = {.from = (enum format)from,
                                               .to = (enum format)to,
                                               .k = K,
                                               .n = N,
                                               .groups = every_groups[g],
                                               .n_total = TOTAL,
                                               .n_offset = columns == COLUMNS_TOGETHER ? OFFSET : OFFSET / 2,
                                               .perm = desc_act ? perm : NULL,
                                               .columns = (enum layout_columns)columns};
                            check((enum part)part, &r, perm);
                        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_way)};
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
