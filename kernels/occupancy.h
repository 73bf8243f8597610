/* What fits on a GPU's SM: blocks by their threads, registers and shared memory. */
#ifndef TILEBOOK_OCCUPANCY_H
#define TILEBOOK_OCCUPANCY_H

#include "kernels/device.h"

struct occupancy {
    int threads;         /* of a block */
    int registers;       /* of a thread, about */
    size_t shared_bytes; /* of a block */
};

/* 0 if one block fits; else -1 and whether it is registers or shared memory. */
int occupancy_check(const struct device *device, const struct occupancy *block, struct error *why);
/* How many fit together; at least 1. */
long occupancy_blocks(const struct device *device, const struct occupancy *block);

#endif
