/* From a prompt's ids to new ones, timed. */
#ifndef TILEBOOK_DECODER_GENERATE_H
#define TILEBOOK_DECODER_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/decoder/model.h"
#include "bench/decoder/sample.h"
#include "bench/decoder/stream.h"
#include "bench/decoder/tokenizer.h"

struct generate_options {
    struct sampling sampling;
    int max_tokens;
    int context; /* of the model */
    bool ignore_eos;
    bool warm_up; /* run the model before the clock starts */
};

struct generation {
    int *ids; /* the new ones, an end-of-text token included */
    int count;
    double prefill_seconds; /* the prompt, and choosing the first token */
    double *step_seconds;   /* `count - 1`: each further token */
    float *logits;          /* of the last position that ran; vocab */
    const char *stop;       /* "eos", "length", "context" */
};

/* The prompt must not be empty. The text goes to `stream` unless `tokenizer` is NULL. A failed generation is freed
 * too. */
int generate(struct model *model, const struct model_config *config, const struct tokenizer *tokenizer,
             const int *prompt, int prompt_count, const struct generate_options *options, struct stream *stream,
             struct generation *generation, struct error *error);
void generation_free(struct generation *generation);

/* FNV-1a, 64 bits, of the logits' bytes. */
uint64_t generation_hash(const struct generation *generation, int vocab);

#endif
