/* Short sums of a communicator's GPUs where each can write into the memory of all others (NVLink, or PCIe): one small
 * kernel on each (direct.cu), which lets the one behind it start early. In the order of ranks, as the CPU's. */
#ifndef TILEBOOK_CUDA_DIRECT_H
#define TILEBOOK_CUDA_DIRECT_H

#include "kernels/communicator.h"

/* Sets communicator->direct, or leaves it NULL where some GPU cannot reach another's memory or there are too many. */
int direct_open(struct communicator *communicator, struct error *error);
void direct_close(struct communicator *communicator);

/* Whether it takes so many values. */
bool direct_takes(const struct communicator *communicator, size_t count);
int direct_all_reduce(struct communicator *communicator, uint16_t *const *buffers, size_t count, struct error *error);

#endif
