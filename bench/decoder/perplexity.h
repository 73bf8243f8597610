/* How well a model foretells a text: what a quantisation method loses, on the same tokens. */
#ifndef TILEBOOK_DECODER_PERPLEXITY_H
#define TILEBOOK_DECODER_PERPLEXITY_H

#include "bench/decoder/model.h"

enum { PERPLEXITY_CONTEXT = 2048, PERPLEXITY_ROWS = 64 }; /* a good chunk; a good model_options.scored */

struct perplexity {
    int tokens, chunk, chunks;
    int counted;       /* tokens that were foretold: all but the first of each chunk */
    double nats;       /* mean of -log p */
    double perplexity; /* e^nats */
    double seconds;
};

/* Cuts the text into chunks of `chunk` tokens, the last one maybe shorter, and runs each from an empty cache: its first
 * token is given and not counted, every other one is foretold from those before it in the chunk. Errors: fewer than two
 * tokens; those of model_score. */
int perplexity_measure(struct model *model, const int *ids, int count, int chunk, struct perplexity *perplexity,
                       struct error *error);

#endif
