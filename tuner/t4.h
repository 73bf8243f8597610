/* Trials in the T4 format of the auto-tuning community: results with a configuration, times, what was wrong and what
 * was measured (t4-results.schema.json). What the format has no place for is in a sidecar. */
#ifndef TILEBOOK_T4_H
#define TILEBOOK_T4_H

#include "tuner/store.h"

/* Writes all trials of the store to `path`, which ends in ".json", and beside it PATH.sidecar.json: {"schema_version",
 * "results": the file, "searches": [{first, count, device, architecture, kernels, regime, software, uuid, op, k, n,
 * group, zeros, m, epilogue}]}: results first to first + count - 1 are of that search. Times are in ms. */
int t4_write(struct store *store, const char *path, struct error *error);

#endif
