/* Code of peers runs here first: in a process of its own, forked before any device is open, so that what crashes, hangs
 * or leaves a GPU's context broken takes nothing else with it. */
#ifndef TILEBOOK_PROBE_H
#define TILEBOOK_PROBE_H

#include "bench/sweep.h"
#include "kernels/peer/peer.h"

enum { PROBE_VERDICTS = 4096, PROBE_SECONDS = 60 /* for one call */ };

struct verdict {
    char kernel[64];
    struct problem problem;
    enum { VERDICT_OPEN, VERDICT_RIGHT, VERDICT_WRONG } state;
    struct error why; /* of a wrong one */
};

/* Shared with the forked processes. */
struct probe {
    struct peer_watch watch;
    bool complete;
    int count;
    struct verdict verdicts[PROBE_VERDICTS];
};

/* NULL on failure. */
struct probe *probe_create(struct error *error);
void probe_destroy(struct probe *probe);

/* In a forked process: opens what it needs and calls probe_points; true when nothing is left. What it cannot do for
 * other reasons than a peer it leaves, as if nothing were left: the caller will meet it again. */
typedef bool probe_work(void *context, struct probe *probe);

/* Forks until all is judged: anew after each point that was wrong. -1 if a library ends the process while it is loaded
 * or asked what is legal: then there is no point to blame. No device may be open, no other thread may run. */
int probe_run(struct probe *probe, probe_work *work, void *context, const char *const *libraries, struct error *error);

/* Judges the sweep's points of peers, in order: prepares, runs, verifies. False after the first that is wrong; true
 * when none is left. */
bool probe_points(struct probe *probe, struct sweep *sweep);

/* The points that were wrong are not to run: they get the reason. */
void probe_refuse(const struct probe *probe, struct sweep *sweep);

#endif
