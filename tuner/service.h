/* The last step of a search for a decoder: what is best alone, be it in a graph, need not be best between the other
 * kernels. The near-best configurations of a layer's four GEMMs take part in the decoder's chain (bench/chain.h). */
#ifndef TILEBOOK_SERVICE_H
#define TILEBOOK_SERVICE_H

#include "tuner/tune.h"

enum { SERVICE_CANDIDATES = 6, SERVICE_LAYERS = 12 /* of a chain, at least */ };

/* --- the search for one chain; it neither measures nor stores --- */

struct service {
    int count[CHAIN_GEMMS]; /* candidates of each GEMM */
    double seconds;         /* no candidate is measured when the costs add up to this; 0 for no limit */
    /* Fills the result of the chain of these candidates, the order-th (from 1) that this search measures. Not 0 ends
     * the search, which returns that. */
    int (*measure)(void *context, const int chosen[CHAIN_GEMMS], int order, struct trial_result *result);
    void *context;

    /* filled */
    int chosen[CHAIN_GEMMS]; /* as it began: candidate 0 of each */
    int measured;
    double spent_s;
    struct trial_result before, after; /* of candidates 0 and of the chosen; without samples */
};
/* From GEMM to GEMM, the one with the most bytes first, until a pass through all changes nothing or two are done: the
 * chain is measured, then with each other candidate. One replaces another if the 95% interval of its chain's median
 * lies below the chain's without it, and below that again when the latter is measured once more, behind it. In the end
 * the chains of the beginning and of the end are measured once more: if their intervals touch, nothing is replaced.
 * What fails is out. */
int service_search(struct service *service);

/* --- of a table's items --- */

/* Chains among the items: all four GEMMs of the model at an M of up to SERVICE_M. */
int service_count(const struct tune *tune, const struct shapes *shapes);
/* Chooses the winners of these items: candidates are the winner, the default and other trials that took up to 15%
 * longer than the winner, alone. Chains are taken from the store, as trials are. Equal shares of `seconds` (0: no
 * limit) for all; stored costs count. TUNE_DONE, TUNE_INTERRUPTED, or -1. */
int service_run(struct tune *tune, const struct shapes *shapes, double seconds, struct error *error);

#endif
