/* The decoder on a GPU: its small operations against the CPU's, its tokens against transformers'. */
#include <unistd.h>

#include "tests/golden.h"
#include "bench/decoder/ops.h"
#include "bench/decoder/profile.h"
#include "kernels/half.h"
#include "kernels/reference.h"

/* --- the small operations --- */

/* What their cache holds. */
static enum kv_type side_kv;

/* One description's buffers on one backend. */
struct side {
    struct device *device;
    struct ops ops;
    void *memory[10];
    int count;
};

static void side_open(struct side *side, const char *id, int head_dim) {
    struct error error = {""};
    *side = (struct side){0};
    must(device_open(id, &side->device, &error), &error);
    must(ops_open(side->device, 5120, head_dim, side_kv, &side->ops, &error), &error);
}

static void *side_take(struct side *side, size_t bytes) {
    struct error error = {""};
    void *memory = side->memory[side->count++] = device_alloc(side->device, bytes, &error);
    assert_non_null(memory);
    must(device_fill(side->device, memory, 0xff, bytes, &error), &error); /* NaN in fp16 and fp32 */
    return memory;
}

/* `count` fp16 numbers in [-scale, scale], the same on both sides. */
static uint16_t *side_halves(struct side *side, size_t count, float scale, uint64_t seed) {
    struct error error = {""};
    uint16_t *memory = side_take(side, 2 * count);
    must(reference_fill_half(side->device, memory, count, -scale, scale, seed, &error), &error);
    return memory;
}

static float *side_floats(struct side *side, size_t count, float scale) {
    struct error error = {""};
    float *host = malloc(count * sizeof *host), *memory = side_take(side, count * sizeof *host);
    for (size_t i = 0; i < count; i++) host[i] = scale * ((float)(i * 2654435761u % 1000003) / 500001.5f - 1);
    must(device_write(side->device, memory, host, count * sizeof *host, &error), &error);
    free(host);
    return memory;
}

static void *side_read(struct side *side, const void *from, size_t bytes) {
    struct error error = {""};
    void *host = malloc(bytes);
    must(device_read(side->device, host, from, bytes, &error), &error);
    return host;
}

/* side_halves() as the cache has them. */
static void *side_cached(struct side *side, size_t count, float scale, uint64_t seed) {
    struct error error = {""};
    uint16_t *memory = side_halves(side, count, scale, seed);
    if (side_kv == KV_FP16) return memory;
    uint16_t *halves = side_read(side, memory, 2 * count);
    uint8_t *codes = malloc(count);
    for (size_t i = 0; i < count; i++) codes[i] = e4m3_from_half(halves[i]);
    must(device_write(side->device, memory, codes, count, &error), &error);
    free(halves);
    free(codes);
    return memory;
}

static void side_close(struct side *side) {
    for (int i = 0; i < side->count; i++) device_free(side->device, side->memory[i]);
    device_close(side->device);
}

static double element(const void *elements, enum kv_type type, size_t i) {
    return type == KV_FP8 ? e4m3_to_float(((const uint8_t *)elements)[i])
                          : half_to_float(((const uint16_t *)elements)[i]);
}

/* Both sides agree to `tolerance`; what neither wrote (NaN) may stay. */
static void agree_to(double tolerance, enum kv_type type, const char *what, struct side sides[2],
                     const void *const y[2], size_t count) {
    void *gpu = side_read(&sides[0], y[0], kv_bytes(type) * count);
    void *cpu = side_read(&sides[1], y[1], kv_bytes(type) * count);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double a = element(gpu, type, i), b = element(cpu, type, i);
        if (isnan(a) && isnan(b)) continue;
        if (!(fabs(a - b) <= tolerance * (fabs(b) + 0.1))) fail_msg("%s: element %zu is %g, not %g", what, i, a, b);
        difference += (a - b) * (a - b);
        norm += b * b;
    }
    if (!(sqrt(difference / norm) <= tolerance / 4)) fail_msg("%s: off by %g", what, sqrt(difference / norm));
    free(gpu);
    free(cpu);
}

/* fp16 results to a rounding or two. */
static void agree(const char *what, struct side sides[2], const void *const y[2], size_t count) {
    agree_to(4e-3, KV_FP16, what, sides, y, count);
}

/* What is in the cache: of fp8, too, to one rounding, which a last bit of fp16 may turn over. */
static void agree_cached(const char *what, struct side sides[2], const void *const y[2], size_t count) {
    agree_to(side_kv == KV_FP8 ? 0.13 : 4e-3, side_kv, what, sides, y, count);
}

/* What attended to that. */
static void agree_attended(const char *what, struct side sides[2], const void *const y[2], size_t count) {
    agree_to(side_kv == KV_FP8 ? 2e-2 : 4e-3, KV_FP16, what, sides, y, count);
}

static void open_both(struct side sides[2], int head_dim) {
    side_open(&sides[0], "cuda:0", head_dim);
    side_open(&sides[1], "cpu", head_dim);
}

static void norms_agree(void **state) {
    (void)state;
    struct side sides[2];
    const void *y[2];
    enum { ROWS = 3, WIDTH = 5120 };
    open_both(sides, 128);
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        struct ops_rms_norm a = {side_halves(&sides[i], ROWS * WIDTH, 2, 1),
                                 side_floats(&sides[i], WIDTH, 1),
                                 side_take(&sides[i], 2 * ROWS * WIDTH),
                                 ROWS,
                                 WIDTH,
                                 1e-6f};
        must(sides[i].ops.functions->rms_norm(&sides[i].ops, &a, &error), &error);
        y[i] = a.y;
    }
    agree("rms_norm", sides, y, ROWS * WIDTH);
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
}

enum { NOWHERE = 1 << 30 }; /* a page that is none */

/* Pages for `count` sequences as far as `positions`, in no order, and NOWHERE up to the pitch. */
static int32_t *side_pages(struct side *side, const int *positions, int count, int pitch) {
    struct error error = {""};
    size_t bytes = (size_t)(count * pitch) * sizeof(int32_t);
    int32_t *host = malloc(bytes), *memory = side_take(side, bytes);
    for (int i = 0; i < count * pitch; i++)
        host[i] = i % pitch <= positions[i / pitch] / OPS_PAGE ? (i * 7919 + 1) % (count * pitch + 1) : NOWHERE;
    must(device_write(side->device, memory, host, bytes, &error), &error);
    free(host);
    return memory;
}

/* Rotates and attends on both sides, with a cache that is full up to `position`. */
static void attention_agrees(int head_dim, int heads, int kv_heads, int tokens, int position) {
    struct side sides[2];
    const void *keys[2], *values[2], *qkv[2], *y[2];
    int last = position + tokens - 1, pitch = last / OPS_PAGE + 2;
    size_t all = (size_t)(heads + 2 * kv_heads) * (size_t)head_dim;
    size_t cached = (size_t)((pitch + 1) * OPS_PAGE * kv_heads * head_dim);
    size_t outputs = (size_t)tokens * (size_t)heads * (size_t)head_dim;
    open_both(sides, head_dim);
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        struct side *s = &sides[i];
        struct ops_cache cache = {.keys = side_cached(s, cached, 2, 3),
                                  .values = side_cached(s, cached, 2, 4),
                                  .pages = side_pages(s, &last, 1, pitch),
                                  .kv_heads = kv_heads,
                                  .head_dim = head_dim,
                                  .position = position};
        struct ops_rope rope = {cache, side_halves(s, (size_t)tokens * all, 2, 5),
                                side_floats(s, (size_t)head_dim / 2, 1), tokens, heads};
        struct ops_attention attention = {cache, rope.qkv, side_take(s, 2 * outputs), tokens, heads};
        must(s->ops.functions->rope(&s->ops, &rope, &error), &error);
        must(s->ops.functions->attention(&s->ops, &attention, &error), &error);
        keys[i] = cache.keys, values[i] = cache.values, qkv[i] = rope.qkv, y[i] = attention.y;
    }
    agree_cached("rope, keys", sides, keys, cached);
    agree_cached("rope, values", sides, values, cached);
    agree("rope, queries", sides, qkv, (size_t)tokens * all);
    agree_attended("attention", sides, y, outputs);
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
}

static void attention_agrees_everywhere(void **state) {
    (void)state;
    attention_agrees(128, 40, 8, 1, 0);
    attention_agrees(128, 40, 8, 1, 4095);
    attention_agrees(128, 10, 2, 7, 31);
    attention_agrees(128, 2, 1, 64, 0);
    attention_agrees(128, 2, 2, 4, 1000);
    attention_agrees(128, 10, 2, 300, 211);
    attention_agrees(128, 5, 1, 129, 4000);
    attention_agrees(128, 2, 1, 513, 0);
    attention_agrees(64, 6, 2, 200, 77);
    attention_agrees(64, 14, 2, 3, 200);
    attention_agrees(64, 4, 4, 33, 5);
}

/* One token each of `count` sequences, whose positions spread up to `position`. */
static void attend_agrees(int head_dim, int heads, int kv_heads, int count, int position) {
    struct side sides[2];
    const void *keys[2], *values[2], *y[2];
    int context = position + 3, pitch = (context + OPS_PAGE - 1) / OPS_PAGE;
    size_t dim = (size_t)head_dim, sequences = (size_t)count, all = (size_t)(heads + 2 * kv_heads) * dim;
    size_t cached = (size_t)(count * pitch + 1) * OPS_PAGE * (size_t)kv_heads * dim;
    size_t outputs = sequences * (size_t)heads * dim;
    struct ops_sequence *start = malloc(sequences * sizeof *start);
    int *positions = malloc(sequences * sizeof *positions);
    for (int i = 0; i < count; i++) {
        positions[i] = position - (int)(i * 7919LL % (position + 1));
        start[i] = (struct ops_sequence){.position = positions[i], .slot = count - 1 - i};
    }
    open_both(sides, head_dim);
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        struct side *s = &sides[i];
        size_t parts = ops_attend_parts(s->device, count, heads, kv_heads, context, head_dim);
        size_t arrivals = ops_attend_arrivals(count, heads, kv_heads);
        int splits = ops_attend_splits(s->device, count, kv_heads, context);
        struct ops_sequence *at = side_take(s, sequences * sizeof *at);
        struct ops_attend a = {.keys = side_cached(s, cached, 2, 3),
                               .values = side_cached(s, cached, 2, 4),
                               .pages = side_pages(s, positions, count, pitch),
                               .qkv = side_halves(s, sequences * all, 2, 5),
                               .frequency = side_floats(s, dim / 2, 1),
                               .sequences = at,
                               .parts = side_take(s, parts),
                               .arrivals = side_take(s, arrivals),
                               .y = side_take(s, 2 * outputs),
                               .count = count,
                               .heads = heads,
                               .kv_heads = kv_heads,
                               .pitch = pitch,
                               .head_dim = head_dim,
                               .splits = splits,
                               .cluster = ops_attend_cluster(s->device, splits)};
        must(device_write(s->device, at, start, sequences * sizeof *at, &error), &error);
        must(device_fill(s->device, a.arrivals, 0, arrivals, &error), &error);
        /* Again, as the next layer would: the counters must be as before. q is rotated in shared memory on a GPU. */
        for (int run = 0; run < (i ? 1 : 2); run++) must(s->ops.functions->attend(&s->ops, &a, &error), &error);
        keys[i] = a.keys, values[i] = a.values, y[i] = a.y;
    }
    agree_cached("attend, keys", sides, keys, cached);
    agree_cached("attend, values", sides, values, cached);
    agree_attended("attend", sides, y, outputs);
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
    free(start);
    free(positions);
}

static void attend_agrees_everywhere(void **state) {
    (void)state;
    attend_agrees(128, 40, 8, 1, 0);
    attend_agrees(128, 40, 8, 1, 509);
    attend_agrees(128, 40, 8, 1, 511);
    attend_agrees(128, 40, 8, 2, 2045);
    attend_agrees(128, 40, 8, 1, 16383);
    attend_agrees(128, 10, 2, 17, 2000);
    attend_agrees(128, 8, 1, 3, 128);
    attend_agrees(128, 10, 2, 64, 125);
    attend_agrees(128, 2, 2, 64, 127);
    attend_agrees(64, 14, 2, 3, 129);
    attend_agrees(64, 14, 2, 5, 1021);
    attend_agrees(64, 11, 1, 2, 70);
}

static int use_fp16(void **state) {
    (void)state;
    side_kv = golden_kv = KV_FP16;
    return 0;
}

/* Where the card can. */
static int use_fp8(void **state) {
    (void)state;
    struct device *device;
    struct error error = {""};
    must(device_open("cuda:0", &device, &error), &error);
    if (device->compute_capability >= 89) side_kv = golden_kv = KV_FP8;
    device_close(device);
    return 0;
}

static void attention_agrees_in_fp8(void **state) {
    if (side_kv != KV_FP8) skip();
    attention_agrees_everywhere(state);
    attend_agrees_everywhere(state);
}

/* Rows of random logits with the largest at two places; a row with a NaN. */
static void argmax_agrees(void **state) {
    (void)state;
    struct side sides[2];
    enum { ROWS = 17, WIDTH = 152064, LIMIT = 151665 };
    struct ops_sequence start[ROWS], found[2][ROWS];
    int32_t rings[2][OPS_RING * ROWS];
    open_both(sides, 128);
    for (int i = 0; i < ROWS; i++) start[i] = (struct ops_sequence){0, i, 5, i};
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        struct side *s = &sides[i];
        const uint16_t large = half_from_float(100), nan = 0x7e00;
        uint16_t *logits = side_halves(s, ROWS * WIDTH, 8, 1);
        struct ops_sequence *sequences = side_take(s, sizeof start);
        int32_t *ring = device_alloc_host(s->device, sizeof rings[i], &error);
        struct ops_argmax a = {logits, side_take(s, ROWS * OPS_PICKS * sizeof *a.picks), sequences, ring, ROWS, WIDTH,
                               LIMIT};
        assert_non_null(ring);
        must(device_write(s->device, sequences, start, sizeof start, &error), &error);
        for (int row = 0; row < ROWS; row++) {
            uint16_t *at = logits + (size_t)row * WIDTH;
            must(device_write(s->device, at + 8999 * row, &large, 2, &error), &error);
            must(device_write(s->device, at + LIMIT - 1, &large, 2, &error), &error);
            must(device_write(s->device, at + LIMIT, row % 2 ? &large : &nan, 2, &error), &error);
        }
        must(device_write(s->device, logits + 3 * WIDTH + 77, &nan, 2, &error), &error);
        must(s->ops.functions->argmax(&s->ops, &a, &error), &error);
        must(device_read(s->device, found[i], sequences, sizeof start, &error), &error);
        memcpy(rings[i], ring, sizeof rings[i]);
        device_free_host(s->device, ring);
    }
    for (int row = 0; row < ROWS; row++) {
        assert_int_equal(found[0][row].token, row == 3 ? -1 : 8999 * row);
        assert_int_equal(rings[0][5 % OPS_RING * ROWS + row], found[0][row].token);
    }
    assert_memory_equal(found[0], found[1], sizeof found[0]);
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
}

/* Rows of random logits over a whole vocabulary, one flat, one with a NaN, each with a sampling of its own, for some
 * steps: the same tokens and the same ids seen, to the bit. */
static void sampling_agrees(void **state) {
    (void)state;
    enum { ROWS = 17, WIDTH = 152064, LIMIT = 151665, STEPS = 6, KINDS = 6, SEEN = WIDTH / 8 };
    static const struct sampling kinds[KINDS] = {{1, 1, 1, 0, 1},    {0.7, 0.8, 1.1, 20, 2},   {0, 1, 1.5, 0, 3},
                                                 {5, 0.95, 3, 0, 4}, {1e-300, 0.5, 0.5, 7, 5}, {3, 0, 1, 0, 6}};
    static uint8_t seen[2][ROWS * SEEN];
    static int32_t tokens[2][STEPS][ROWS];
    struct side sides[2];
    struct ops_sampling sampling[ROWS];
    struct ops_sequence start[ROWS];
    uint16_t *flat = calloc(WIDTH, sizeof *flat);
    open_both(sides, 128);
    for (int i = 0; i < ROWS; i++) {
        sampling[i] = sampling_parameters(&kinds[i % KINDS]);
        start[i] = (struct ops_sequence){0, i, 5, ROWS - 1 - i};
    }
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        struct side *s = &sides[i];
        const uint16_t nan = 0x7e00;
        uint16_t *logits = side_halves(s, ROWS * WIDTH, 8, 1);
        uint32_t *counts = side_take(s, ROWS * OPS_BINS * sizeof *counts);
        struct ops_sampling *at = side_take(s, sizeof sampling);
        struct ops_sequence *sequences = side_take(s, sizeof start);
        int32_t *ring = device_alloc_host(s->device, OPS_RING * ROWS * sizeof *ring, &error);
        struct ops_sample a = {logits, counts, at, side_take(s, sizeof seen[i]), sequences, ring, ROWS, WIDTH, LIMIT};
        assert_non_null(ring);
        must(device_write(s->device, logits + 4 * WIDTH, flat, WIDTH * sizeof *flat, &error), &error);
        must(device_write(s->device, logits + 3 * WIDTH + 77, &nan, 2, &error), &error);
        must(device_write(s->device, at, sampling, sizeof sampling, &error), &error);
        must(device_write(s->device, sequences, start, sizeof start, &error), &error);
        must(device_fill(s->device, counts, 0, ROWS * OPS_BINS * sizeof *counts, &error), &error);
        must(device_fill(s->device, a.seen, 0x11, sizeof seen[i], &error), &error);
        for (int step = 0; step < STEPS; step++) {
            must(s->ops.functions->sample(&s->ops, &a, &error), &error);
            must(device_synchronize(s->device, &error), &error);
            memcpy(tokens[i][step], ring + (5 + step) % OPS_RING * ROWS, sizeof tokens[i][step]);
        }
        must(device_read(s->device, seen[i], a.seen, sizeof seen[i], &error), &error);
        device_free_host(s->device, ring);
    }
    for (int step = 0; step < STEPS; step++)
        for (int row = 0; row < ROWS; row++)
            if (tokens[0][step][row] != tokens[1][step][row] || (tokens[0][step][row] < 0) != (row == 3))
                fail_msg("step %d, row %d: %d, not %d", step, row, tokens[0][step][row], tokens[1][step][row]);
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
    free(flat);
}

static void embeddings_agree(void **state) {
    (void)state;
    struct side sides[2];
    enum { ROWS = 5, WIDTH = 5120, IDS = 100 };
    const int32_t ids[3 * ROWS] = {0, 9, 9, 99, 9, 9, 50, 9, 9, -1, 9, 9, 7};
    const void *y[2];
    open_both(sides, 128);
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        struct side *s = &sides[i];
        int32_t *at = side_take(s, sizeof ids);
        must(device_write(s->device, at, ids, sizeof ids, &error), &error);
        struct ops_embed a = {side_halves(s, IDS * WIDTH, 2, 1), at, side_take(s, 2 * ROWS * WIDTH), ROWS, WIDTH, 3};
        must(s->ops.functions->embed(&s->ops, &a, &error), &error);
        y[i] = a.y;
    }
    agree("embed", sides, y, ROWS * WIDTH);
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
}

static void gather_agrees(void **state) {
    (void)state;
    struct side sides[2];
    enum { ROWS = 5, WIDTH = 640 };
    const void *gathered[2];
    int32_t columns[WIDTH];
    for (int i = 0; i < WIDTH; i++) columns[i] = i * 7 % WIDTH;
    open_both(sides, 128);
    for (int i = 0; i < 2; i++) {
        struct error error = {""};
        struct side *s = &sides[i];
        int32_t *perm = side_take(s, sizeof columns);
        must(device_write(s->device, perm, columns, sizeof columns, &error), &error);
        struct ops_gather a = {side_halves(s, ROWS * WIDTH, 8, 6), perm, side_take(s, 2 * ROWS * WIDTH), ROWS, WIDTH};
        must(s->ops.functions->gather(&s->ops, &a, &error), &error);
        gathered[i] = a.y;
    }
    agree("gather", sides, gathered, ROWS * WIDTH);
    for (int i = 0; i < 2; i++) side_close(&sides[i]);
}

/* --- the model --- */

static void every_method_gives_transformers_tokens(void **state) {
    (void)state;
    golden_check("cuda:0", "tiny-qwen2", METHOD_NONE, 512, NULL);
    golden_check("cuda:0", "tiny-qwen2-awq", METHOD_AWQ, 512, NULL);
    golden_check("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, NULL);
    golden_check("cuda:0", "tiny-qwen2-gptq", METHOD_GPTQ, 512, NULL);
    golden_check("cuda:0", "tiny-qwen2-gptq", METHOD_GPTQ_MARLIN, 512, NULL);
    golden_check("cuda:0", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ, 512, NULL);
    golden_check("cuda:0", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN, 512, NULL);
}

/* Each op of `ops` has a kernel, and all of them with the gaps are the run. */
static void check_run(const struct profile_run *run, unsigned ops) {
    double sum = 0;
    for (int i = 0; i < run->count; i++) {
        ops &= ~(1u << run->parts[i].call.op);
        sum += run->parts[i].us + run->parts[i].gap_us;
        assert_true(*run->parts[i].kernel && run->parts[i].gap_us >= 0);
    }
    assert_int_equal(ops, 0);
    assert_float_equal(sum, run->span_us, 1e-3 * run->span_us);
}

/* The prompt in three chunks. */
static void a_profile_covers_prefill_and_token(void **state) {
    (void)state;
    struct subject subject;
    struct profile profile;
    struct error error = {""};
    int ids[2 * 40];
    if (cupti_open(&error)) skip(); /* a sanitizer holds it */
    for (int i = 0; i < 2 * 40; i++) ids[i] = i * 7919 % GOLDEN_VOCAB;
    subject_open(&subject, "cuda:0", "tiny-qwen2-awq", METHOD_AWQ, 16, NULL);
    must(profile_take(subject.model, &subject.config, ids, 40, 2, 12, &profile, &error), &error);
    check_run(&profile.prefill, (2u << MODEL_HEAD) - 1);
    check_run(&profile.token, (2u << MODEL_CHOOSE) - 1);
    assert_int_equal(profile.token.runs, 9);
    profile_free(&profile);
    subject_close(&subject);
}

static void scores_are_transformers(void **state) {
    (void)state;
    golden_check_scores("cuda:0", "tiny-qwen2", METHOD_NONE, 512);
    golden_check_scores("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 7);
}

static void steps_give_transformers_tokens(void **state) {
    (void)state;
    golden_check_steps("cuda:0", "tiny-qwen2", METHOD_NONE);
    golden_check_steps("cuda:0", "tiny-qwen2-awq", METHOD_AWQ);
    golden_check_steps("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_steps("cuda:0", "tiny-qwen2-gptq", METHOD_GPTQ);
    golden_check_steps("cuda:0", "tiny-qwen2-gptq", METHOD_GPTQ_MARLIN);
    golden_check_steps("cuda:0", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN);
}

/* Joining and leaving included. */
static void sampling_without_a_temperature_gives_them_too(void **state) {
    (void)state;
    golden_samples = true;
    golden_check_steps("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_batches("cuda:0", "tiny-qwen2", METHOD_NONE);
    golden_samples = false;
}

static void joining_and_leaving_changes_no_token(void **state) {
    (void)state;
    golden_check_batches("cuda:0", "tiny-qwen2", METHOD_NONE);
    golden_check_batches("cuda:0", "tiny-qwen2-awq", METHOD_AWQ);
    golden_check_batches("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_batches("cuda:0", "tiny-qwen2-gptq", METHOD_GPTQ);
    golden_check_batches("cuda:0", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN);
}

static void pages_go_from_hand_to_hand(void **state) {
    (void)state;
    golden_check_sharing("cuda:0", "tiny-qwen2", METHOD_NONE);
    golden_check_sharing("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
}

/* They are sure of their tokens. */
static void fp8_gives_transformers_tokens(void **state) {
    (void)state;
    if (golden_kv != KV_FP8) skip();
    golden_check_steps("cuda:0", "tiny-qwen2", METHOD_NONE);
    golden_check_batches("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_long("cuda:0", 128);
}

static void steps_choose_what_calls_would(void **state) {
    (void)state;
    golden_check_long("cuda:0", 127);
    golden_check_long("cuda:0", 128);
    golden_check_long("cuda:0", 2000);
}

/* A graph is recorded anew when the workspace of its kernels has moved. */
static void steps_outlive_larger_calls(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    static float logits[GOLDEN_VOCAB];
    int ids[GOLDEN_IDS / 2], position = GOLDEN_IDS / 2, before, after;
    double seconds;
    for (int i = 0; i < position; i++) ids[i] = i * 7919 % GOLDEN_VOCAB;
    subject_open(&subject, "cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, NULL);
    for (int i = 0; i < position; i++)
        must(model_forward(subject.model, 0, &ids[i], 1, i, i + 1 < position ? NULL : logits, &error), &error);
    for (int run = 0; run < 2; run++) {
        must(model_begin(subject.model, NULL, ids, &position, 1, &error), &error);
        must(model_step(subject.model, &error), &error);
        must(model_take(subject.model, run ? &after : &before, &seconds, &error), &error);
        must(model_forward(subject.model, 1, ids, position, 0, logits, &error), &error);
    }
    assert_int_equal(before, after);
    subject_close(&subject);
}

static void chunks_do_not_matter(void **state) {
    (void)state;
    golden_check("cuda:0", "tiny-qwen2", METHOD_NONE, 5, NULL);
    golden_check("cuda:0", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 1, NULL);
}

static void a_table_changes_configurations_not_tokens(void **state) {
    (void)state;
    golden_check_table("cuda:0");
}

static void tables_take_turns(void **state) {
    (void)state;
    golden_check_tables_by_turns("cuda:0");
}

/* "small": under a sanitizer, where every launch is slow. */
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "small")) golden_prompts = 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_agree),
        cmocka_unit_test(attention_agrees_everywhere),
        cmocka_unit_test(attend_agrees_everywhere),
        cmocka_unit_test_setup_teardown(attention_agrees_in_fp8, use_fp8, use_fp16),
        cmocka_unit_test(argmax_agrees),
        cmocka_unit_test(sampling_agrees),
        cmocka_unit_test(embeddings_agree),
        cmocka_unit_test(gather_agrees),
        cmocka_unit_test(every_method_gives_transformers_tokens),
        cmocka_unit_test(a_profile_covers_prefill_and_token),
        cmocka_unit_test(scores_are_transformers),
        cmocka_unit_test(steps_give_transformers_tokens),
        cmocka_unit_test(sampling_without_a_temperature_gives_them_too),
        cmocka_unit_test(joining_and_leaving_changes_no_token),
        cmocka_unit_test(pages_go_from_hand_to_hand),
        cmocka_unit_test_setup_teardown(fp8_gives_transformers_tokens, use_fp8, use_fp16),
        cmocka_unit_test(steps_choose_what_calls_would),
        cmocka_unit_test(steps_outlive_larger_calls),
        cmocka_unit_test(chunks_do_not_matter),
        cmocka_unit_test(a_table_changes_configurations_not_tokens),
        cmocka_unit_test(tables_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
