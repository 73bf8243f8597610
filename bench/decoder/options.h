/* What `tilebook decode` was asked for. */
#ifndef TILEBOOK_DECODER_OPTIONS_H
#define TILEBOOK_DECODER_OPTIONS_H

#include "bench/decoder/model.h"

/* Ascending; none if the option was not given. */
struct counts {
    int *list, count;
};

struct decode_options {
    const char *model, *device, *prompt, *prompt_file, *prompt_ids, *table, *against, *misses, *logits, *csv, *markdown,
        *perplexity, *prompts;
    enum method method;
    bool in_memory, chat, ignore_eos, untuned, json, bench, report, profile;
    int max_tokens, top_k; /* top_k: -1 if not given */
    int tp;                /* devices that share the model */
    int batch, ctx;        /* the first of each list; batch 1, ctx 0 if not given */
    struct counts batches, contexts;
    enum kv_type kv;
    double kv_memory;                              /* GiB; 0: not given */
    double temperature, top_p, repetition_penalty; /* -1: not given */
    unsigned long long seed;
};

enum { BENCH_CONTEXT = 4096, PROMPTS_BATCH = 16 }; /* without --ctx, where the prompt is made up; without --batch */

/* --bench or --profile: the prompt is made up. */
bool decode_options_made_up(const struct decode_options *options);
/* Whether there is a table of runs to be made, rather than one run. */
bool decode_options_table(const struct decode_options *options);

/* The model's shape, and the method that runs it; a model in memory is whatever `asked` needs. Errors: those of its
 * files and of method_resolve. */
int decode_options_config(const struct decode_options *options, enum method asked, struct model_config *config,
                          enum method *method, struct error *error);

/* Ends the program with exit code 2 where the command line is wrong. For decode_options_free. */
void decode_options_parse(int argc, char **argv, struct decode_options *options);
void decode_options_free(struct decode_options *options);

#endif
