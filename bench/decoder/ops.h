/* What a Qwen2 layer does besides its GEMMs and their epilogues, on either backend. Activations are fp16,
 * row-major; norm weights and every sum are fp32. All pointers are device memory. A description is also
 * the argument of its kernel in ops.cu: the two declarations must stay alike. */
#ifndef TILEBOOK_DECODER_OPS_H
#define TILEBOOK_DECODER_OPS_H

#include <stdint.h>

#include "kernels/device.h"

/* y = x / sqrt(mean(x^2) + epsilon) * weight, row by row. */
struct ops_rms_norm {
    const uint16_t *x;   /* (rows, width) */
    const float *weight; /* (width) */
    uint16_t *y;         /* (rows, width) */
    int rows, width;
    float epsilon;
};

/* Where keys and values lie: head `h`, position `p` at (h * context + p) * head_dim. */
struct ops_cache {
    uint16_t *keys, *values; /* (kv_heads, context, head_dim) */
    int kv_heads, context, head_dim;
    int position; /* of the first token of this call */
};

/* Rotates q (in place) and k by their positions (pairs i, i + head_dim/2), and writes k and v into the cache. */
struct ops_rope {
    struct ops_cache cache;
    uint16_t *qkv;          /* (tokens, (heads + 2 kv_heads) * head_dim): q, then k, then v */
    const float *frequency; /* (head_dim / 2): theta^(-2i / head_dim) */
    int tokens, heads;
};

/* Causal attention of `tokens` queries over all positions up to their own, head_dim^-0.5 scaled; heads /
 * kv_heads neighbouring query heads share a key head. */
struct ops_attention {
    struct ops_cache cache;
    const uint16_t *qkv; /* as ops_rope left it */
    uint16_t *y;         /* (tokens, heads * head_dim) */
    int tokens, heads;
};

/* y[r, i] = x[r, columns[i]] */
struct ops_gather {
    const uint16_t *x; /* (rows, width) */
    const int32_t *columns;
    uint16_t *y;
    int rows, width;
};

struct ops;

/* Each enqueues its work on the device. */
struct ops_functions {
    int (*rms_norm)(struct ops *, const struct ops_rms_norm *, struct error *);
    int (*rope)(struct ops *, const struct ops_rope *, struct error *);
    int (*attention)(struct ops *, const struct ops_attention *, struct error *);
    int (*gather)(struct ops *, const struct ops_gather *, struct error *);
};

enum { OPS_RMS_NORM, OPS_ROPE, OPS_ATTENTION, OPS_ATTENTION_TILE, OPS_GATHER, OPS_KERNELS };

struct ops {
    struct device *device;
    const struct ops_functions *functions;
    struct device_function *compiled[OPS_KERNELS]; /* of a GPU */
};

/* Compiles what a GPU needs. Errors: a head_dim that the backend's attention does not take. */
int ops_open(struct device *device, int head_dim, struct ops *ops, struct error *error);

/* The backends. */
extern const struct ops_functions ops_cpu, ops_cuda;
int ops_cuda_compile(struct ops *ops, int head_dim, struct error *error);

#endif
