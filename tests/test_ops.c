/* The decoder's small kernels for a GPU, run on the host (tests/emulation), against the CPU's operations: on poisoned
 * memory, the same bits whatever the order of warps, blocks and copies, and counters left at zero. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "bench/decoder/ops.h"
#include "bench/decoder/sample.h"
#include "kernels/half.h"
#include "kernels/reference.h"
#include "tests/emulation/load.h"

static struct ops cpu; /* its cache is what a test says */
static struct error error;
static const struct device h100 = {.backend = BACKEND_CUDA, .compute_capability = 90, .multiprocessors = 132};
static const struct device a100 = {.backend = BACKEND_CUDA, .compute_capability = 80, .multiprocessors = 108};

static int open_cpu(void **state) {
    (void)state;
    struct device *device;
    return device_open("cpu", &device, &error) || ops_open(device, 1152, 128, KV_FP16, &cpu, &error);
}

static int close_cpu(void **state) {
    (void)state;
    device_close(cpu.device);
    return 0;
}

static void must(int status) {
    if (status) fail_msg("%s", error.text);
}

/* NaN in fp16 and fp32. */
static void *poisoned(size_t bytes) {
    void *memory = device_alloc(cpu.device, bytes, &error);
    assert_non_null(memory);
    memset(memory, 0xff, bytes);
    return memory;
}

static uint16_t *halves(size_t count, float scale, uint64_t seed) {
    uint16_t *memory = poisoned(2 * count);
    must(reference_fill_half(cpu.device, memory, count, -scale, scale, seed, &error));
    return memory;
}

static void *copy_of(const void *from, size_t bytes) {
    return memcpy(poisoned(bytes), from, bytes);
}

static double element(const void *elements, enum kv_type type, size_t i) {
    return type == KV_FP8 ? e4m3_to_float(((const uint8_t *)elements)[i])
                          : half_to_float(((const uint16_t *)elements)[i]);
}

/* fp16 results agree to a rounding or two, codes are the same; what neither wrote (NaN) may stay. */
static void agree_as(enum kv_type type, const char *what, const void *found, const void *expected, size_t count) {
    for (size_t i = 0; i < count; i++) {
        double a = element(found, type, i), b = element(expected, type, i);
        if (isnan(a) && isnan(b)) continue;
        if (!(fabs(a - b) <= 4e-3 * (fabs(b) + 0.1))) fail_msg("%s: element %zu is %g, not %g", what, i, a, b);
    }
}

static void agree(const char *what, const uint16_t *found, const uint16_t *expected, size_t count) {
    agree_as(KV_FP16, what, found, expected, count);
}

/* --- the cache --- */

enum { NOWHERE = 1 << 30 }; /* a page that is none */

/* Pages for `count` sequences up to their positions, in no order, and NOWHERE up to the pitch; a page is left over. */
static int32_t *scattered(const int *positions, int count, int pitch) {
    int32_t *pages = poisoned((size_t)(count * pitch) * sizeof *pages);
    for (int i = 0; i < count * pitch; i++)
        pages[i] = i % pitch <= positions[i / pitch] / OPS_PAGE ? (i * 7919 + 1) % (count * pitch + 1) : NOWHERE;
    return pages;
}

/* The elements of fp16 as the cache has them. */
static void *cached(const uint16_t *random, size_t count) {
    uint8_t *codes = poisoned(2 * count);
    if (cpu.kv == KV_FP16) return memcpy(codes, random, 2 * count);
    for (size_t i = 0; i < count; i++) codes[i] = e4m3_from_half(random[i]);
    return codes;
}

/* Random numbers where a sequence has positions, NaN elsewhere. */
static void *scattered_cache(const int32_t *pages, const int *positions, int count, int pitch, int kv_heads,
                             int head_dim, float scale, uint64_t seed) {
    size_t row = (size_t)head_dim, all = (size_t)((count * pitch + 1) * kv_heads * OPS_PAGE) * row;
    size_t bytes = kv_bytes(cpu.kv);
    uint16_t *random = halves(all, scale, seed);
    char *elements = cached(random, all), *cache = poisoned(bytes * all);
    for (int i = 0; i < count; i++)
        for (int p = 0; p < positions[i]; p++)
            for (int head = 0; head < kv_heads; head++) {
                size_t page = (size_t)pages[i * pitch + p / OPS_PAGE] * (size_t)kv_heads + (size_t)head;
                size_t at = (page * OPS_PAGE + (size_t)(p % OPS_PAGE)) * row;
                memcpy(cache + bytes * at, elements + bytes * at, bytes * row);
            }
    device_free(cpu.device, random);
    device_free(cpu.device, elements);
    return cache;
}

/* --- attention of a step --- */

/* One step's operands, of which `count` sequences have random caches as long as their positions. */
struct step {
    struct ops_attend a;
    size_t cache, qkv, y; /* elements */
    int context;
};

static struct step make_step(const struct device *device, int head_dim, int heads, int kv_heads, const int *positions,
                             int count) {
    int context = 0;
    for (int i = 0; i < count; i++) context = positions[i] >= context ? positions[i] + 1 : context;
    int pitch = (context + OPS_PAGE - 1) / OPS_PAGE;
    size_t dim = (size_t)head_dim, cache = (size_t)((count * pitch + 1) * kv_heads * OPS_PAGE) * dim;
    size_t qkv = (size_t)count * (size_t)(heads + 2 * kv_heads) * dim, y = (size_t)(count * heads) * dim;
    int splits = ops_attend_splits(device, count, kv_heads, context);
    float *frequency = poisoned(dim / 2 * sizeof *frequency);
    struct ops_sequence *sequences = poisoned((size_t)count * sizeof *sequences);
    for (int i = 0; i < head_dim / 2; i++) frequency[i] = powf(1e4f, -2.0f * (float)i / (float)head_dim);
    for (int i = 0; i < count; i++)
        sequences[i] = (struct ops_sequence){.position = positions[i], .slot = count - 1 - i};
    int32_t *pages = scattered(positions, count, pitch);
    struct ops_attend attend = {.keys = scattered_cache(pages, positions, count, pitch, kv_heads, head_dim, 2, 1),
                                .values = scattered_cache(pages, positions, count, pitch, kv_heads, head_dim, 2, 2),
                                .pages = pages,
                                .qkv = halves(qkv, 2, 3),
                                .frequency = frequency,
                                .sequences = sequences,
                                .y = poisoned(2 * y),
                                .count = count,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .pitch = pitch,
                                .head_dim = head_dim,
                                .splits = splits,
                                .cluster = ops_attend_cluster(device, splits)};
    return (struct step){attend, cache, qkv, y, context};
}

static void free_step(struct step *step) {
    const void *memory[] = {step->a.keys,      step->a.values,    step->a.pages, step->a.qkv,
                            step->a.frequency, step->a.sequences, step->a.y};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) device_free(cpu.device, (void *)memory[i]);
}

/* The launch on copies of what the step writes, against what the CPU left in the step. */
static void check_run(const struct device *device, const struct step *before, const struct step *after,
                      emulate_function *emulate, const struct device_grid *grid, unsigned run, uint16_t *y) {
    struct ops_attend a = before->a;
    size_t parts = ops_attend_parts(device, a.count, a.heads, a.kv_heads, before->context, a.head_dim);
    size_t arrivals = ops_attend_arrivals(a.count, a.heads, a.kv_heads);
    a.keys = copy_of(a.keys, kv_bytes(cpu.kv) * before->cache);
    a.values = copy_of(a.values, kv_bytes(cpu.kv) * before->cache);
    a.y = y;
    a.parts = poisoned(parts);
    a.arrivals = memset(poisoned(arrivals), 0, arrivals);
    memset(y, 0xff, 2 * before->y);
    assert_int_equal(emulate(&a, grid, run == 0, run), 0);
    agree_as(cpu.kv, "keys", a.keys, after->a.keys, before->cache);
    agree_as(cpu.kv, "values", a.values, after->a.values, before->cache);
    agree("attend", y, after->a.y, before->y);
    for (size_t i = 0; i < arrivals / sizeof *a.arrivals; i++) assert_int_equal(a.arrivals[i], 0);
    void *memory[] = {a.keys, a.values, a.parts, a.arrivals};
    for (int i = 0; i < 4; i++) device_free(cpu.device, memory[i]);
}

static void check_attend(const struct device *device, int head_dim, int heads, int kv_heads, const int *positions,
                         int count) {
    struct step before = make_step(device, head_dim, heads, kv_heads, positions, count);
    struct step after = make_step(device, head_dim, heads, kv_heads, positions, count);
    struct device_grid grid;
    size_t shared_bytes;
    char options[160];
    emulate_function *emulate;
    ops_attend_launch(&before.a, cpu.kv, &grid, &shared_bytes);
    ops_attend_options(device, head_dim, cpu.kv, shared_bytes, options, sizeof options);
    void *library = emulation_load("decoder/attend.cu", "attend", "struct attend_arguments", options, &emulate);
    must(cpu.functions->attend(&cpu, &after.a, &error));
    uint16_t *y[2] = {poisoned(2 * before.y), poisoned(2 * before.y)};
    for (unsigned run = 0; run < 2; run++) check_run(device, &before, &after, emulate, &grid, run, y[run]);
    assert_memory_equal(y[0], y[1], 2 * before.y);
    for (int i = 0; i < 2; i++) device_free(cpu.device, y[i]);
    dlclose(library);
    free_step(&before);
    free_step(&after);
}

#define CHECK_ATTEND(device, head_dim, heads, kv_heads, ...)                                                           \
    check_attend(device, head_dim, heads, kv_heads, (const int[]){__VA_ARGS__},                                        \
                 (int)(sizeof(const int[]){__VA_ARGS__} / sizeof(int)))

static void attend_one_sequence(void **state) {
    (void)state;
    CHECK_ATTEND(&h100, 128, 5, 1, 0);
    CHECK_ATTEND(&h100, 128, 5, 1, 1);
    CHECK_ATTEND(&h100, 128, 5, 1, 63);
    CHECK_ATTEND(&h100, 128, 5, 1, 64);
    CHECK_ATTEND(&h100, 128, 10, 2, 126);
    CHECK_ATTEND(&h100, 128, 5, 1, 127);
    CHECK_ATTEND(&h100, 128, 8, 1, 128);
    CHECK_ATTEND(&h100, 128, 5, 1, 510);
    CHECK_ATTEND(&h100, 128, 5, 1, 511);
    CHECK_ATTEND(&h100, 64, 7, 1, 512);
    CHECK_ATTEND(&h100, 128, 1, 1, 1999);
    CHECK_ATTEND(&h100, 128, 5, 1, 2047);
    CHECK_ATTEND(&h100, 64, 2, 2, 200);
}

/* Sequences of all lengths at once: blocks without positions, clusters without any, sequences with one part and with
 * many. */
static void attend_batches(void **state) {
    (void)state;
    CHECK_ATTEND(&h100, 128, 8, 1, 1999, 0, 128);
    CHECK_ATTEND(&h100, 64, 14, 2, 5, 700, 63);
    CHECK_ATTEND(&h100, 128, 5, 1, 511, 130, 64, 0);
    CHECK_ATTEND(&h100, 64, 7, 1, 383, 63, 64, 300);
    CHECK_ATTEND(&h100, 128, 5, 1, 0, 1, 2, 15, 16, 17, 63, 64, 65, 126, 127, 128, 129, 191, 400, 30, 3);
    /* More query heads a key head than the matrix unit takes at once. */
    CHECK_ATTEND(&h100, 64, 11, 1, 70, 3);
}

/* On cards without clusters. */
static void attend_alone(void **state) {
    (void)state;
    CHECK_ATTEND(&a100, 128, 5, 1, 511);
    CHECK_ATTEND(&a100, 128, 10, 2, 2047, 64, 0);
    CHECK_ATTEND(&a100, 64, 11, 1, 700, 3);
}

static int use_fp8(void **state) {
    (void)state;
    cpu.kv = KV_FP8;
    return 0;
}

static int use_fp16(void **state) {
    (void)state;
    cpu.kv = KV_FP16;
    return 0;
}

/* More pages than stages, fewer, none; a fresh position anywhere in its tile. */
static void attend_codes(void **state) {
    (void)state;
    CHECK_ATTEND(&h100, 128, 8, 1, 1999, 0, 128);
    CHECK_ATTEND(&h100, 64, 14, 2, 5, 700, 63);
    CHECK_ATTEND(&h100, 128, 5, 1, 0, 1, 2, 15, 16, 17, 63, 64, 65, 126, 127, 128, 129, 191, 400, 30, 3);
}

static void splits_fit_their_buffers(void **state) {
    (void)state;
    assert_int_equal(ops_attend_splits(&h100, 1, 8, 512), 8);
    assert_int_equal(ops_attend_splits(&h100, 1, 8, 16384), 32);
    assert_int_equal(ops_attend_splits(&h100, 64, 8, 512), 2);
    assert_int_equal(ops_attend_splits(&h100, 256, 8, 512), 1);
    assert_int_equal(ops_attend_cluster(&h100, 32), 8);
    assert_int_equal(ops_attend_cluster(&h100, 6), 2);
    assert_int_equal(ops_attend_cluster(&h100, 7), 1);
    assert_int_equal(ops_attend_cluster(&a100, 8), 1);
    size_t most = ops_attend_parts(&h100, 70, 40, 8, 4096, 128);
    for (int count = 1; count <= 70; count++) {
        int splits = ops_attend_splits(&h100, count, 8, 4096);
        assert_true((size_t)(count * splits) * 40 * 132 * sizeof(float) <= most);
    }
}

/* --- attention of a prompt's chunk --- */

/* A chunk behind `position` others; what lies behind it in the cache is NaN. Scores grow with `scale`. */
static struct ops_attention make_chunk(int head_dim, int heads, int kv_heads, int tokens, int position, float scale) {
    int end = position + tokens, last = end - 1, pitch = end / OPS_PAGE + 1;
    const int32_t *pages = scattered(&last, 1, pitch);
    struct ops_cache c = {.keys = scattered_cache(pages, &end, 1, pitch, kv_heads, head_dim, scale, 1),
                          .values = scattered_cache(pages, &end, 1, pitch, kv_heads, head_dim, 2, 2),
                          .pages = pages,
                          .kv_heads = kv_heads,
                          .head_dim = head_dim,
                          .position = position};
    size_t qkv = (size_t)(tokens * (heads + 2 * kv_heads) * head_dim);
    return (struct ops_attention){c, halves(qkv, scale, 3), NULL, tokens, heads};
}

/* Against the CPU, with a row behind y that nobody may write. */
static void check_attention(int head_dim, int heads, int kv_heads, int tokens, int position, float scale) {
    struct ops_attention a = make_chunk(head_dim, heads, kv_heads, tokens, position, scale);
    size_t count = (size_t)((tokens + 1) * heads * head_dim), shared_bytes;
    uint16_t *y[3] = {poisoned(2 * count), poisoned(2 * count), poisoned(2 * count)};
    struct device_grid grid;
    char options[160];
    emulate_function *emulate;
    ops_attention_launch(&a, cpu.kv, &grid, &shared_bytes);
    ops_attention_options(head_dim, cpu.kv, shared_bytes, options, sizeof options);
    void *library =
        emulation_load("decoder/attend_prompt.cu", "attend_prompt", "struct attention_arguments", options, &emulate);
    a.y = y[2];
    must(cpu.functions->attention(&cpu, &a, &error));
    for (unsigned run = 0; run < 2; run++) {
        a.y = y[run];
        assert_int_equal(emulate(&a, &grid, run == 0, run), 0);
        agree("attention", y[run], y[2], count);
    }
    assert_memory_equal(y[0], y[1], 2 * count);
    void *memory[] = {a.cache.keys, a.cache.values, (void *)a.cache.pages, (void *)a.qkv, y[0], y[1], y[2]};
    for (int i = 0; i < 7; i++) device_free(cpu.device, memory[i]);
    dlclose(library);
}

/* Chunks that begin and end anywhere in tiles of keys and in blocks of queries. */
static void attention_of_chunks(void **state) {
    (void)state;
    check_attention(128, 5, 1, 1, 0, 2);
    check_attention(128, 2, 1, 1, 127, 2);
    check_attention(128, 2, 2, 67, 0, 2);
    check_attention(128, 1, 1, 129, 61, 2);
    check_attention(64, 4, 2, 33, 200, 2);
    check_attention(64, 3, 1, 3, 64, 2);
}

/* Maxima that later tiles surpass, by far and by less; weights that are 1 or nothing. */
static void attention_of_large_scores(void **state) {
    (void)state;
    check_attention(128, 1, 1, 40, 250, 5);
    check_attention(64, 2, 1, 129, 63, 30);
}

static void attention_of_codes(void **state) {
    (void)state;
    check_attention(128, 2, 2, 67, 0, 2);
    check_attention(128, 1, 1, 129, 61, 2);
    check_attention(64, 2, 1, 129, 63, 30);
}

/* --- the others --- */

static void *load_op(const char *entry, const char *arguments, emulate_function **emulate) {
    char options[128];
    snprintf(options, sizeof options, "-DBLOCK=64 -DHELD=3 -DHEAD_DIM=64 -DPAGE=%d -DKV_BYTES=%zu -DPICKS=%d -DRING=%d",
             OPS_PAGE, kv_bytes(cpu.kv), OPS_PICKS, OPS_RING);
    return emulation_load("decoder/ops.cu", entry, arguments, options, emulate);
}

/* The tokens of a chunk go to their pages, rotated, and nowhere else; more heads than a block takes at a time. */
static void rotations(void **state) {
    (void)state;
    enum { HEADS = 15, KV_HEADS = 2, TOKENS = 70, POSITION = 61, DIM = 64, PITCH = 4 };
    const int last = POSITION + TOKENS - 1;
    const size_t cache = (PITCH + 1) * KV_HEADS * OPS_PAGE * DIM, qkv = TOKENS * (HEADS + 2 * KV_HEADS) * DIM;
    const size_t bytes = cache * kv_bytes(cpu.kv);
    emulate_function *emulate;
    void *library = load_op("rope", "struct rope_arguments", &emulate);
    int32_t *pages = scattered(&last, 1, PITCH);
    float *frequency = poisoned(DIM / 2 * sizeof *frequency);
    for (int i = 0; i < DIM / 2; i++) frequency[i] = powf(1e4f, -2.0f * (float)i / DIM);
    struct ops_rope a[2];
    for (int i = 0; i < 2; i++)
        a[i] = (struct ops_rope){{poisoned(bytes), poisoned(bytes), pages, KV_HEADS, DIM, POSITION},
                                 halves(qkv, 2, 1),
                                 frequency,
                                 TOKENS,
                                 HEADS};
    emulate(&a[0], &(struct device_grid){.blocks = {TOKENS, 1, 1}, .threads = 64}, false, 1);
    must(cpu.functions->rope(&cpu, &a[1], &error));
    agree_as(cpu.kv, "rope, keys", a[0].cache.keys, a[1].cache.keys, cache);
    agree_as(cpu.kv, "rope, values", a[0].cache.values, a[1].cache.values, cache);
    agree("rope, queries", a[0].qkv, a[1].qkv, qkv);
    size_t written = 0;
    for (size_t i = 0; i < cache; i++) written += !isnan(element(a[1].cache.keys, cpu.kv, i));
    assert_int_equal(written, TOKENS * KV_HEADS * DIM);
    void *memory[] = {pages,           frequency,         a[0].cache.keys, a[0].cache.values,
                      a[1].cache.keys, a[1].cache.values, a[0].qkv,        a[1].qkv};
    for (int i = 0; i < 8; i++) device_free(cpu.device, memory[i]);
    dlclose(library);
}

static void norms(void **state) {
    (void)state;
    enum { ROWS = 3, WIDTH = 1152 };
    emulate_function *emulate;
    void *library = load_op("rms_norm", "struct rms_norm_arguments", &emulate);
    uint16_t *x = halves(ROWS * WIDTH, 2, 1), *y[2] = {poisoned(2 * ROWS * WIDTH), poisoned(2 * ROWS * WIDTH)};
    float *weight = poisoned(WIDTH * sizeof *weight);
    for (int i = 0; i < WIDTH; i++) weight[i] = (float)(i * 7919 % 1000) / 500 - 1;
    const struct device_grid grid = {.blocks = {ROWS, 1, 1}, .threads = 64};
    struct ops_rms_norm a = {x, weight, y[0], ROWS, WIDTH, 1e-6f}, b = a;
    b.y = y[1];
    emulate(&a, &grid, false, 0);
    must(cpu.functions->rms_norm(&cpu, &b, &error));
    agree("rms_norm", y[0], y[1], ROWS * WIDTH);
    void *memory[] = {x, weight, y[0], y[1]};
    for (int i = 0; i < 4; i++) device_free(cpu.device, memory[i]);
    dlclose(library);
}

static void embeddings(void **state) {
    (void)state;
    enum { ROWS = 17, WIDTH = 640, IDS = 9 };
    emulate_function *emulate;
    void *library = load_op("embed", "struct embed_arguments", &emulate);
    uint16_t *table = halves(IDS * WIDTH, 2, 1), *y[2] = {poisoned(2 * ROWS * WIDTH), poisoned(2 * ROWS * WIDTH)};
    int32_t ids[3 * ROWS];
    for (int i = 0; i < 3 * ROWS; i++) ids[i] = i % 3 ? 1 << 30 : i / 3 % (IDS + 1) - 1;
    const struct device_grid grid = {.blocks = {ROWS, 1, 1}, .threads = 64};
    struct ops_embed a = {table, ids, y[0], ROWS, WIDTH, 3}, b = a;
    b.y = y[1];
    emulate(&a, &grid, false, 0);
    must(cpu.functions->embed(&cpu, &b, &error));
    assert_memory_equal(y[0], y[1], 2 * ROWS * WIDTH);
    void *memory[] = {table, y[0], y[1]};
    for (int i = 0; i < 3; i++) device_free(cpu.device, memory[i]);
    dlclose(library);
}

enum { LOGITS = 2048, PLACES = 6 };

/* Rows whose largest logits are at the places, or that have none that is finite there; the id that wins. */
static int32_t plant(uint16_t *logits, int row, int limit) {
    static const int places[PLACES] = {0, 7, 1000, 1031, 1151, 1152};
    int place = places[row % PLACES];
    uint16_t *at = logits + (size_t)row * LOGITS;
    for (int i = limit; i < LOGITS; i++) at[i] = 0x7bff;
    if (row % 5 == 4) {
        at[500] = row % 2 ? 0x7c00 : 0xfe00;
        return -1;
    }
    at[place] = half_from_float(100);
    if (row % 3 == 0) at[1150] = at[place];
    return place < limit ? place : row % 3 == 0 ? 1150 : -2;
}

static void check_argmax(int rows, int limit, emulate_function *picks, emulate_function *next) {
    uint16_t *logits = halves((size_t)rows * LOGITS, 8, 1);
    struct ops_sequence sequences[2][17];
    int32_t ring[2][OPS_RING * 17], expected[17];
    struct ops_pick *memory = poisoned((size_t)rows * OPS_PICKS * sizeof *memory);
    memset(ring, 0, sizeof ring);
    for (int i = 0; i < rows; i++) expected[i] = plant(logits, i, limit);
    for (int i = 0; i < 2 * 17; i++) sequences[i / 17][i % 17] = (struct ops_sequence){1, 2 + i % 17, 6, i % 17};
    struct ops_argmax a = {logits, memory, sequences[0], ring[0], rows, LOGITS, limit}, b = a;
    b.sequences = sequences[1];
    b.ring = ring[1];
    picks(&a, &(struct device_grid){.blocks = {OPS_PICKS, (unsigned)rows, 1}, .threads = 64}, false, 1);
    next(&a, &(struct device_grid){.blocks = {(unsigned)rows, 1, 1}, .threads = 32}, false, 1);
    must(cpu.functions->argmax(&cpu, &b, &error));
    assert_memory_equal(sequences[0], sequences[1], sizeof sequences[0]);
    assert_memory_equal(ring[0], ring[1], sizeof ring[0]);
    for (int i = 0; i < rows; i++) {
        if (expected[i] != -2) assert_int_equal(sequences[0][i].token, expected[i]);
        assert_int_equal(sequences[0][i].position, 3 + i);
        assert_int_equal(sequences[0][i].step, 7);
        assert_int_equal(ring[0][6 % OPS_RING * rows + i], sequences[0][i].token);
    }
    device_free(cpu.device, logits);
    device_free(cpu.device, memory);
}

/* Equal logits: the lowest id; ids from the limit on: never; infinite and NaN: -1. */
static void argmax(void **state) {
    (void)state;
    emulate_function *picks, *next;
    void *libraries[2] = {load_op("argmax_picks", "struct argmax_arguments", &picks),
                          load_op("argmax_next", "struct argmax_arguments", &next)};
    check_argmax(1, LOGITS, picks, next);
    check_argmax(3, 1153, picks, next);
    check_argmax(17, 1152, picks, next);
    for (int i = 0; i < 2; i++) dlclose(libraries[i]);
}

/* --- choosing --- */

enum { SLOTS = 6 };

/* Flat and steep, all and few ids, equal logits, penalties. */
static const struct sampling samplings[SLOTS] = {{3, 0, 1, 0, 1},    {0.7, 0.8, 1.1, 20, 2},   {0, 1, 1.5, 0, 3},
                                                 {5, 0.95, 3, 0, 4}, {1e-300, 0.5, 0.5, 7, 5}, {1, 1, 1, 0, 4}};

/* What one backend has. */
struct chooser {
    struct ops_sample a;
    struct ops_sampling sampling[SLOTS];
    uint8_t *seen;
    struct ops_sequence sequences[SLOTS];
    int32_t ring[OPS_RING * SLOTS];
};

static void open_chooser(struct chooser *c, const uint16_t *logits, int rows, int width, int limit) {
    size_t counts = (size_t)rows * OPS_BINS * sizeof *c->a.counts, seen = SLOTS * ops_seen_bytes(width);
    *c = (struct chooser){.seen = memset(poisoned(seen), 0, seen)};
    c->a = (struct ops_sample){.logits = logits,
                               .counts = memset(poisoned(counts), 0, counts),
                               .sampling = c->sampling,
                               .seen = c->seen,
                               .sequences = c->sequences,
                               .ring = c->ring,
                               .rows = rows,
                               .width = width,
                               .limit = limit};
    for (int i = 0; i < SLOTS; i++) {
        c->sampling[i] = sampling_parameters(&samplings[i]);
        c->sequences[i] = (struct ops_sequence){1, 2 + i, 6, SLOTS - 1 - i};
    }
    for (size_t i = 0; i < seen; i += 3) c->seen[i] = (uint8_t)(i * 7919);
}

static void close_chooser(struct chooser *c) {
    device_free(cpu.device, c->seen);
    device_free(cpu.device, c->a.counts);
}

static emulate_function *count_emulated, *next_emulated;

/* Both backends choose the same and leave the same, step after step; the first row's last token. */
static int32_t check_sample(const uint16_t *logits, int rows, int width, int limit, int steps) {
    struct chooser found, expected;
    struct device_grid count, next;
    open_chooser(&found, logits, rows, width, limit);
    open_chooser(&expected, logits, rows, width, limit);
    ops_sample_launch(&found.a, &count, &next);
    count.threads = next.threads = 64;
    count.blocks[0] = (unsigned)(limit + 8 * 64 - 1) / (8 * 64);
    for (int step = 0; step < steps; step++) {
        count_emulated(&found.a, &count, false, (unsigned)step);
        next_emulated(&found.a, &next, false, (unsigned)step);
        must(cpu.functions->sample(&cpu, &expected.a, &error));
        assert_memory_equal(found.sequences, expected.sequences, sizeof found.sequences);
        assert_memory_equal(found.ring, expected.ring, sizeof found.ring);
        assert_memory_equal(found.seen, expected.seen, SLOTS * ops_seen_bytes(width));
        for (int i = 0; i < rows * OPS_BINS; i++) assert_int_equal(found.a.counts[i], 0);
    }
    close_chooser(&found);
    close_chooser(&expected);
    return found.sequences[0].token;
}

/* Logits of many kinds; then more ids than one tree of sums has, most of them equal. */
static void sampling(void **state) {
    (void)state;
    enum { MANY = 300000 };
    const char *options = "-DCOUNT_THREADS=64 -DWARPS=2 -DBINS=65536 -DRING=4";
    void *libraries[2] = {
        emulation_load("decoder/sample.cu", "sample_count", "struct sample_arguments", options, &count_emulated),
        emulation_load("decoder/sample.cu", "sample_next", "struct sample_arguments", options, &next_emulated)};
    uint16_t *logits = halves(SLOTS * LOGITS, 8, 1), *many = poisoned(MANY * sizeof *many);
    for (int i = 0; i < LOGITS; i++) {
        logits[i] = (uint16_t)(i % 3 << 15 | (0x3c00 + i % 5)); /* neighbouring values, of many ids each */
        logits[3 * LOGITS + i] = i % 4 ? 0xbc00 : i % 8 ? 0 : 0x8000;
        if (i >= 1151) logits[LOGITS + i] = 0x7bff;
    }
    check_sample(logits, SLOTS, LOGITS, LOGITS, 2);
    check_sample(logits, 2, LOGITS, 1151, 2);
    logits[4 * LOGITS + 77] = 0xfc00;
    logits[LOGITS + 1151] = 0x7e00;
    check_sample(logits, 5, LOGITS, 1151, 1);
    for (int i = 0; i < MANY; i++) many[i] = i % 7 ? 0x3c00 : 0x3800;
    assert_true(check_sample(many, 1, MANY, MANY - 3, 1) > 1 << 18);
    for (int i = 0; i < 2; i++) dlclose(libraries[i]);
    device_free(cpu.device, logits);
    device_free(cpu.device, many);
}

/* --- scores --- */

/* log(softmax) of the targets in double, over the first `limit` logits. */
static double expected_score(const uint16_t *logits, int limit, int target) {
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < limit; i++) most = fmax(most, half_to_float(logits[i]));
    for (int i = 0; i < limit; i++) sum += exp(half_to_float(logits[i]) - most);
    return half_to_float(logits[target]) - most - log(sum);
}

/* Beyond the limit lie larger logits, which count for nothing; a NaN shows. */
static void scores(void **state) {
    (void)state;
    enum { ROWS = 6, LIMIT = 1151 };
    static const int32_t targets[ROWS] = {0, 1, 63, 64, 1150, 700};
    emulate_function *emulate;
    void *library = load_op("score", "struct score_arguments", &emulate);
    uint16_t *logits = halves(ROWS * LOGITS, 20, 1);
    double found[2][ROWS];
    for (int row = 0; row < ROWS; row++)
        for (int i = LIMIT; i < LOGITS; i++) logits[row * LOGITS + i] = 0x7bff;
    logits[3 * LOGITS + 1000] = half_from_float(60); /* the others are next to nothing beside it */
    logits[5 * LOGITS + 1000] = 0x7e00;
    struct ops_score a = {logits, targets, found[0], ROWS, LOGITS, LIMIT}, b = a;
    b.scores = found[1];
    emulate(&a, &(struct device_grid){.blocks = {ROWS, 1, 1}, .threads = 64}, false, 1);
    must(cpu.functions->score(&cpu, &b, &error));
    for (int i = 0; i < 2 * ROWS; i++) {
        int row = i % ROWS;
        double expected = expected_score(logits + row * LOGITS, LIMIT, targets[row]), score = found[i / ROWS][row];
        if (row == 5 ? !isnan(score) : !(fabs(score - expected) <= 1e-6 * (1 + fabs(expected))))
            fail_msg("row %d: %g, not %g", row, score, expected);
    }
    device_free(cpu.device, logits);
    dlclose(library);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(attend_one_sequence),
        cmocka_unit_test(attend_batches),
        cmocka_unit_test(attend_alone),
        cmocka_unit_test_setup_teardown(attend_codes, use_fp8, use_fp16),
        cmocka_unit_test(splits_fit_their_buffers),
        cmocka_unit_test(attention_of_chunks),
        cmocka_unit_test(attention_of_large_scores),
        cmocka_unit_test_setup_teardown(attention_of_codes, use_fp8, use_fp16),
        cmocka_unit_test(rotations),
        cmocka_unit_test_setup_teardown(rotations, use_fp8, use_fp16),
        cmocka_unit_test(norms),
        cmocka_unit_test(embeddings),
        cmocka_unit_test(argmax),
        cmocka_unit_test(sampling),
        cmocka_unit_test(scores),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
