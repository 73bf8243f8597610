/* The trials of all searches in one SQLite file: a row a trial, committed as soon as it is known, so that a
 * killed search loses at most the trial that ran. Several processes may use one store. */
#ifndef TILEBOOK_STORE_H
#define TILEBOOK_STORE_H

#include "bench/chain.h"
#include "tuner/search.h"

enum { STORE_VERSION = 6 };

struct store;

/* What a trial's figures hold for; the first four are part of its key. */
struct store_scope {
    const char *device, *architecture;
    const char *kernels; /* hash of the kernel sources */
    const char *regime;
    const char *software, *uuid; /* recorded beside the trial */
};

/* Opens or creates. Errors: not a database, a database of something else or of a newer version, not
 * writable, locked by another process for more than two seconds. */
int store_open(const char *path, struct store **store, struct error *error);
void store_close(struct store *store);

/* *found says whether this very trial is stored; then `result` is filled, without the samples. */
int store_find(struct store *store, const struct store_scope *scope, const struct kernel *kernel,
               const struct problem *problem, const struct config *config, struct trial_result *result, bool *found,
               struct error *error);
/* Stores one trial with its samples, in place of the one with the same key. `order` counts the trials of its
 * search from 1. */
int store_put(struct store *store, const struct store_scope *scope, const struct kernel *kernel,
              const struct problem *problem, const struct config *config, int order, const struct trial_result *result,
              struct error *error);
/* The same for a final, whose result is kept with its samples; its key is the problem and the arms in their order. */
int store_find_final(struct store *store, const struct store_scope *scope, const struct problem *problem,
                     const struct trial *const *arms, int count, struct trial_result *result, bool *found,
                     struct error *error);
int store_put_final(struct store *store, const struct store_scope *scope, const struct problem *problem,
                    const struct trial *const *arms, int count, const struct trial_result *result, struct error *error);
/* The same for a chain, whose key is all of this. */
struct store_chain {
    const struct chain_gemm *gemms; /* CHAIN_GEMMS of them */
    int layers, order;              /* order: from 1, of those that a search of this M measures */
};
int store_find_chain(struct store *store, const struct store_scope *scope, const struct store_chain *chain,
                     struct trial_result *result, bool *found, struct error *error);
int store_put_chain(struct store *store, const struct store_scope *scope, const struct store_chain *chain,
                    const struct trial_result *result, struct error *error);
/* What a table's row loses at an m that it was not made for, and to whom; in place of what was known of the problem. */
int store_put_regret(struct store *store, const struct store_scope *scope, const struct problem *problem,
                     const struct trial *row, const struct trial *best, double regret, struct error *error);
/* The configurations that were tried of the problem, in the order of `order`. Not 0 from `visit` ends it and is
 * returned.
 */
int store_replay(struct store *store, const struct store_scope *scope, const struct problem *problem,
                 int (*visit)(void *context, const char *kernel, const char *configuration), void *context,
                 struct error *error);
/* What took which time in all problems of the op. Not 0 from `visit` ends it and is returned. */
int store_times(struct store *store, const struct store_scope *scope, enum op op,
                int (*visit)(void *context, const struct problem *problem, const char *kernel,
                             const char *configuration, double us),
                void *context, struct error *error);
/* What trials, finals and chains of the problem's weights took, at any m. */
int store_spent(struct store *store, const struct store_scope *scope, const struct problem *problem, double *seconds,
                struct error *error);
/* Removes all that is stored of the problem in this scope, with gate_up's also the chains. */
int store_forget(struct store *store, const struct store_scope *scope, const struct problem *problem,
                 struct error *error);

/* A trial as it is stored. Texts hold for the call. */
struct stored_trial {
    struct store_scope scope;
    const char *op, *epilogue, *kernel, *configuration, *finished; /* finished: ISO 8601, UTC */
    int k, n, group, zeros, m;
    struct trial_result result; /* with samples, where there are some */
};
/* All trials, those of one search one behind the other in the order they ran. Not 0 from `visit` ends it and is
 * returned. */
int store_each(struct store *store, int (*visit)(void *context, const struct stored_trial *trial), void *context,
               struct error *error);

#endif
