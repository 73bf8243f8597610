/* Compiles ahead of the search: while one configuration is measured, others come into the cubin cache. */
#ifndef TILEBOOK_AHEAD_H
#define TILEBOOK_AHEAD_H

#include "kernels/kernel.h"

struct ahead;

/* As many threads as asked for, at least one; NULL if none can be had, which costs only time. The device is used for
 * what it says of itself, and must live as long. */
struct ahead *ahead_create(const struct device *device, int threads);
/* Queues a legal configuration. What does not compile is not reported: its trial will. A full queue drops it. */
void ahead_add(struct ahead *ahead, const struct kernel *kernel, const struct problem *problem,
               const struct config *config);
/* Forgets what is queued: the search went on to another problem. */
void ahead_clear(struct ahead *ahead);
/* Waits until nothing is queued or compiled. */
void ahead_wait(struct ahead *ahead);
/* Ends after the compilations that run. NULL is nothing. */
void ahead_destroy(struct ahead *ahead);

#endif
