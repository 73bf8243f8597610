/* The tiny checkpoints beside what transformers says of them (tests/fixtures/README.md), for the decoder's suites. */
#ifndef TILEBOOK_TESTS_GOLDEN_H
#define TILEBOOK_TESTS_GOLDEN_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "bench/decoder/batch.h"
#include "bench/decoder/model.h"

#define FIXTURES "tests/fixtures/"

/* Measured on the CPU: 2e-4 to 7e-4, from fp16 activations. */
#define GOLDEN_TOLERANCE 2e-3

enum { GOLDEN_IDS = 512, GOLDEN_VOCAB = 1152, GOLDEN_BATCH = 17, GOLDEN_REQUESTS = 25 };

/* Prompts of each variant that are checked; a slow tool that watches the suite may set fewer. */
static size_t golden_prompts = SIZE_MAX;

/* Whether subjects choose by the ops of sampling, greedily as long as nobody says otherwise. */
static bool golden_samples;

/* What their KV cache holds. */
static enum kv_type golden_kv;

/* A checkpoint opened for one method. */
struct subject {
    struct device *device;
    struct model_config config;
    struct checkpoint *checkpoint;
    struct model *model;
};

static inline void must(int status, const struct error *error) {
    if (status) fail_msg("%s", error->text);
}

/* The model of what is open. */
static inline void subject_create(struct subject *s, enum method method, int chunk, const struct tile_table *table,
                                  int pages) {
    struct error error = {""};
    struct model_options options = {.method = method,
                                    .context = GOLDEN_IDS,
                                    .kv = golden_kv,
                                    .sequences = GOLDEN_BATCH,
                                    .pages = pages,
                                    .samples = golden_samples,
                                    .scored = 5,
                                    .chunk = chunk,
                                    .table = table};
    must(model_create(s->device, &s->config, s->checkpoint, &options, &s->model, &error), &error);
}

/* With so many pages of KV cache; 0: as many as all sequences can fill. */
static inline void subject_open_pages(struct subject *s, const char *device, const char *name, enum method method,
                                      int chunk, const struct tile_table *table, int pages) {
    struct error error = {""};
    char path[128];
    snprintf(path, sizeof path, FIXTURES "%s", name);
    *s = (struct subject){0};
    must(device_open(device, &s->device, &error), &error);
    must(model_config_read(path, &s->config, &error), &error);
    must(checkpoint_open(path, &s->checkpoint, &error), &error);
    subject_create(s, method, chunk, table, pages);
}

static inline void subject_open(struct subject *s, const char *device, const char *name, enum method method, int chunk,
                                const struct tile_table *table) {
    subject_open_pages(s, device, name, method, chunk, table, 0);
}

static inline void subject_close(struct subject *s) {
    model_destroy(s->model);
    checkpoint_close(s->checkpoint);
    device_close(s->device);
}

/* The entries of one variant. */
static inline json_t *golden_entries(const char *name, json_t **root) {
    *root = json_load_file(FIXTURES "tiny-qwen2-golden.json", 0, NULL);
    assert_non_null(*root);
    json_t *entries = json_object_get(json_object_get(*root, "variants"), name);
    assert_true(json_array_size(entries) > 0);
    return entries;
}

static inline int golden_ids(const json_t *entry, const char *key, int *ids) {
    const json_t *array = json_object_get(entry, key);
    size_t count = json_array_size(array);
    assert_in_range(count, 1, GOLDEN_IDS);
    for (size_t i = 0; i < count; i++) ids[i] = (int)json_integer_value(json_array_get(array, i));
    return (int)count;
}

static inline void golden_logits(const json_t *entry, float *logits) {
    FILE *file = fopen(FIXTURES "tiny-qwen2-golden.f32", "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 4 * (long)json_integer_value(json_object_get(entry, "logits_offset")), SEEK_SET), 0);
    assert_int_equal(fread(logits, sizeof *logits, GOLDEN_VOCAB, file), GOLDEN_VOCAB);
    fclose(file);
}

/* ||a - b|| / ||b|| */
static inline double relative_error(const float *a, const float *b, int count) {
    double difference = 0, norm = 0;
    for (int i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / norm);
}

static inline int best(const float *logits) {
    int id = 0;
    for (int i = 1; i < GOLDEN_VOCAB; i++)
        if (logits[i] > logits[id]) id = i;
    return id;
}

/* The prompt's logits are near transformers', and every greedy token is the same. */
static inline void golden_check_entry(struct subject *s, const json_t *entry) {
    static float logits[GOLDEN_VOCAB], expected[GOLDEN_VOCAB];
    int prompt[GOLDEN_IDS], greedy[GOLDEN_IDS];
    int count = golden_ids(entry, "prompt_ids", prompt), more = golden_ids(entry, "greedy_ids", greedy);
    struct error error = {""};
    must(model_forward(s->model, 0, prompt, count, 0, logits, &error), &error);
    golden_logits(entry, expected);
    double off = relative_error(logits, expected, GOLDEN_VOCAB);
    if (!(off <= GOLDEN_TOLERANCE)) fail_msg("logits of a prompt of %d tokens are off by %g", count, off);
    for (int i = 0; i < more; i++) {
        if (best(logits) != greedy[i]) fail_msg("token %d after %d: %d, not %d", i, count, best(logits), greedy[i]);
        must(model_forward(s->model, 0, &greedy[i], 1, count + i, logits, &error), &error);
    }
}

/* The score that one more token adds to a prompt's is the logarithm of its probability by transformers' logits, for
 * likely and unlikely tokens, to what logits that are off by GOLDEN_TOLERANCE allow. */
static inline void golden_check_scores_of(struct subject *s, const json_t *entry) {
    static float expected[GOLDEN_VOCAB];
    int ids[GOLDEN_IDS + 1], greedy[GOLDEN_IDS], count = golden_ids(entry, "prompt_ids", ids);
    double alone, more, sum = 0, norm = 0;
    struct error error = {""};
    golden_ids(entry, "greedy_ids", greedy);
    golden_logits(entry, expected);
    float most = expected[best(expected)];
    for (int i = 0; i < GOLDEN_VOCAB; i++) {
        sum += exp((double)expected[i] - most);
        norm += (double)expected[i] * expected[i];
    }
    must(model_score(s->model, ids, count, &alone, &error), &error);
    for (int i = 0; i < 4; i++) {
        ids[count] = i ? i * 331 % GOLDEN_VOCAB : greedy[0];
        double right = (double)expected[ids[count]] - most - log(sum);
        must(model_score(s->model, ids, count + 1, &more, &error), &error);
        if (!(fabs(more - alone - right) <= 0.1 * GOLDEN_TOLERANCE * sqrt(norm)))
            fail_msg("token %d behind %d: %g, not %g", ids[count], count, more - alone, right);
    }
}

/* Row i of `count` has the prompt of entry i, in some sequence of the model, and goes on from its first token; all
 * greedy tokens are transformers', each row as far as it has some, two steps under way at a time. */
static inline void golden_check_batch(struct subject *s, const json_t *entries, int count) {
    int prompt[GOLDEN_IDS], ids[GOLDEN_BATCH] = {0}, positions[GOLDEN_BATCH] = {0}, greedy[GOLDEN_BATCH][GOLDEN_IDS];
    int sequences[GOLDEN_BATCH] = {0}, more[GOLDEN_BATCH], most = 0, under_way = 0;
    struct error error = {""};
    double seconds;
    for (int i = 0; i < count; i++) {
        const json_t *entry = json_array_get(entries, (size_t)i % json_array_size(entries));
        more[i] = golden_ids(entry, "greedy_ids", greedy[i]);
        positions[i] = golden_ids(entry, "prompt_ids", prompt);
        ids[i] = greedy[i][0];
        sequences[i] = (5 * i + 3) % GOLDEN_BATCH;
        if (more[i] > most) most = more[i];
        must(model_forward(s->model, sequences[i], prompt, positions[i], 0, NULL, &error), &error);
    }
    must(model_begin(s->model, sequences, ids, positions, count, &error), &error);
    for (int step = 1; step < most; step++) {
        for (; under_way < 2 && step + under_way < most; under_way++) must(model_step(s->model, &error), &error);
        must(model_take(s->model, ids, &seconds, &error), &error);
        under_way--;
        assert_true(seconds > 0);
        for (int i = 0; i < count; i++)
            if (step < more[i] && ids[i] != greedy[i][step])
                fail_msg("batch of %d, row %d, token %d: %d, not %d", count, i, step, ids[i], greedy[i][step]);
    }
}

/* Releases all sequences of a model that has `count`, in an order that leaves the free pages in none. */
static inline void golden_scatter(struct model *model, int count, int context) {
    struct error error = {""};
    int jumps = 0, pitch = pages_pitch(model_pages(model));
    for (int i = 0; i < count; i++) must(model_reserve(model, i, context * (i % 3 + 1) / 4, &error), &error);
    for (int i = 0; i < count; i++) model_release(model, (5 * i + 3) % count);
    must(model_reserve(model, 0, context, &error), &error);
    const int32_t *list = pages_list(model_pages(model), 0);
    for (int i = 1; i < pitch; i++) jumps += list[i] != list[i - 1] + 1;
    assert_true(pitch == 1 || jumps > 1);
}

static inline void golden_check_steps(const char *device, const char *name, enum method method) {
    struct subject subject;
    json_t *root, *entries = golden_entries(name, &root);
    subject_open(&subject, device, name, method, 512, NULL);
    golden_check_batch(&subject, entries, 1);
    if (golden_prompts > 1) {
        golden_check_batch(&subject, entries, 3);
        golden_check_batch(&subject, entries, GOLDEN_BATCH);
        golden_scatter(subject.model, GOLDEN_BATCH, GOLDEN_IDS);
        golden_check_batch(&subject, entries, 3);
    }
    subject_close(&subject);
    json_decref(root);
}

/* Every prompt `times` times, each wanting another share of its golden tokens. */
static inline struct requests golden_requests(const json_t *entries, int times) {
    int prompt[GOLDEN_IDS], greedy[GOLDEN_IDS], all = (int)json_array_size(entries);
    int kinds = (size_t)all < golden_prompts ? all : (int)golden_prompts, count = kinds * times;
    assert_in_range(count, 1, GOLDEN_REQUESTS);
    struct requests requests = {.path = "golden", .count = count};
    requests.list = calloc(GOLDEN_REQUESTS, sizeof *requests.list);
    for (int i = 0; i < count; i++) {
        const json_t *entry = json_array_get(entries, (size_t)(i % kinds));
        struct request *r = &requests.list[i];
        *r = (struct request){.line = i + 1, .prompt_count = golden_ids(entry, "prompt_ids", prompt)};
        r->max_tokens = golden_ids(entry, "greedy_ids", greedy) * ((i + i / kinds) % times + 1) / times;
        r->prompt = malloc((size_t)r->prompt_count * sizeof *r->prompt);
        memcpy(r->prompt, prompt, (size_t)r->prompt_count * sizeof *r->prompt);
    }
    return requests;
}

/* What request i has are transformers' tokens. */
static inline void golden_check_reply(const struct request *r, int i, const json_t *entries) {
    int greedy[GOLDEN_IDS];
    size_t kinds = json_array_size(entries) < golden_prompts ? json_array_size(entries) : golden_prompts;
    golden_ids(json_array_get(entries, (size_t)i % kinds), "greedy_ids", greedy);
    for (int token = 0; token < r->count; token++)
        if (r->ids[token] != greedy[token])
            fail_msg("request %d, token %d: %d, not %d", i, token, r->ids[token], greedy[token]);
}

static inline int golden_ended(void *context, struct error *error) {
    (void)error;
    ++*(int *)context;
    return 0;
}

/* Requests that join and leave at different times, `sequences` at once, have the tokens that each has alone, and leave
 * no page taken; how many had to wait for pages. */
static inline int golden_check_joining(struct subject *s, const json_t *entries, int sequences, int times) {
    static const volatile sig_atomic_t never;
    struct error error = {""};
    struct batch_figures figures;
    struct requests requests = golden_requests(entries, times);
    int ended = 0, tokens = 0;
    const struct batch_options options = {.sampling = {.top_p = 1, .repetition_penalty = 1},
                                          .context = GOLDEN_IDS,
                                          .sequences = sequences,
                                          .interrupted = &never};
    must(batch_run(s->model, &s->config, &options, &requests, golden_ended, &ended, &figures, &error), &error);
    for (int i = 0; i < requests.count; i++) {
        const struct request *r = &requests.list[i];
        golden_check_reply(r, i, entries);
        assert_int_equal(r->count, r->max_tokens);
        assert_non_null(r->stop);
        assert_true(r->first_seconds > 0);
        tokens += r->count;
    }
    assert_int_equal(ended, requests.count);
    assert_int_equal(figures.done, requests.count);
    assert_int_equal(figures.tokens, tokens);
    assert_true(figures.steps * sequences >= tokens && figures.steps <= tokens);
    assert_int_equal(pages_free(model_pages(s->model)), pages_count(model_pages(s->model)));
    requests_free(&requests);
    return figures.held;
}

/* The same with hardly more pages than the longest request needs: they go from hand to hand. */
static inline void golden_check_sharing(const char *device, const char *name, enum method method) {
    struct subject subject;
    struct error error = {""};
    json_t *root, *entries = golden_entries(name, &root);
    int times = golden_prompts > 1 ? 3 : 5;
    struct requests requests = golden_requests(entries, times);
    int least, most = batch_pages(&requests, GOLDEN_IDS, GOLDEN_BATCH, &least, &error);
    assert_true(least > 0 && most > 2 * least + 1);
    subject_open_pages(&subject, device, name, method, 512, NULL, least);
    assert_true(golden_check_joining(&subject, entries, GOLDEN_BATCH, times) > 0);
    subject_close(&subject);
    subject_open_pages(&subject, device, name, method, 512, NULL, 2 * least + 1);
    assert_true(golden_check_joining(&subject, entries, GOLDEN_BATCH, times) > 0);
    assert_true(golden_check_joining(&subject, entries, 1, 1) == 0);
    subject_close(&subject);
    subject_open_pages(&subject, device, name, method, 512, NULL, most);
    assert_true(golden_check_joining(&subject, entries, GOLDEN_BATCH, times) == 0);
    subject_close(&subject);
    requests_free(&requests);
    json_decref(root);
}

static inline void golden_check_batches(const char *device, const char *name, enum method method) {
    struct subject subject;
    json_t *root, *entries = golden_entries(name, &root);
    subject_open(&subject, device, name, method, 7, NULL);
    golden_check_joining(&subject, entries, 3, 3);
    if (golden_prompts > 1) {
        golden_check_joining(&subject, entries, 1, 1);
        golden_check_joining(&subject, entries, GOLDEN_BATCH, 5);
    }
    subject_close(&subject);
    json_decref(root);
}

/* A model of random weights with five query heads a key head of 128 elements, as the 14B has them, and its steps behind
 * a prompt of `count` tokens: each token has, but for rounding, the largest of the logits that one call a token gives.
 */
static inline void golden_check_long(const char *device_id, int count) {
    enum { STEPS = 20 };
    static float logits[GOLDEN_VOCAB];
    struct error error = {""};
    struct device *device;
    struct model *model;
    struct model_config config;
    int *prompt = malloc((size_t)count * sizeof *prompt), ids[STEPS + 1];
    double seconds;
    must(device_open(device_id, &device, &error), &error);
    must(model_config_read(FIXTURES "tiny-qwen2", &config, &error), &error);
    config.heads = 10, config.kv_heads = 2, config.head_dim = 128, config.hidden = 1280;
    config.max_position = count + STEPS;
    struct model_options options = {.method = METHOD_NONE,
                                    .context = count + STEPS,
                                    .kv = golden_kv,
                                    .sequences = 2,
                                    .chunk = 512,
                                    .synthetic = true,
                                    .seed = 1};
    must(model_create(device, &config, NULL, &options, &model, &error), &error);
    golden_scatter(model, 2, count + STEPS);
    for (int i = 0; i < count; i++) prompt[i] = i * 7919 % GOLDEN_VOCAB;
    must(model_forward(model, 0, prompt, count, 0, logits, &error), &error);
    ids[0] = best(logits);
    must(model_begin(model, NULL, ids, &count, 1, &error), &error);
    for (int i = 0; i < STEPS; i++) {
        must(model_step(model, &error), &error);
        must(model_take(model, &ids[i + 1], &seconds, &error), &error);
    }
    assert_int_equal(model_step(model, &error), -1); /* there is no room left */
    for (int i = 0; i < STEPS; i++) {
        must(model_forward(model, 0, &ids[i], 1, count + i, logits, &error), &error);
        float most = logits[best(logits)];
        if (!(logits[ids[i + 1]] >= most - 2e-3f * fabsf(most)))
            fail_msg("step %d behind %d tokens chose %d of logit %g, the largest is %g of %d", i, count, ids[i + 1],
                     logits[ids[i + 1]], most, best(logits));
    }
    model_destroy(model);
    device_close(device);
    free(prompt);
}

static inline void golden_check_each(const char *device, const char *name, enum method method, int chunk,
                                     const struct tile_table *table, void (*check)(struct subject *, const json_t *)) {
    struct subject subject;
    json_t *root, *entry, *entries = golden_entries(name, &root);
    size_t index;
    subject_open(&subject, device, name, method, chunk, table);
    json_array_foreach(entries, index, entry) {
        if (index < golden_prompts) check(&subject, entry);
    }
    subject_close(&subject);
    json_decref(root);
}

static inline void golden_check(const char *device, const char *name, enum method method, int chunk,
                                const struct tile_table *table) {
    golden_check_each(device, name, method, chunk, table, golden_check_entry);
}

static inline void golden_check_scores(const char *device, const char *name, enum method method, int chunk) {
    golden_check_each(device, name, method, chunk, NULL, golden_check_scores_of);
}

/* --- a table that names other configurations than the built-in ones --- */

static inline void golden_row(struct tile_table *table, const struct device *device, const struct kernel *kernel, int k,
                              int n, int group, int m_low, int m_high) {
    struct problem problem = {kernel->op, m_high, n, k, group, kernel->op != OP_FP16_GEMM, EPILOGUE_NONE};
    struct config config, chosen;
    struct error why;
    must(config_default(device, kernel, &problem, &chosen, &why), &why);
    struct config first = chosen;
    for (long i = 0; i < config_space(kernel); i++) {
        config = config_at(kernel, i);
        if (memcmp(&config, &first, sizeof config) && !config_legal(device, kernel, &problem, &config, &why))
            chosen = config;
    }
    struct tile_row *row = &table->rows[table->count++];
    *row = (struct tile_row){
        .k = k, .n = n, .group = group, .m_low = m_low, .m_high = m_high, .us = 1, .gbs = 1, .default_us = 2};
    snprintf(row->op, sizeof row->op, "%s", op_name(kernel->op));
    kernel_full_name(kernel, row->kernel);
    config_text(kernel, &chosen, row->configuration);
}

/* All that the tiny models run, with the last legal configuration of the first kernel of each op; written to `path`
 * and read back. */
static inline void golden_table(const char *device_id, const char *path, struct tile_table *table) {
    static const int shapes[][2] = {{256, 512}, {256, 256}, {256, 1280}, {640, 256}, {256, GOLDEN_VOCAB}};
    struct device *device;
    struct error error = {""};
    struct tile_table made = {.rows = calloc(64, sizeof(struct tile_row)), .regime = "test"};
    char message[TILES_MESSAGE];
    must(device_open(device_id, &device, &error), &error);
    snprintf(made.device, sizeof made.device, "%s", device->name);
    snprintf(made.architecture, sizeof made.architecture, "%s", device->architecture);
    snprintf(made.software, sizeof made.software, "%s", device->software);
    snprintf(made.kernels, sizeof made.kernels, "%s", device->kernels);
    made.multiprocessors = device->multiprocessors;
    for (int op = 0; op < OP_COUNT; op++) {
        const struct kernel *const *kernel = kernel_list();
        while ((*kernel)->op != (enum op)op || (*kernel)->backend != device->backend) kernel++;
        for (int i = 0; i < 5; i++) {
            int k = shapes[i][0], n = shapes[i][1], group = op == OP_FP16_GEMM ? 0 : 128;
            golden_row(&made, device, *kernel, k, n, group, 1, 1);
            if (op != OP_AWQ_DEQUANT) golden_row(&made, device, *kernel, k, n, group, 2, GOLDEN_IDS);
        }
    }
    device_close(device);
    if (tiles_write(path, &made, message) || tiles_read(path, table, message)) fail_msg("%s", message);
    free(made.rows);
}

/* Lines of model_print_plans that contain `word`; *all counts every line. */
static inline int golden_plans(const struct model *model, const char *word, int *all) {
    char *lines = NULL, *rest = NULL;
    size_t bytes;
    int found = 0;
    FILE *stream = open_memstream(&lines, &bytes);
    model_print_plans(model, stream);
    fclose(stream);
    *all = 0;
    for (char *line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), ++*all)
        if (strstr(line, word)) found++;
    free(lines);
    return found;
}

/* A table of other tiles is used where it has rows, and the tokens stay. */
static inline void golden_check_table(const char *device) {
    struct tile_table table;
    struct subject subject;
    struct error error = {""};
    char path[] = "/tmp/decode-table-XXXXXX";
    int all, id = 1;
    close(mkstemp(path));
    golden_table(device, path, &table);
    golden_check(device, "tiny-qwen2", METHOD_NONE, 512, &table);
    golden_check(device, "tiny-qwen2-awq", METHOD_AWQ, 512, &table);
    golden_check(device, "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, &table);
    subject_open(&subject, device, "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, &table);
    must(model_forward(subject.model, 0, &id, 1, 0, NULL, &error), &error);
    assert_int_equal(golden_plans(subject.model, " tuned", &all), 4);
    assert_int_equal(all, 4);
    subject_close(&subject);
    tiles_free(&table);
    unlink(path);
}

/* A model goes on with another table, or none, in the middle of its life: steps too, whose graphs were recorded. What
 * was prepared with either stays. */
static inline void golden_check_tables_by_turns(const char *device) {
    struct tile_table table;
    struct subject subject;
    struct error error = {""};
    json_t *root, *entries = golden_entries("tiny-qwen2-awq", &root);
    char path[] = "/tmp/decode-table-XXXXXX";
    int all;
    close(mkstemp(path));
    golden_table(device, path, &table);
    subject_open(&subject, device, "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, NULL);
    for (int turn = 0; turn < 4; turn++) {
        bool tuned = turn == 1 || turn == 2;
        if (turn) must(model_use(subject.model, tuned ? &table : NULL, &error), &error);
        int kept = golden_plans(subject.model, "", &all);
        assert_true(turn < 2 ? kept == 0 : kept >= 4);
        golden_check_batch(&subject, entries, 1);
        int these = golden_plans(subject.model, tuned ? " tuned" : " default", &all);
        assert_true(these == all && all >= 4);
    }
    subject_close(&subject);
    tiles_free(&table);
    json_decref(root);
    unlink(path);
}

#endif
