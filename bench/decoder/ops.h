/* What a Qwen2 layer does besides its GEMMs and their epilogues, on either backend. Activations are fp16,
 * row-major; norm weights and every sum are fp32. All pointers are device memory. A description is also
 * the argument of its kernel in ops.cu: the two declarations must stay alike. */
#ifndef TILEBOOK_DECODER_OPS_H
#define TILEBOOK_DECODER_OPS_H

#include <stdint.h>

#include "bench/decoder/kv.h"
#include "kernels/device.h"

/* y = x / sqrt(mean(x^2) + epsilon) * weight, row by row. */
struct ops_rms_norm {
    const uint16_t *x;   /* (rows, width) */
    const float *weight; /* (width), constant */
    uint16_t *y;         /* (rows, width) */
    int rows, width;
    float epsilon;
};

/* Positions of a page of the cache. What attends streams tiles of keys that never cross one. */
enum { OPS_PAGE = 64 };

/* Where a sequence's keys and values lie: those of head h at position p in row p % OPS_PAGE of head h of page
 * pages[p / OPS_PAGE]. */
struct ops_cache {
    void *keys, *values;  /* (all pages, kv_heads, OPS_PAGE, head_dim), of the type that ops_open was given */
    const int32_t *pages; /* of the sequence, as far as its positions reach */
    int kv_heads, head_dim;
    int position; /* of the first token of this call */
};

/* Rotates q (in place) and k by their positions (pairs i, i + head_dim/2), and writes k and v into the cache. In fp8
 * they are rounded once more, from fp16. */
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

/* A sequence that is being decoded, as the device keeps it from step to step. */
struct ops_sequence {
    int32_t token;    /* that the next step runs; -1 after logits that were not finite */
    int32_t position; /* of that token */
    int32_t step;     /* steps since the host wrote this */
    int32_t slot;     /* which of the model's sequences it is */
};

/* y[r] = table[ids[r * stride]]; a negative id is 0. */
struct ops_embed {
    const uint16_t *table; /* (vocabulary, width); the host's memory, too, if the device reaches it */
    const int32_t *ids;
    uint16_t *y; /* (rows, width) */
    int rows, width, stride;
};

/* One query a sequence, each at its own position: rotates q and k, writes k and v into the sequence's pages, which are
 * no other's, and attends to all positions up to its own. q may be overwritten. */
struct ops_attend {
    void *keys, *values;    /* as ops_cache has them */
    const int32_t *pages;   /* (sequences, pitch), all of which may be read */
    uint16_t *qkv;          /* (sequences, (heads + 2 kv_heads) * head_dim) */
    const float *frequency; /* (head_dim / 2) */
    const struct ops_sequence *sequences;
    float *parts;       /* ops_attend_parts() */
    unsigned *arrivals; /* ops_attend_arrivals(), zero before and after */
    uint16_t *y;        /* (sequences, heads * head_dim) */
    int count, heads, kv_heads, pitch, head_dim;
    int splits;  /* ops_attend_splits(), at most the pitch */
    int cluster; /* ops_attend_cluster() */
};

struct ops_pick {
    float logit;
    int32_t id;
};

/* The largest logit of each row, among equals that of the lowest id, is the next token of its sequence, which moves
 * on by one position and step; ring[step % OPS_RING, row] tells the host. -1 if a logit is not finite. */
struct ops_argmax {
    const uint16_t *logits; /* (rows, width) */
    struct ops_pick *picks; /* (rows, OPS_PICKS) */
    struct ops_sequence *sequences;
    int32_t *ring; /* (OPS_RING, rows), the host's memory */
    int rows, width;
    int limit; /* ids from here on are never chosen */
};

enum { OPS_PICKS = 128, OPS_RING = 4 };

/* How a sequence's tokens are chosen. */
struct ops_sampling {
    uint64_t seed;
    uint64_t top_p; /* in 2^-32; 2^32: off */
    float scale;    /* log2(e) / temperature */
    float penalty;
    int32_t top_k;  /* at least 1 */
    int32_t greedy; /* the first, without a draw */
};

/* As ops_argmax, but the next token is drawn, in transformers' order: the repetition penalty of ids that were seen,
 * rounded to fp16 as the logits are; temperature; top-k (ties with the k-th stay); top-p (the id that crosses p stays);
 * then one draw. The largest come first, among equals the lowest id. The draw is SplitMix64's number of the sequence's
 * seed and position and all sums are whole numbers: both backends, and any number of rows, choose the same. A chosen id
 * is one that was seen. */
struct ops_sample {
    const uint16_t *logits;              /* (rows, width) */
    uint32_t *counts;                    /* (rows, OPS_BINS), zero before and after */
    const struct ops_sampling *sampling; /* (slots) */
    uint8_t *seen;                       /* (slots, ops_seen_bytes()): a bit an id, the lowest first */
    struct ops_sequence *sequences;
    int32_t *ring; /* (OPS_RING, rows), the host's memory */
    int rows, width;
    int limit; /* ids from here on are never chosen */
};

enum { OPS_BINS = 65536 };

/* Bytes of one slot. */
static inline size_t ops_seen_bytes(int width) {
    return ((size_t)width + 7) / 8;
}

/* The logarithm of the probability that each row's softmax over its first `limit` logits gives the target: terms fp32,
 * their sum double. NaN if a logit is not finite. */
struct ops_score {
    const uint16_t *logits; /* (rows, width) */
    const int32_t *targets; /* (rows) */
    double *scores;         /* (rows) */
    int rows, width;
    int limit;
};

struct ops;

/* Each enqueues its work on the device. */
struct ops_functions {
    int (*rms_norm)(struct ops *, const struct ops_rms_norm *, struct error *);
    int (*rope)(struct ops *, const struct ops_rope *, struct error *);
    int (*attention)(struct ops *, const struct ops_attention *, struct error *);
    int (*gather)(struct ops *, const struct ops_gather *, struct error *);
    int (*embed)(struct ops *, const struct ops_embed *, struct error *);
    int (*attend)(struct ops *, const struct ops_attend *, struct error *);
    int (*argmax)(struct ops *, const struct ops_argmax *, struct error *);
    int (*score)(struct ops *, const struct ops_score *, struct error *);
    int (*sample)(struct ops *, const struct ops_sample *, struct error *);
};

enum {
    OPS_RMS_NORM,
    OPS_ROPE,
    OPS_ATTENTION,
    OPS_GATHER,
    OPS_EMBED,
    OPS_ATTEND,
    OPS_ARGMAX_PICKS,
    OPS_ARGMAX_NEXT,
    OPS_SCORE,
    OPS_SAMPLE_COUNT,
    OPS_SAMPLE_NEXT,
    OPS_KERNELS
};

struct ops {
    struct device *device;
    const struct ops_functions *functions;
    int hidden, head_dim;
    enum kv_type kv;
    struct device_function *compiled[OPS_KERNELS]; /* of a GPU */
};

/* Compiles what a GPU needs; norms and embeddings are `hidden` wide. Errors: a head_dim that the backend's attention
 * does not take; fp8 on a GPU that cannot convert it. */
int ops_open(struct device *device, int hidden, int head_dim, enum kv_type kv, struct ops *ops, struct error *error);

/* Blocks that share one key head of one sequence: enough to fill the device, but few enough to be summed by one. They
 * depend on the room of the cache and not on what is in it, so that a recorded step stays right as sequences grow. */
int ops_attend_splits(const struct device *device, int count, int kv_heads, int context);
/* How many of them at a time add up their parts in each other's shared memory; it divides them. */
int ops_attend_cluster(const struct device *device, int splits);
/* Bytes of ops_attend's buffers for up to `count` sequences. */
size_t ops_attend_parts(const struct device *device, int count, int heads, int kv_heads, int context, int head_dim);
size_t ops_attend_arrivals(int count, int heads, int kv_heads);

/* How a GPU launches attention and sampling, and NVRTC's options for them. */
void ops_attend_launch(const struct ops_attend *attend, enum kv_type kv, struct device_grid *grid,
                       size_t *shared_bytes);
void ops_attend_options(const struct device *device, int head_dim, enum kv_type kv, size_t shared_bytes, char *options,
                        size_t size);
void ops_attention_launch(const struct ops_attention *attention, enum kv_type kv, struct device_grid *grid,
                          size_t *shared_bytes);
void ops_attention_options(int head_dim, enum kv_type kv, size_t shared_bytes, char *options, size_t size);
void ops_sample_launch(const struct ops_sample *sample, struct device_grid *count, struct device_grid *next);
void ops_sample_options(char *options, size_t size);

/* The backends. */
extern const struct ops_functions ops_cpu, ops_cuda;
int ops_cuda_compile(struct ops *ops, struct error *error);

#endif
