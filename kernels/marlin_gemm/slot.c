#include "kernels/marlin_gemm/slot.h"

#include <stdio.h>

enum { CHUNK = 128, COLUMNS = 64 };

size_t marlin_slot_bytes(const struct problem *p) {
    size_t groups = 0;
    if (p->group < p->k) groups = p->group < CHUNK ? (size_t)(CHUNK / p->group) : 1;
    return CHUNK * COLUMNS / 2 + groups * COLUMNS * sizeof(uint16_t) + (p->zeros ? groups * COLUMNS / 2 : 0);
}

void marlin_slot_options(const struct problem *problem, struct launch *launch) {
    snprintf(launch->options, sizeof launch->options, "-DGROUP=%d -DZEROS=%d -DNORM=%d",
             problem->group < problem->k ? problem->group : 0, problem->zeros, problem->norm);
}
