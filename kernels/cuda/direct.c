#include "kernels/cuda/direct.h"

#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/direct.cuh"
#include "kernels/cuda/driver.h"

struct direct {
    struct device_function *functions[DIRECT_RANKS];
    unsigned *epochs[DIRECT_RANKS];
    unsigned long long *lines[DIRECT_RANKS];
};

/* Whether all can reach the memory of all. */
static int connect_all(const struct communicator *c, bool *all, struct error *error) {
    *all = c->count <= DIRECT_RANKS;
    for (int i = 0; i < c->count && *all; i++)
        for (int j = 0; j < c->count && *all; j++)
            if (i != j && cuda_reach(c->devices[i], c->devices[j], all, error)) return -1;
    return 0;
}

static void *take_zeros(struct device *device, size_t bytes, struct error *error) {
    void *memory = device_alloc(device, bytes, error);
    if (memory && !device_fill(device, memory, 0, bytes, error) && !device_synchronize(device, error)) return memory;
    device_free(device, memory);
    return NULL;
}

int direct_open(struct communicator *c, struct error *error) {
    bool all;
    char options[24];
    size_t lines = 2 * (size_t)c->count * DIRECT_PAIRS;
    if (connect_all(c, &all, error)) return -1;
    if (!all) return 0;
    struct direct *direct = c->direct = calloc(1, sizeof *direct);
    if (!direct) return error_set(error, "out of memory");
    snprintf(options, sizeof options, "-DRANKS=%d", c->count);
    for (int i = 0; i < c->count; i++) {
        struct device *device = c->devices[i];
        if (device_function(device, "cuda/direct.cu", "direct_all_reduce", options, 0, &direct->functions[i], error) ||
            !(direct->epochs[i] = take_zeros(device, DIRECT_BLOCKS * sizeof **direct->epochs, error)) ||
            !(direct->lines[i] = take_zeros(device, lines * sizeof **direct->lines, error)))
            return -1;
    }
    return 0;
}

void direct_close(struct communicator *c) {
    for (int i = 0; i < c->count; i++) {
        device_free(c->devices[i], c->direct->epochs[i]);
        device_free(c->devices[i], c->direct->lines[i]);
    }
    free(c->direct);
    c->direct = NULL;
}

bool direct_takes(const struct communicator *c, size_t count) {
    return c->direct && count % 2 == 0 && count / 2 <= DIRECT_PAIRS;
}

int direct_all_reduce(struct communicator *c, uint16_t *const *buffers, size_t count, struct error *error) {
    struct direct_arguments a = {.pairs = (int)(count / 2)};
    const struct device_grid grid = {.blocks = {(unsigned)((a.pairs + DIRECT_CHUNK - 1) / DIRECT_CHUNK), 1, 1},
                                     .threads = DIRECT_THREADS,
                                     .overlaps = true};
    for (int i = 0; i < c->count; i++) a.sent[i] = c->direct->lines[i];
    for (int i = 0; i < c->count; i++) {
        a.rank = i;
        a.received = c->direct->lines[i];
        a.values = (unsigned *)buffers[i];
        a.epochs = c->direct->epochs[i];
        if (device_launch(c->devices[i], c->direct->functions[i], &grid, &a, error)) return -1;
    }
    return 0;
}
