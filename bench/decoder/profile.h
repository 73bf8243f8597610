/* Where the time of a prompt's prefill and of one decoded token goes, by kernel and by layer. */
#ifndef TILEBOOK_DECODER_PROFILE_H
#define TILEBOOK_DECODER_PROFILE_H

#include <jansson.h>
#include <stdio.h>

#include "bench/cupti.h"
#include "bench/decoder/model.h"

/* A kernel of a GPU; on the CPU all of an op. */
struct profile_part {
    struct model_call call;
    const char *kernel;      /* its name; on the CPU the op's */
    double start_us, end_us; /* since the first part's start */
    double gap_us;           /* before it, when nothing ran */
    double us; /* from its start, or the end of those before it if that is later, to its end: with the gaps
                  they add up to the run */
};

/* The run, among so many, whose span is their median. */
struct profile_run {
    struct profile_part *parts; /* in the order of their starts */
    int count;
    int runs;
    double span_us, least_us, most_us;
    double positions; /* that a step attends to, of all sequences; 0 of a prefill, whose calls tell */
};

struct profile {
    struct profile_run prefill; /* of one prompt, up to its logits */
    struct profile_run token;
    int prompt; /* tokens of it */
    int batch;
    int positions;     /* that the token of each sequence attends to */
    const char *clock; /* "cupti", "monotonic" */
};

enum { PROFILE_LEAST = 4 }; /* steps that profile_take makes at least */

/* Runs the prompts, (batch, count), the first several times, and `steps` steps behind them; the first runs of both only
 * warm up. A GPU's step is the graph that decoding runs; which op a kernel belongs to is found by one run whose ops are
 * enqueued one by one, each tagged. For profile_free. Errors: no CUPTI; records that are missing, or differ between the
 * two. */
int profile_take(struct model *model, const struct model_config *config, const int *ids, int count, int batch,
                 int steps, struct profile *profile, struct error *error);
void profile_free(struct profile *profile);

void profile_print(const struct profile *profile, const struct model *model, FILE *stream);
json_t *profile_json(const struct profile *profile, const struct model *model);

/* --- what records say, apart from where they come from --- */

/* Parts of one run. `listed`: kernels in the order of `calls`, each with the index of its call as its sample; `run`:
 * the same in the order of their starts. The caller frees *parts, `count` of them. */
int profile_match(const struct model_call *calls, const struct cupti_kernel *listed, const struct cupti_kernel *run,
                  size_t count, struct profile_part **parts, struct error *error);
/* Fills in gap_us and us; the span. */
double profile_settle(struct profile_part *parts, int count);

#endif
