/* The run-time compiler. Not part of what other folders use (cuda_compile in driver.h is). */
#ifndef TILEBOOK_CUDA_NVRTC_H
#define TILEBOOK_CUDA_NVRTC_H

#include "kernels/error.h"

/* Opens NVRTC, once; "nvrtc 13.0" into `version` (may be NULL; at least 24 bytes). */
int nvrtc_open(char *version, struct error *error);

#endif
