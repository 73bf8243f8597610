/* How the next token is chosen from logits; ops.h has what both backends do. */
#ifndef TILEBOOK_DECODER_SAMPLE_H
#define TILEBOOK_DECODER_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

struct sampling {
    double temperature;        /* 0: greedy */
    double top_p;              /* 1: off */
    double repetition_penalty; /* 1: off */
    int top_k;                 /* 0: off */
    uint64_t seed;
};

/* Whether the largest logit is chosen, which takes no sampling. */
bool sampling_greedy(const struct sampling *sampling);

/* As the device has it. */
struct ops_sampling;
struct ops_sampling sampling_parameters(const struct sampling *sampling);

/* On the CPU: the token of one row, or -1; marks it as seen. */
struct ops_sample;
int32_t sample_row(const struct ops_sample *sample, int row);

#endif
