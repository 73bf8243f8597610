/* Where the time of one decoded token goes, by kernel and by layer. */
#ifndef TILEBOOK_DECODER_PROFILE_H
#define TILEBOOK_DECODER_PROFILE_H

#include <jansson.h>
#include <stdio.h>

#include "bench/cupti.h"
#include "bench/decoder/model.h"

/* A kernel of a GPU; on the CPU all of an op. */
struct profile_part {
    int layer; /* -1 outside of layers */
    enum model_op op;
    const char *kernel;      /* its name; on the CPU the op's */
    double start_us, end_us; /* since the first part's start */
    double gap_us;           /* before it, when nothing ran */
    double us; /* from its start, or the end of those before it if that is later, to its end: with the gaps
                  they add up to the token */
};

/* The token, among `tokens` that ran, whose span is their median. */
struct profile {
    struct profile_part *parts; /* in the order of their starts */
    int count;
    int tokens, batch;
    int positions; /* that the token of each sequence attends to */
    double span_us, least_us, most_us;
    const char *clock; /* "cupti", "monotonic" */
};

enum { PROFILE_LEAST = 4 }; /* steps that profile_take makes at least */

/* Runs the prompts, (batch, count), and `steps` steps behind them, of which the first few only warm up. A GPU's step is
 * the graph that decoding runs; which op a kernel belongs to is found by one step that is enqueued op by op. For
 * profile_free. Errors: no CUPTI; records that are missing, or differ between the two. */
int profile_take(struct model *model, const int *ids, int count, int batch, int steps, struct profile *profile,
                 struct error *error);
void profile_free(struct profile *profile);

void profile_print(const struct profile *profile, const struct model *model, FILE *stream);
json_t *profile_json(const struct profile *profile, const struct model *model);

/* --- what records say, apart from where they come from --- */

/* An op of a step as it was enqueued. */
struct profile_op {
    int layer;
    enum model_op op;
};

/* Parts of one token. `listed`: kernels in the order of `ops`, each with the index of its op as its sample; `token`:
 * the same in the order of their starts. The caller frees *parts, `count` of them. */
int profile_match(const struct profile_op *ops, const struct cupti_kernel *listed, const struct cupti_kernel *token,
                  size_t count, struct profile_part **parts, struct error *error);
/* Fills in gap_us and us; the span. */
double profile_settle(struct profile_part *parts, int count);

#endif
