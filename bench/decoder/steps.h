/* Decoding step by step. What changes from one token to the next lies on the device, which moves it on by itself: a
 * step is one graph, recorded once for each number of sequences, and the device never waits for the host, which reads
 * the chosen tokens while later steps run. On the CPU a step runs when it is enqueued. Several devices that share a
 * model (ranks) each keep all of it and choose the same tokens. */
#ifndef TILEBOOK_DECODER_STEPS_H
#define TILEBOOK_DECODER_STEPS_H

#include "bench/decoder/ops.h"

struct steps;

/* For up to `most` sequences. steps_destroy is due after a failure too. */
int steps_create(struct device *const *devices, int ranks, int most, struct steps **steps, struct error *error);
void steps_destroy(struct steps *steps);

/* What a step reads and moves on: the sequences on the rank's device, and where the host finds their tokens. */
struct ops_sequence *steps_sequences(const struct steps *steps, int rank);
int32_t *steps_ring(const struct steps *steps, int rank);

/* The next step runs ids[i] at positions[i] of the sequence in slots[i] (NULL: i), for `count` of them. Forgets steps
 * that were not taken. */
int steps_begin(struct steps *steps, const int *slots, const int *ids, const int *positions, int count,
                struct error *error);
/* Makes the graphs of a step of `count` sequences, if they are not there: `enqueue` enqueues the kernels of all ranks,
 * each of which uses its rank's of `workspaces`; graphs that were recorded with others are recorded anew. */
int steps_record(struct steps *steps, int count, device_enqueue *enqueue, void *context, const void *const *workspaces,
                 struct error *error);
/* The graphs are made anew when they are asked for. */
void steps_forget(struct steps *steps);
/* Enqueues one step: its graph, which was recorded, or on the CPU, and with `singly`, its kernels. At most OPS_RING may
 * wait to be taken. */
int steps_run(struct steps *steps, bool singly, device_enqueue *enqueue, void *context, struct error *error);
/* Waits for the oldest step that was not taken: the token of each sequence (-1: a logit was not finite), and the
 * seconds since the step before it ended, or since steps_begin; a GPU's by the first one's events. Errors: ranks that
 * chose different tokens. */
int steps_take(struct steps *steps, int *ids, double *seconds, struct error *error);

#endif
