/* The host's side of slot.cuh. */
#ifndef TILEBOOK_MARLIN_SLOT_H
#define TILEBOOK_MARLIN_SLOT_H

#include "kernels/kernel.h"

/* What a warp requests for a chunk: codes, and scales and zero points of the groups that it touches. */
size_t marlin_slot_bytes(const struct problem *problem);
/* -DGROUP, -DZEROS and -DNORM. */
void marlin_slot_options(const struct problem *problem, struct launch *launch);

#endif
