/* Continuous batching: more prompts than a model has sequences, of which as many as it has are decoded together; when
 * one ends, the next prompt takes its place, and the others keep their state. A prompt that joins reserves the pages
 * that it and all its new tokens can fill; while too few are free it waits, and those behind it do: nobody is passed
 * over, and nobody who runs ever stops for want of a page. */
#ifndef TILEBOOK_DECODER_BATCH_H
#define TILEBOOK_DECODER_BATCH_H

#include <signal.h>

#include "bench/decoder/model.h"
#include "bench/decoder/requests.h"

struct batch_options {
    struct sampling sampling; /* of each request, with the same seed; unless greedy of a model with options.samples */
    int context, sequences;   /* the model's */
    bool ignore_eos;
    const volatile sig_atomic_t *interrupted; /* once set, what runs ends with "cancelled" and nothing new begins */
};

struct batch_figures {
    int failed, done, cancelled, waiting; /* requests: "error"; with a whole reply; cut; never begun */
    long prompt_tokens, tokens;           /* of those that began; the new ones */
    long steps;
    int sequences;
    int held;                                    /* requests that had to wait for pages though a place was free */
    double seconds;                              /* without preparing */
    double first_p50_seconds, first_p99_seconds; /* first_seconds of those that have tokens, or 0 */
};

/* Pages of KV cache that are enough for any `sequences` of the requests at once, and the fewest that will do: those of
 * the longest alone. */
int batch_pages(const struct requests *requests, int context, int sequences, int *least, struct error *error);

/* Called after each request that ended. */
typedef int batch_ended(void *context, struct error *error);

/* Runs those that have not ended, beginning in their order, and fills in what came of them. Greedily the tokens are
 * those of each prompt alone but for the rounding of sums in another order, which the GEMMs of another number of rows
 * bring. A logit that is not finite ends its request with "error", and so does a cache that is too small for it, even
 * empty. What sequences had reserved before is given back. Errors: those of model_forward and of `ended`. */
int batch_run(struct model *model, const struct model_config *config, const struct batch_options *options,
              struct requests *requests, batch_ended *ended, void *context, struct batch_figures *figures,
              struct error *error);

#endif
