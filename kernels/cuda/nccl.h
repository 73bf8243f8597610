/* What a communicator of several GPUs does, by NCCL, which is opened at run time. See kernels/communicator.h. */
#ifndef TILEBOOK_CUDA_NCCL_H
#define TILEBOOK_CUDA_NCCL_H

#include "kernels/communicator.h"

/* Sets communicator->nccl. Errors: no NCCL (and which package has it), or what it says. */
int nccl_open(struct communicator *communicator, struct error *error);
void nccl_close(struct communicator *communicator);
int nccl_all_reduce(struct communicator *communicator, uint16_t *const *buffers, size_t count, struct error *error);
int nccl_all_gather(struct communicator *communicator, uint16_t *const *from, uint16_t *const *to, int rows, int width,
                    struct error *error);

#endif
