/* What the estimates of the GEMMs share (kernel.h: only the order of estimates matters). */
#ifndef TILEBOOK_ESTIMATE_H
#define TILEBOOK_ESTIMATE_H

#include "kernels/device.h"

/* Equal blocks that read from memory. */
struct estimate_memory {
    double bytes;         /* in all */
    double blocks, slots; /* blocks in all, and those that run at a time */
    double under_way;     /* bytes that a block has requested at a time */
    double latency_us;    /* until a request comes back */
    double sm_share;      /* an SM draws at most this multiple of its part of the memory's rate */
};

/* Microseconds: whole waves of blocks, then what is left, each at the rate that its requests and its SMs allow. */
double estimate_memory_us(const struct device *device, const struct estimate_memory *memory);

/* Of parts that overlap the longest decides, and equal ones disturb each other. */
double estimate_together(const double *parts, int count);

/* The least number of blocks that hold all items. */
long estimate_blocks(long items, long block);

#endif
