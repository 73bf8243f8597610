/* Compiles ahead of those who search or load: while one configuration is measured or made ready, others come into the
 * cubin cache. What was announced for the problem at hand goes before what is planned for those to come; what has the
 * same source and options is compiled once. Kernels without device code are passed over. */
#ifndef TILEBOOK_AHEAD_H
#define TILEBOOK_AHEAD_H

#include "kernels/kernel.h"

struct ahead;

/* As plan_compile, which is the one to give outside of tests. */
typedef int ahead_compiler(const struct device *device, const struct kernel *kernel, const struct problem *problem,
                           const struct config *config, struct error *error);

/* As many threads as asked for, at least one; NULL if none can be had, which costs only time. The device is used for
 * what it says of itself, and must live as long. */
struct ahead *ahead_create(const struct device *device, ahead_compiler *compile, int threads);
/* Queues a legal configuration for the search of problem number `turn`; what is planned for one problem in a row goes
 * in waves with what is planned for the others, so that each search finds its first ones ready. What does not compile
 * is not reported: its trial will. A full queue drops it. */
void ahead_plan(struct ahead *ahead, int turn, const struct kernel *kernel, const struct problem *problem,
                const struct config *config);
/* Queues it, or moves it, before all that is planned. A full queue drops the last that is planned for it. */
void ahead_announce(struct ahead *ahead, const struct kernel *kernel, const struct problem *problem,
                    const struct config *config);
/* The search of problem number `turn` begins: forgets what was announced, and what was planned for earlier ones alone.
 */
void ahead_turn(struct ahead *ahead, int turn);
/* Before its trial: waits if it is being compiled, and takes it out of the queue if it is not, for the trial does. */
void ahead_take(struct ahead *ahead, const struct kernel *kernel, const struct problem *problem,
                const struct config *config);
/* Waits until nothing is queued or compiled. */
void ahead_wait(struct ahead *ahead);
/* Ends after the compilations that run. NULL is nothing. */
void ahead_destroy(struct ahead *ahead);

#endif
