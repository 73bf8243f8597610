/* A model's weights on a device, fused and laid out as its method's kernels read them. */
#ifndef TILEBOOK_DECODER_LOAD_H
#define TILEBOOK_DECODER_LOAD_H

#include "bench/decoder/model.h"
#include "bench/decoder/share.h"

/* One (fused) matrix W (K, N). `op` says how it lies and which kernel reads it: OP_FP16_GEMM, OP_MARLIN_GEMM, or
 * OP_AWQ_DEQUANT (words that are dequantised before an fp16_gemm). */
struct linear {
    enum op op;
    int k, n, group;
    bool zeros;
    enum epilogue epilogue; /* of its GEMM */
    void *weights, *scales, *zero_points;
    uint16_t *bias;   /* (N), fp16; NULL without one */
    int32_t *columns; /* (K): column of x for each row of W; NULL for the plain order */
    float *gain;      /* (K): of the RMSNorm of what it reads; NULL: it reads that as it is */
};

enum { LINEAR_QKV, LINEAR_O, LINEAR_GATE_UP, LINEAR_DOWN, LAYER_LINEARS };

/* What the decoder lets the GEMM of each of them do with its sums. */
enum epilogue linear_epilogue(int which);

struct layer {
    struct linear linear[LAYER_LINEARS];
};

struct weights {
    struct device *device;
    struct layer *layers;
    struct linear head; /* N: share_head(), the added rows zero */
    float *final_norm;
    const uint16_t *embedding; /* (vocab, hidden), which the device can read; the head's if they are tied and that is
                                  whole. The first rank's alone: all devices reach it */
    size_t bytes;              /* on the device */
    size_t embedding_bytes;    /* on the host; 0 if it is the head's */
    size_t block_count;
    void **blocks;    /* every device allocation */
    void *host_block; /* the embedding's memory, or NULL */
};

/* Whether so many ranks can share the model. Errors: a shape that no kernel takes; the message names the numbers that
 * could, if any. */
int weights_check(const struct model_config *config, enum method method, int ranks, struct error *error);
/* Fills *weights with the rank's share of a model that weights_check accepts, from the checkpoint or, without one, at
 * random from the seed. Errors: a tensor missing or of another shape or type, a value beyond fp16, groups out of
 * order whose rows several ranks would share, memory. weights_free is due after a failure too. */
int weights_load(struct device *device, const struct model_config *config, const struct share *share,
                 const struct checkpoint *checkpoint, enum method method, unsigned long long seed,
                 struct weights *weights, struct error *error);
void weights_free(struct weights *weights);

/* What one call with m rows of x computes, with the norm of x if that need not be permuted in between; for
 * OP_AWQ_DEQUANT the dequantisation, which has m = 1 and neither norm nor epilogue. */
struct problem linear_problem(const struct linear *linear, int m);
/* Bytes of weights, scales and zero points. */
size_t linear_bytes(const struct linear *linear);

#endif
