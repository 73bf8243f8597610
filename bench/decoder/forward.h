/* The forward pass: what a model is made of, and what runs through its layers. model.c makes models and has the calls
 * that others see. */
#ifndef TILEBOOK_DECODER_FORWARD_H
#define TILEBOOK_DECODER_FORWARD_H

#include "bench/decoder/load.h"
#include "bench/decoder/model.h"
#include "bench/decoder/ops.h"
#include "bench/decoder/plans.h"
#include "bench/decoder/steps.h"

/* Activations of what runs at once: M rows each, fp16 unless said otherwise. */
struct buffers {
    int32_t *ids;          /* (context): of a prompt */
    uint16_t *residual;    /* (M, hidden): o and down add to it in place */
    uint16_t *x;           /* (M, hidden or heads * head_dim): what a GEMM reads */
    uint16_t *qkv;         /* (M, (heads + 2 kv_heads) * head_dim) */
    uint16_t *activation;  /* (M, intermediate): silu(gate) * up */
    uint16_t *gathered;    /* (M, largest K); of permuted linears */
    uint16_t *dequantized; /* the largest (N, K); of linears that are dequantised before their GEMM */
    uint16_t *logits;      /* (sequences or options.scored, forward_width()) */
    uint16_t *head;        /* (sequences or options.scored, N of the head): of several ranks, its part of them */
    float *frequency;      /* (head_dim / 2), fp32 */
    char *kv;              /* (layers, 2, pages, kv_heads, OPS_PAGE, head_dim), of options.kv */
    int32_t *pages;        /* (sequences + 1, pitch): of a step's rows, and of a prompt */
    float *parts;          /* ops_attend_parts() */
    unsigned *arrivals;    /* ops_attend_arrivals() */
    struct ops_pick *picks;
    double *scores;                /* (options.scored) */
    uint32_t *counts;              /* (sequences, OPS_BINS) */
    struct ops_sampling *sampling; /* (sequences) */
    uint8_t *seen;                 /* (sequences, ops_seen_bytes()) */
};

/* On several devices (ranks) a model is one on each, with its share of the weights and of the cache (share.h). The
 * first is the one that others know, and leads: it has every rank do each op, one behind the other, and joins what they
 * made, so that all go on with the same residual, logits and tokens. */
struct model {
    struct device *device;
    const struct model_config *config; /* &part */
    struct model_config part;          /* of the share */
    struct share share;
    struct model **ranks;    /* of the one that leads: all, itself first; NULL of the others */
    uint16_t **places;       /* (2 ranks), likewise: for the communicator */
    const void **workspaces; /* (ranks), likewise: of steps */
    struct model_options options;
    struct weights weights;
    struct ops ops;
    struct plans *plans, *others; /* others: of the table that was in use before; NULL at first */
    struct buffers buffers;
    struct steps *steps;              /* of all ranks */
    struct pages *pages;              /* likewise */
    int32_t *host_pages;              /* (sequences, pitch) */
    int step_count;                   /* sequences of the next step */
    int step_sequence, step_position; /* the one with the least room left among them */
    uint16_t *host_logits;
    double *host_scores; /* (options.scored) */
    uint8_t *host_seen;  /* (ops_seen_bytes()) */
    model_enter *enter;  /* as model_trace set it */
    void *enter_context;
    size_t kv_bytes, scratch_bytes;
};

/* Logits of a row, with those added that no id has. */
int forward_width(const struct model *model);
/* Bytes of a position's keys, or of its values, in one layer; of a page's. */
size_t forward_position_bytes(const struct model *model);
size_t forward_page_bytes(const struct model *model);
/* Of the sequence whose chunks run. */
int32_t *forward_prompt_pages(const struct model *model);
/* The fp16_gemm that follows a dequantisation. */
struct problem forward_dense_problem(const struct linear *linear, int m);

/* What runs through the layers at once: `rows` tokens of one sequence from a position on, or, as a step, one token each
 * of so many sequences. */
struct pass {
    int rows;
    bool step;
    int position; /* unless it is a step */
    int id;       /* likewise: place of its first token among the prompt's */
    int first;    /* row of the residual from which on the `rows` are; of those ahead only keys and values are wanted */
    int kept;     /* the last layer's residual is wanted of so many rows, the last ones */
};

/* From ids to the residual behind the last layer, of the rows that are kept. */
int forward_layers(struct model *model, const struct pass *pass, struct error *error);
/* Logits of `rows` rows of the residual from row `first` on. */
int forward_head(struct model *model, int first, int rows, struct error *error);
/* One op on all ranks, and what they tell each other behind it. */
int forward_op(struct model *model, int index, enum model_op op, const struct pass *pass, struct error *error);
/* The next token of each sequence, on this rank. */
int forward_choose(struct model *model, int rows, struct error *error);

#endif
