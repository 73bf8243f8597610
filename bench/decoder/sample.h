/* The next token from logits, on the host: as transformers does it, in its order. */
#ifndef TILEBOOK_DECODER_SAMPLE_H
#define TILEBOOK_DECODER_SAMPLE_H

#include <stdint.h>

#include "kernels/error.h"

struct sampling {
    double temperature;        /* 0: greedy */
    double top_p;              /* 1: off */
    double repetition_penalty; /* 1: off */
    int top_k;                 /* 0: off */
    uint64_t seed;
};

struct sampler;

/* Ids from `size` on are never chosen. NULL when out of memory. */
struct sampler *sampler_create(const struct sampling *sampling, int size);
void sampler_destroy(struct sampler *sampler);
/* Marks an id of the prompt, for the repetition penalty; chosen ids are marked by themselves. */
void sampler_see(struct sampler *sampler, int id);

/* Repetition penalty, then temperature, top-k (ties with the k-th stay) and top-p (the token that crosses p
 * stays), then one draw; with temperature 0 the largest after the penalty. Among equals the lowest id comes
 * first. `logits` holds at least `size`. Returns the id, or -1 if a logit is not finite. */
int sampler_next(struct sampler *sampler, const float *logits, struct error *error);

#endif
