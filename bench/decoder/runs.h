/* The table of `tilebook decode --report`: a run a row, as text, CSV, markdown or JSON. */
#ifndef TILEBOOK_DECODER_RUNS_H
#define TILEBOOK_DECODER_RUNS_H

#include <jansson.h>
#include <stdio.h>

#include "bench/decoder/options.h"

/* Numbers are NaN where there is none. */
struct runs_row {
    const char *method;
    enum kv_type kv;
    double batch, ctx, prompt, tuned;
    double decode_tok_s, prefill_tok_s;
    double ttft_ms; /* until every sequence has its first token; the mean of `prefills` */
    double ttft_sd_ms, prefills;
    double mean_ms, sd_ms, p50_ms, p99_ms, steps;
    double gb_s;
    double ceiling_gb_s, share; /* what reading the device's memory gave in the same process; percent of it */
    double weights_gib, kv_gib, scratch_gib, total_gib;
    double perplexity; /* of --perplexity, the method's */
    char note[512];    /* why there is nothing; "" */
};

/* Runs them all, each in a process of its own. -1 if none gave figures or a file could not be written; the rows say
 * what else failed. */
int runs_table(const struct decode_options *options, struct error *error);

/* What was measured on, then the head; a row. With `perplexity` its column is the last, but for `kv` in the CSV, which
 * has it where that is not fp16. Errors are left to ferror. */
void runs_text_begin(FILE *file, const char *about, bool perplexity);
void runs_text_put(FILE *file, const struct runs_row *row, bool perplexity);
void runs_markdown_begin(FILE *file, const char *about, bool perplexity);
void runs_markdown_put(FILE *file, const struct runs_row *row, bool perplexity);
void runs_csv_begin(FILE *file, enum kv_type kv, bool perplexity);
void runs_csv_put(FILE *file, const struct runs_row *row, bool perplexity);
json_t *runs_json(const struct runs_row *row);

#endif
