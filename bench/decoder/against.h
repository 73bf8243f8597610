/* What a tile table is worth: decoding with it and with another, or none, by turns in one process. */
#ifndef TILEBOOK_DECODER_AGAINST_H
#define TILEBOOK_DECODER_AGAINST_H

#include <stdio.h>

#include "bench/compare.h"
#include "bench/decoder/generate.h"

enum { AGAINST_ROUNDS = 9 };

struct against {
    const struct tile_table *table, *old; /* NULL: built-in configurations */
    const char *name, *old_name;
    const char *device, *method; /* for the words */
    enum kv_type kv;
    int batch, prompt_count;

    /* A is the old table, ratios are of times: of a step, and of the prompts. */
    struct compare_row decode, prefill;
    int agreed, tokens; /* of the first sequence: the tokens before the first that differs, and all of them */
};

/* In each round the old table, the old one again and the new one each prefill and decode as --bench does, in random
 * order; a round counts the medians. */
int against_run(struct against *against, struct model *model, const struct model_config *config, const int *prompt,
                const struct generate_options *options, struct error *error);
/* tok/s of both, how many times those of the old one the new one gives, with the 95% interval, and the verdict. */
void against_print(const struct against *against, FILE *stream);
int against_print_json(const struct against *against, FILE *stream, struct error *error);

#endif
