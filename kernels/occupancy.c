#include "kernels/occupancy.h"

/* SM_THREADS is what every GPU from 8.0 on has. */
enum { SM_REGISTERS = 65536, SM_THREADS = 1536 };
/* The driver keeps this much shared memory of each block for itself. */
enum { RESERVED_BYTES = 1024 };

int occupancy_check(const struct device *device, const struct occupancy *b, struct error *why) {
    if (b->registers * b->threads > SM_REGISTERS)
        return error_set(why, "%d threads with about %d registers each; an SM has %d", b->threads, b->registers,
                         SM_REGISTERS);
    if (b->shared_bytes > device->shared_block_bytes)
        return error_set(why, "%zu bytes of shared memory; a block of %s has at most %zu", b->shared_bytes,
                         device->name, device->shared_block_bytes);
    return 0;
}

long occupancy_blocks(const struct device *device, const struct occupancy *b) {
    long least = (long)(device->shared_sm_bytes / (b->shared_bytes + RESERVED_BYTES));
    long by_registers = SM_REGISTERS / ((long)b->registers * b->threads), by_threads = SM_THREADS / b->threads;
    if (by_registers < least) least = by_registers;
    if (by_threads < least) least = by_threads;
    return least > 0 ? least : 1;
}
