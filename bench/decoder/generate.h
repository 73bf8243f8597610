/* From a prompt's ids to new ones, timed. */
#ifndef TILEBOOK_DECODER_GENERATE_H
#define TILEBOOK_DECODER_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/decoder/model.h"
#include "bench/decoder/stream.h"
#include "bench/decoder/tokenizer.h"

struct generate_options {
    struct sampling sampling;
    int max_tokens;
    int context; /* of the model */
    int batch;   /* sequences of the model, each with a prompt of its own; beyond 1 ignoring eos */
    bool ignore_eos;
    bool bench; /* run the model before the clock starts, and prefill several times */
};

enum { GENERATE_PREFILLS = 5 };

struct generation {
    int *ids; /* the new ones of the first sequence, an end-of-text token included */
    int count, batch;
    double prefill_seconds[GENERATE_PREFILLS]; /* the prompts, and choosing the first tokens; each time */
    int prefills;
    double *step_seconds; /* `count - 1`: each further token of all sequences */
    float *logits;        /* of the last position that ran, of the first sequence; vocab */
    const char *stop;     /* "eos", "length", "context" */
    const char *clock;    /* of the steps: "GPU events" or "host clock" */
};

/* The prompts, (batch, prompt_count), must not be empty. Steps run ahead of the host, which reads their tokens later.
 * Sampling and a repetition penalty need a model with options.samples. The text goes to `stream` unless `tokenizer` is
 * NULL. A failed generation is freed too. */
int generate(struct model *model, const struct model_config *config, const struct tokenizer *tokenizer,
             const int *prompt, int prompt_count, const struct generate_options *options, struct stream *stream,
             struct generation *generation, struct error *error);
void generation_free(struct generation *generation);

/* FNV-1a, 64 bits, of the logits' bytes. */
uint64_t generation_hash(const struct generation *generation, int vocab);

#endif
