/* The layer's small operations in plain C: the oracle of ops.cu, and what a machine without a GPU runs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/decoder/ops.h"
#include "bench/decoder/sample.h"
#include "kernels/half.h"

static int rms_norm(struct ops *ops, const struct ops_rms_norm *a, struct error *error) {
    (void)ops, (void)error;
    for (int row = 0; row < a->rows; row++) {
        size_t start = (size_t)row * (size_t)a->width;
        const uint16_t *x = a->x + start;
        double squares = 0;
        for (int i = 0; i < a->width; i++) squares += (double)half_to_float(x[i]) * half_to_float(x[i]);
        float scale = 1 / sqrtf((float)(squares / a->width) + a->epsilon);
        for (int i = 0; i < a->width; i++)
            a->y[start + (size_t)i] = half_from_float(half_to_float(x[i]) * scale * a->weight[i]);
    }
    return 0;
}

/* Element i of a row of the cache, or of fp16. */
static float get(const void *row, enum kv_type type, int i) {
    return type == KV_FP8 ? e4m3_to_float(((const uint8_t *)row)[i]) : half_to_float(((const uint16_t *)row)[i]);
}

static void put(void *row, enum kv_type type, int i, float value) {
    uint16_t half = half_from_float(value);
    if (type == KV_FP8)
        ((uint8_t *)row)[i] = e4m3_from_half(half);
    else
        ((uint16_t *)row)[i] = half;
}

/* One head of one token, rotated unless `frequency` is NULL, to `to` (which may be `from`). */
static void rotate(const uint16_t *from, const float *frequency, int position, int head_dim, void *to,
                   enum kv_type type) {
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float a = half_to_float(from[i]), b = half_to_float(from[i + half]);
        float angle = frequency ? (float)position * frequency[i] : 0;
        float cosine = cosf(angle), sine = sinf(angle);
        put(to, type, i, a * cosine - b * sine);
        put(to, type, i + half, b * cosine + a * sine);
    }
}

/* The row of one position of one head, of the keys or the values. */
static void *cached_row(void *cached, const struct ops_cache *c, enum kv_type type, int head, int position) {
    size_t page = (size_t)c->pages[position / OPS_PAGE];
    size_t row = (page * (size_t)c->kv_heads + (size_t)head) * OPS_PAGE + (size_t)(position % OPS_PAGE);
    return (char *)cached + row * (size_t)c->head_dim * kv_bytes(type);
}

static int rope(struct ops *ops, const struct ops_rope *a, struct error *error) {
    (void)error;
    const struct ops_cache *c = &a->cache;
    int all = a->heads + 2 * c->kv_heads;
    for (int token = 0; token < a->tokens; token++)
        for (int head = 0; head < all; head++) {
            uint16_t *from = a->qkv + ((size_t)token * (size_t)all + (size_t)head) * (size_t)c->head_dim;
            int position = c->position + token, key = head - a->heads, value = key - c->kv_heads;
            if (key < 0)
                rotate(from, a->frequency, position, c->head_dim, from, KV_FP16);
            else if (value < 0)
                rotate(from, a->frequency, position, c->head_dim, cached_row(c->keys, c, ops->kv, key, position),
                       ops->kv);
            else
                rotate(from, NULL, position, c->head_dim, cached_row(c->values, c, ops->kv, value, position), ops->kv);
        }
    return 0;
}

/* Softmax of q against `length` keys of a head into weights, fp32. */
static void attention_weights(const float *q, const struct ops_cache *c, enum kv_type type, int head, int length,
                              float *weights) {
    float most = -INFINITY, sum = 0;
    for (int p = 0; p < length; p++) {
        const void *key = cached_row(c->keys, c, type, head, p);
        float dot = 0;
        for (int i = 0; i < c->head_dim; i++) dot += q[i] * get(key, type, i);
        weights[p] = dot;
        if (dot > most) most = dot;
    }
    for (int p = 0; p < length; p++) sum += weights[p] = expf(weights[p] - most);
    for (int p = 0; p < length; p++) weights[p] /= sum;
}

/* One query over `length` positions of a key head. scratch: length + 2 * head_dim floats. */
static void attend(const uint16_t *query, const struct ops_cache *c, enum kv_type type, int head, int length,
                   float *scratch, uint16_t *y) {
    int head_dim = c->head_dim;
    float *weights = scratch, *q = scratch + length, *sum = q + head_dim;
    float scale = 1 / sqrtf((float)head_dim);
    for (int i = 0; i < head_dim; i++) {
        q[i] = half_to_float(query[i]) * scale;
        sum[i] = 0;
    }
    attention_weights(q, c, type, head, length, weights);
    for (int p = 0; p < length; p++) {
        const void *value = cached_row(c->values, c, type, head, p);
        for (int i = 0; i < head_dim; i++) sum[i] += weights[p] * get(value, type, i);
    }
    for (int i = 0; i < head_dim; i++) y[i] = half_from_float(sum[i]);
}

static int attention(struct ops *ops, const struct ops_attention *a, struct error *error) {
    const struct ops_cache *c = &a->cache;
    size_t dim = (size_t)c->head_dim, all = (size_t)(a->heads + 2 * c->kv_heads);
    float *scratch = malloc(((size_t)(c->position + a->tokens) + 2 * dim) * sizeof *scratch);
    if (!scratch) return error_set(error, "out of memory for attention over %d tokens", c->position + a->tokens);
    for (int token = 0; token < a->tokens; token++)
        for (int head = 0; head < a->heads; head++)
            attend(a->qkv + ((size_t)token * all + (size_t)head) * dim, c, ops->kv, head / (a->heads / c->kv_heads),
                   c->position + token + 1, scratch, a->y + ((size_t)token * (size_t)a->heads + (size_t)head) * dim);
    free(scratch);
    return 0;
}

static int gather(struct ops *ops, const struct ops_gather *a, struct error *error) {
    (void)ops, (void)error;
    for (int row = 0; row < a->rows; row++) {
        size_t start = (size_t)row * (size_t)a->width;
        for (int i = 0; i < a->width; i++) a->y[start + (size_t)i] = a->x[start + (size_t)a->columns[i]];
    }
    return 0;
}

static int embed(struct ops *ops, const struct ops_embed *a, struct error *error) {
    (void)ops, (void)error;
    size_t width = (size_t)a->width;
    for (int row = 0; row < a->rows; row++) {
        int id = a->ids[(size_t)row * (size_t)a->stride];
        memcpy(a->y + (size_t)row * width, a->table + (size_t)(id < 0 ? 0 : id) * width, width * sizeof *a->y);
    }
    return 0;
}

/* One sequence after the other. */
static int step_attention(struct ops *ops, const struct ops_attend *a, struct error *error) {
    size_t row = (size_t)(a->heads + 2 * a->kv_heads) * (size_t)a->head_dim;
    for (int i = 0; i < a->count; i++) {
        size_t at = (size_t)i;
        struct ops_cache c = {.keys = a->keys,
                              .values = a->values,
                              .pages = a->pages + at * (size_t)a->pitch,
                              .kv_heads = a->kv_heads,
                              .head_dim = a->head_dim,
                              .position = a->sequences[i].position};
        struct ops_rope rotated = {c, a->qkv + at * row, a->frequency, 1, a->heads};
        struct ops_attention attended = {c, rotated.qkv, a->y + at * (size_t)a->heads * (size_t)a->head_dim, 1,
                                         a->heads};
        if (rope(ops, &rotated, error) || attention(ops, &attended, error)) return -1;
    }
    return 0;
}

static int32_t largest(const uint16_t *logits, int limit) {
    int32_t best = 0;
    for (int32_t id = 0; id < limit; id++) {
        float logit = half_to_float(logits[id]);
        if (!isfinite(logit)) return -1;
        if (logit > half_to_float(logits[best])) best = id;
    }
    return best;
}

/* The sequence of that row goes on with the token. */
static void go_on(struct ops_sequence *sequence, int32_t token, int32_t *ring, int rows, int row) {
    sequence->token = ring[sequence->step % OPS_RING * rows + row] = token;
    sequence->position++;
    sequence->step++;
}

static int argmax(struct ops *ops, const struct ops_argmax *a, struct error *error) {
    (void)ops, (void)error;
    for (int row = 0; row < a->rows; row++) {
        int32_t token = largest(a->logits + (size_t)row * (size_t)a->width, a->limit);
        go_on(&a->sequences[row], token, a->ring, a->rows, row);
    }
    return 0;
}

static int sample(struct ops *ops, const struct ops_sample *a, struct error *error) {
    (void)ops, (void)error;
    for (int row = 0; row < a->rows; row++) go_on(&a->sequences[row], sample_row(a, row), a->ring, a->rows, row);
    return 0;
}

static int score(struct ops *ops, const struct ops_score *a, struct error *error) {
    (void)ops, (void)error;
    for (int row = 0; row < a->rows; row++) {
        const uint16_t *logits = a->logits + (size_t)row * (size_t)a->width;
        float most = -INFINITY;
        double sum = 0;
        for (int i = 0; i < a->limit; i++) most = fmaxf(most, half_to_float(logits[i]));
        for (int i = 0; i < a->limit; i++) sum += expf(half_to_float(logits[i]) - most);
        a->scores[row] = (double)(half_to_float(logits[a->targets[row]]) - most) - log(sum);
    }
    return 0;
}

const struct ops_functions ops_cpu = {rms_norm, rope, attention, gather, embed, step_attention, argmax, score, sample};
