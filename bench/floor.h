/* The read floor: what a kernel takes that only reads the weights, scales and zero points of a problem. */
#ifndef TILEBOOK_FLOOR_H
#define TILEBOOK_FLOOR_H

#include "bench/measure.h"

/* Reads on a GPU, for problems of any op once `op` says which; its parameters are the launch shapes. It is in no
 * registry, since it computes nothing. A launch with m = 0 adds the exclusive or of all 32-bit words that it read to
 * the word behind the workspace's counters. */
extern const struct kernel floor_kernel;

/* The least median of all its launch shapes, in microseconds: the copies in rotation, the clock and the procedure of
 * measure(), measure_quick in this regime. Each shape is checked first: -1 unless it reads every word exactly once. */
int measure_floor(struct instance *instance, enum regime regime, double pace, double *us, struct error *error);

#endif
