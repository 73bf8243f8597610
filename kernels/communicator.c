#include "kernels/communicator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"
#ifdef TILEBOOK_CUDA
#include "kernels/cuda/direct.h"
#include "kernels/cuda/nccl.h"

static int open_gpus(struct communicator *c, struct error *error) {
    return nccl_open(c, error) || direct_open(c, error) ? -1 : 0;
}

static void close_gpus(struct communicator *c) {
    if (c->direct) direct_close(c);
    if (c->nccl) nccl_close(c);
}

static int sum_on_gpus(struct communicator *c, uint16_t *const *buffers, size_t count, struct error *error) {
    return (direct_takes(c, count) ? direct_all_reduce : nccl_all_reduce)(c, buffers, count, error);
}

static int gather_on_gpus(struct communicator *c, uint16_t *const *from, uint16_t *const *to, int rows, int width,
                          struct error *error) {
    return nccl_all_gather(c, from, to, rows, width, error);
}
#else
/* Without its backend there is no GPU to call these for. */
static int open_gpus(struct communicator *c, struct error *error) {
    (void)c;
    return error_set(error, "this build has no CUDA backend");
}

static void close_gpus(struct communicator *c) {
    (void)c;
}

static int sum_on_gpus(struct communicator *c, uint16_t *const *buffers, size_t count, struct error *error) {
    (void)buffers, (void)count;
    return open_gpus(c, error);
}

static int gather_on_gpus(struct communicator *c, uint16_t *const *from, uint16_t *const *to, int rows, int width,
                          struct error *error) {
    (void)from, (void)to, (void)rows, (void)width;
    return open_gpus(c, error);
}
#endif

static int open_devices(struct communicator *c, const char *id, int count, struct error *error) {
    char next[sizeof c->devices[0]->id];
    for (; c->count < count; c->count++) {
        if (device_open(c->count ? next : id, &c->devices[c->count], error)) return -1;
        const struct device *first = c->devices[0];
        snprintf(next, sizeof next, "cpu");
        if (first->backend == BACKEND_CUDA) snprintf(next, sizeof next, "cuda:%d", first->index + c->count + 1);
    }
    return count > 1 && c->devices[0]->backend == BACKEND_CUDA ? open_gpus(c, error) : 0;
}

int communicator_open(const char *id, int count, struct communicator **result, struct error *error) {
    struct communicator *c = *result = calloc(1, sizeof *c);
    if (c) c->devices = calloc((size_t)count, sizeof *c->devices);
    int status = c && c->devices ? open_devices(c, id, count, error) : error_set(error, "out of memory");
    if (!status) return 0;
    communicator_close(c);
    *result = NULL;
    return -1;
}

void communicator_close(struct communicator *c) {
    if (!c) return;
    close_gpus(c);
    for (int i = 0; i < c->count; i++) device_close(c->devices[i]);
    free(c->devices);
    free(c);
}

/* What the CPU enqueues is done when the call returns: all parts are there. */
static void sum_on_cpu(const struct communicator *c, uint16_t *const *buffers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float sum = 0;
        for (int rank = 0; rank < c->count; rank++) sum += half_to_float(buffers[rank][i]);
        for (int rank = 0; rank < c->count; rank++) buffers[rank][i] = half_from_float(sum);
    }
}

static void gather_on_cpu(const struct communicator *c, uint16_t *const *from, uint16_t *const *to, int rows,
                          int width) {
    size_t part = (size_t)width, all = part * (size_t)c->count;
    for (int rank = 0; rank < c->count; rank++)
        for (int source = 0; source < c->count; source++)
            for (size_t row = 0; row < (size_t)rows; row++)
                memcpy(to[rank] + row * all + (size_t)source * part, from[source] + row * part, part * sizeof **to);
}

int all_reduce(struct communicator *c, uint16_t *const *buffers, size_t count, struct error *error) {
    if (c->nccl) return sum_on_gpus(c, buffers, count, error);
    sum_on_cpu(c, buffers, count);
    return 0;
}

int all_gather(struct communicator *c, uint16_t *const *from, uint16_t *const *to, int rows, int width,
               struct error *error) {
    if (c->nccl) return gather_on_gpus(c, from, to, rows, width, error);
    gather_on_cpu(c, from, to, rows, width);
    return 0;
}
