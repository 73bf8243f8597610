/* Cards that need not be there: what descriptions ask of a GPU. */
#ifndef TILEBOOK_TESTS_CARDS_H
#define TILEBOOK_TESTS_CARDS_H

#include "kernels/device.h"

static const struct device h100 = {.backend = BACKEND_CUDA,
                                   .id = "sm_90a",
                                   .name = "NVIDIA H100 80GB HBM3",
                                   .compute_capability = 90,
                                   .multiprocessors = 132,
                                   .cache_bytes = 50 << 20,
                                   .shared_block_bytes = 232448,
                                   .shared_sm_bytes = 233472,
                                   .memory_gbs = 3352,
                                   .matrix_tflops = 989};

#endif
