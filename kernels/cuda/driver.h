/* What the files of this folder share, and what needs CUDA's own types elsewhere (the timer). The driver,
 * NVRTC and cuBLASLt are opened at run time. Everyone else uses device.h. */
#ifndef TILEBOOK_CUDA_DRIVER_H
#define TILEBOOK_CUDA_DRIVER_H

#include <cuda.h>
#include <stddef.h>

#include "kernels/device.h"

/* device.c calls these two. */
int cuda_count(struct error *why);
int cuda_open(int index, struct device *device, struct error *error);

/* The stream on which everything of this device is ordered. */
CUstream cuda_stream(const struct device *device);

/* Makes the device's context the calling thread's: before calls into libraries that use the current one. */
int cuda_enter(const struct device *device, struct error *error);

/* For what was enqueued by other means than device_launch: the next launch starts when that has ended, whatever
 * device_overlap allows. */
void cuda_stand_apart(struct device *device);

/* Lets kernels of one GPU use the other's memory, at its addresses; *reaches is false where that is impossible. */
int cuda_reach(const struct device *from, const struct device *to, bool *reaches, struct error *error);

/* Opens the first of a NULL-terminated list of sonames that is there, also below $CUDA_HOME, $CUDA_PATH
 * and /usr/local/cuda; NULL if none is. */
void *cuda_library(const char *const *names);

/* -1 with "what: CUDA_ERROR_... (...)" unless result is CUDA_SUCCESS. */
int cuda_check(CUresult result, const char *what, struct error *error);

/* Compiles an embedded source for `architecture` ("sm_90a") with NVRTC, or takes it from the cubin cache
 * ($TILEBOOK_CACHE, else $XDG_CACHE_HOME/tilebook, else ~/.cache/tilebook), keyed by a hash of all embedded
 * sources, options, architecture and compiler version. Needs no GPU. The compiler's log is in the message.
 * The caller frees *cubin. */
int cuda_compile(const char *source, const char *options, const char *architecture, void **cubin, size_t *bytes,
                 struct error *error);

#endif
