/* A Qwen2 model on a device: from a checkpoint to logits. The same code for both backends; only ops.h
 * differs. Activations, the residual among them, are fp16, the KV cache that or fp8, sums fp32. */
#ifndef TILEBOOK_DECODER_MODEL_H
#define TILEBOOK_DECODER_MODEL_H

#include <stdbool.h>
#include <stdio.h>

#include "bench/decoder/checkpoint.h"
#include "bench/decoder/config.h"
#include "bench/decoder/kv.h"
#include "bench/decoder/pages.h"
#include "bench/decoder/sample.h"
#include "kernels/communicator.h"
#include "kernels/kernel.h"
#include "kernels/tiles.h"

enum method { METHOD_AUTO, METHOD_NONE, METHOD_AWQ, METHOD_AWQ_MARLIN, METHOD_GPTQ, METHOD_GPTQ_MARLIN };

const char *method_name(enum method method);
int method_parse(const char *text, enum method *method, struct error *error);
/* Which method runs: METHOD_AUTO becomes the fastest that the checkpoint allows; one that it does not allow
 * is an error that says what was asked, what the checkpoint is (file and field), what it can run with, and
 * the next command. */
int method_resolve(enum method asked, const struct model_config *config, const char *directory, enum method *method,
                   struct error *error);

struct model;

struct model_options {
    enum method method; /* resolved */
    int context;        /* most tokens of a sequence */
    enum kv_type kv;
    int sequences;   /* that are decoded together; 0 is 1 */
    int pages;       /* of KV cache, for all sequences; 0: what the context of each needs */
    int least_pages; /* where fewer than `pages` fit, so many will do; 0: all of them must */
    size_t kv_limit; /* most bytes of these, of each device; 0: what is free, less a quarter, at most 1 GiB */
    int choices;     /* ids from here on are never a step's token; 0: any may be */
    bool samples;    /* tokens are chosen as model_sample says; else greedily */
    int scored;      /* rows of logits that model_score makes at once; 0 if it is not called */
    int chunk;       /* most tokens that run through the layers at once */
    const struct tile_table *table;    /* NULL: built-in defaults */
    struct communicator *communicator; /* the devices that share the model; NULL: one */
    bool synthetic;                    /* weights made on the device from the seed; checkpoint is NULL */
    unsigned long long seed;
};

struct model_memory {
    size_t weights, kv, scratch; /* on the device */
    enum kv_type kv_type;
    long kv_tokens;   /* that its pages have room for */
    size_t embedding; /* of the mapped checkpoint, on the host */
};

enum { MODEL_CHUNK = 2048 }; /* a good options.chunk: GEMMs of fewer rows are slower */

/* On `device`, which of several that share the model is the first. `checkpoint`, the table and the
 * communicator of the options must outlive the model. What is told of a model below (memory, bytes, plans) is of the
 * first device. */
int model_create(struct device *device, const struct model_config *config, const struct checkpoint *checkpoint,
                 const struct model_options *options, struct model **model, struct error *error);
void model_destroy(struct model *model);

/* Configurations come from this table from now on (NULL: the built-in ones). What was prepared stays so for the last
 * two tables, so that they can take turns. No step may be under way. The tables must outlive the model. */
int model_use(struct model *model, const struct tile_table *table, struct error *error);

/* Chooses and compiles what a forward call of `count` tokens needs, so that a later one can be timed. model_expect only
 * begins with it: who will prepare much says so first, and it is compiled on all cores. */
int model_expect(struct model *model, int count, struct error *error);
int model_prepare(struct model *model, int count, struct error *error);

/* Gives a sequence pages for `tokens` of its own, at most options.context, in place of what it had. One that has
 * reserved nothing reserves the whole context when it first runs. Errors: too few pages are free. */
int model_reserve(struct model *model, int sequence, int tokens, struct error *error);
/* The sequence ends: its pages are anybody's. */
void model_release(struct model *model, int sequence);
const struct pages *model_pages(const struct model *model);

/* Runs `count` tokens at positions `position`... of a sequence, appending to its KV cache; logits (host, fp32, vocab)
 * of the last one, unless NULL. Errors: an id outside the vocabulary, positions beyond what it reserved. */
int model_forward(struct model *model, int sequence, const int *ids, int count, int position, float *logits,
                  struct error *error);
/* Likewise, but the logits stay on the device, for model_choose and, as row 0, model_logits: it returns before all has
 * run. */
int model_prefill(struct model *model, int sequence, const int *ids, int count, int position, struct error *error);

/* Runs `count` tokens as the first sequence from its beginning; the sum of the logarithms of the probabilities that
 * each but the first had behind those before it, over the whole vocabulary. Errors: those of model_forward; a logit
 * that is not finite. */
int model_score(struct model *model, const int *ids, int count, double *sum, struct error *error);

/* From now on the sequence's tokens are chosen like this; so far it has seen `count` ids, its prompt's. The draw
 * depends on the seed and the position alone, not on what else runs. Until then a sequence is greedy. Errors: an id
 * outside the vocabulary; a model without options.samples. */
int model_sample(struct model *model, int sequence, const struct sampling *sampling, const int *ids, int count,
                 struct error *error);
/* The token that follows `position`, chosen from the logits that model_forward or model_prefill made last, for this
 * sequence: *id, -1 if one was not finite. Forgets steps that were not taken. */
int model_choose(struct model *model, int sequence, int position, int *id, struct error *error);

/* Decoding, one token a sequence and step, without the host: model_begin says what the next step runs,
 * ids[i] at positions[i] of sequence sequences[i] (each at most once; NULL: the first `count`); each step runs the
 * tokens that the one before it chose, one position on. On a GPU a step is one graph and model_step returns before it
 * has run: MODEL_STEPS may be under way, to be taken in order. Errors: those of model_forward; steps beyond what
 * a sequence reserved. */
enum { MODEL_STEPS = 4 };
int model_begin(struct model *model, const int *sequences, const int *ids, const int *positions, int count,
                struct error *error);
int model_step(struct model *model, struct error *error);
/* Waits for the oldest step: the tokens it chose, (count), -1 where a logit was not finite, and the seconds since the
 * end of the step before it or model_begin, by the GPU's events where it is one. */
int model_take(struct model *model, int *ids, double *seconds, struct error *error);
/* Logits (host, fp32, vocab) of row `row` of model_begin's, of the last step that was enqueued, or of model_prefill's
 * last token, after waiting for it. */
int model_logits(struct model *model, int row, float *logits, struct error *error);
/* What a step does, and a chunk of a prompt, in this order: those from MODEL_INPUT_NORM to MODEL_DOWN in each layer;
 * only the last chunk goes on to the head, and none to MODEL_CHOOSE. What attends in the last layer and goes on from
 * there is the row whose logits are asked for alone, or none. */
enum model_op {
    MODEL_EMBED,
    MODEL_INPUT_NORM,
    MODEL_QKV,
    MODEL_ATTEND,
    MODEL_O,
    MODEL_POST_NORM,
    MODEL_GATE_UP,
    MODEL_DOWN,
    MODEL_FINAL_NORM,
    MODEL_HEAD,
    MODEL_CHOOSE
};
/* "embed", "input_norm", ... */
const char *model_op_name(enum model_op op);
/* An op as it is enqueued. */
struct model_call {
    int layer; /* -1 outside of layers */
    enum model_op op;
    int rows;     /* tokens: of a chunk, or one of each sequence; of MODEL_ATTEND those that attend */
    int position; /* of a chunk's first of them; -1 in a step, where only the device knows */
};
/* Called ahead of each op that is enqueued. */
typedef int model_enter(void *context, const struct model_call *call, struct error *error);
/* From now on there is that call ahead of each op, and steps are enqueued op by op, not as a graph; NULL ends it. */
void model_trace(struct model *model, model_enter *enter, void *context);
/* Bytes that the op has to read: weights, or keys and values of so many positions of all sequences together. */
double model_op_bytes(const struct model *model, int layer, enum model_op op, double positions);
/* Operations of its products, an addition counted apart from a multiplication: of `rows` rows with the weights, or of
 * so many pairs of a query's position and one that it attends to. */
double model_op_flops(const struct model *model, int layer, enum model_op op, int rows, double pairs);
/* Makes all ready that steps of `count` sequences need, their graph too; model_expect_steps begins with it. */
int model_expect_steps(struct model *model, int count, struct error *error);
int model_prepare_steps(struct model *model, int count, struct error *error);

bool model_on_gpu(const struct model *model);
struct model_memory model_memory(const struct model *model);
/* Bytes that one step reads: weights, and the keys and values of so many positions, of all sequences together. */
double model_bytes_per_step(const struct model *model, double positions);
/* Prints "op k=K n=N m=M kernel configuration tuned|default" for each that ran, one a line, to `stream`; where a
 * table was given but not used, why. */
void model_print_plans(const struct model *model, FILE *stream);
/* As plans_misses has them. */
struct misses;
int model_misses(const struct model *model, struct misses *misses, struct error *error);

#endif
