/* What a row is compared with, measured in the same run: the read floor of its bytes, and cuBLASLt on its fp16 product.
 * Each is measured once in a sweep, however many rows share it: always in the same regime. GPUs only. */
#ifndef TILEBOOK_YARDSTICKS_H
#define TILEBOOK_YARDSTICKS_H

#include "bench/measure.h"

struct yardstick {
    size_t key[3]; /* bytes of weights, scales, zeros; or m, n, k */
    double us;     /* 0: it could not be measured */
};

/* All zero at first. */
struct yardsticks {
    struct yardstick *floors, *products;
    int floor_count, product_count;
};

/* Microseconds that reading the instance's weights takes (measure_floor). -1 if that fails, with *us 0; asked again for
 * the same bytes, 0 and *us 0. */
int yardstick_floor(struct yardsticks *yardsticks, struct instance *instance, enum regime regime, double pace,
                    double *us, struct error *error);
/* Median microseconds of fp16_gemm/cublaslt, the best of its candidates, at the M, N and K of the instance's problem,
 * verified, as cold as the instance. Failures likewise. */
int yardstick_cublas(struct yardsticks *yardsticks, struct instance *instance, const struct measure_options *options,
                     double *us, struct error *error);
void yardsticks_free(struct yardsticks *yardsticks);

#endif
