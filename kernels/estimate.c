#include "kernels/estimate.h"

#include <math.h>

/* The share of the memory's rate that so many blocks at a time draw. */
static double share(const struct device *device, const struct estimate_memory *m, double blocks) {
    double by_requests = blocks * m->under_way / (device->memory_gbs * 1e3 * m->latency_us);
    double by_sms = m->sm_share * blocks / device->multiprocessors;
    return fmin(1, fmin(by_requests, by_sms));
}

double estimate_memory_us(const struct device *device, const struct estimate_memory *m) {
    double us_a_block = m->bytes / m->blocks / (device->memory_gbs * 1e3);
    double whole = floor(m->blocks / m->slots) * m->slots, left = m->blocks - whole;
    double us = whole * us_a_block / share(device, m, m->slots);
    return left > 0 ? us + left * us_a_block / share(device, m, left) : us;
}

/* The fourth power lies between the sum and the longest. */
double estimate_together(const double *parts, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += pow(parts[i], 4);
    return pow(sum, 0.25);
}

long estimate_blocks(long items, long block) {
    return (items + block - 1) / block;
}
