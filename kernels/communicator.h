/* Devices that compute parts of one thing, and what they tell each other. One thread gives all of them their work: a
 * call here is for every device and is ordered with the kernels that each was given before. fp16 only. */
#ifndef TILEBOOK_COMMUNICATOR_H
#define TILEBOOK_COMMUNICATOR_H

#include <stdint.h>

#include "kernels/device.h"

struct communicator {
    int count;
    struct device **devices; /* the ranks */
    struct nccl *nccl;       /* of several GPUs */
    struct direct *direct;   /* of those that reach each other's memory, for short sums; else NULL */
};

/* Opens `count` devices: of "cuda:N" that GPU and the next ones, of "auto" the first GPUs or, without a GPU, the CPU,
 * and the CPU as often as is asked. Errors: those of device_open; several GPUs without NCCL. */
int communicator_open(const char *id, int count, struct communicator **communicator, struct error *error);
void communicator_close(struct communicator *communicator);

/* Each rank's buffers[rank], (count), becomes the sum of all of them, in the same bits everywhere. The CPU adds in fp32
 * and in the order of ranks, as GPUs do that reach each other's memory, up to DIRECT_PAIRS pairs; else it is NCCL's
 * sum. May be recorded. */
int all_reduce(struct communicator *communicator, uint16_t *const *buffers, size_t count, struct error *error);
/* Each rank's to[rank], (rows, ranks * width), becomes the rows of all from[rank], (rows, width), side by side. May be
 * recorded. */
int all_gather(struct communicator *communicator, uint16_t *const *from, uint16_t *const *to, int rows, int width,
               struct error *error);

#endif
