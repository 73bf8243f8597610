/* Several devices of one kind tune what one would: a process for each takes one stretch of the problems after the
 * other, until none is left, and all use one store. */
#ifndef TILEBOOK_MANY_H
#define TILEBOOK_MANY_H

#include "tuner/tune.h"

enum { MANY_DEVICES = 64 };

struct many {
    int count;
    struct device devices[MANY_DEVICES]; /* as their workers describe them */
    int open;                            /* problems that many_run left, because it was interrupted or lost a process */
};

/* Whether `list` is what can be tuned on: "cpu", "cuda:N", "auto", several of the first two with commas between them,
 * or "all". */
int many_check_list(const char *list, struct error *error);
/* Whether a table can be of both, and both can be measured at once: two GPUs of the same name and as many SMs. */
int many_check_pair(const struct device *first, const struct device *other, struct error *error);
/* Opens each device of a list that was checked; "all" are the GPUs that are like the first, the others are named on
 * standard error. The supervisor, as supervisor_open wants it, is then the first device's; with several it has no
 * worker and starts one when a trial needs it. -1 if a device cannot be opened or differs from the first. */
int many_open(struct many *many, const char *list, struct supervisor *supervisor, struct error *error);
/* What tune_run does, on all devices. A stretch is all problems of one row's (op, k, n, group), and its budget an equal
 * share for each of them. The items are then what a single process reads of them in the store. A process that ends
 * before its stretch does costs that alone: the others go on, and -1 is returned, as it is where nothing could be
 * stored; `open` counts what is left. TUNE_DONE, TUNE_INTERRUPTED, or -1. */
int many_run(struct many *many, struct tune *tune, const char *store, struct error *error);

#endif
