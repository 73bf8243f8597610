/* What a run of the decoder tells of itself: words for a person, or one JSON object. */
#ifndef TILEBOOK_DECODER_REPORT_H
#define TILEBOOK_DECODER_REPORT_H

#include <stdio.h>

#include "bench/decoder/batch.h"
#include "bench/decoder/generate.h"
#include "bench/decoder/perplexity.h"
#include "bench/decoder/profile.h"

struct report {
    const struct model *model;
    const struct model_config *config;
    const struct device *device; /* the first of tp */
    int tp;
    enum method method;
    bool synthetic;
    int context;
    const char *table;  /* where the configurations came from */
    bool tuned;         /* from a tile table */
    double ceiling_gbs; /* what reading the device's memory gave; 0 if that was not measured */
    const char *regime; /* in which they were measured; NULL for built-in ones */
    const int *prompt;
    int prompt_count;
    int batch;
    const struct generation *generation;
    const struct perplexity *perplexity; /* instead of a generation; else NULL */
    const struct profile *profile;       /* likewise */
    const struct batch_figures *prompts; /* likewise */
    const char *text;                    /* "" without a tokenizer; may hold NUL bytes */
    size_t text_bytes;
};

/* tok/s of all sequences, ms a token of each, GB/s of weights and cached keys and values, each byte counted once,
 * memory by part, the configurations that ran, a hash of the last logits; or, instead of rates, the
 * perplexity, the profile, or the figures of many prompts, whose configurations are only counted. */
void report_print(const struct report *report, FILE *stream);
/* The same and the ids and text as one object on one line. */
int report_print_json(const struct report *report, FILE *stream, struct error *error);

#endif
