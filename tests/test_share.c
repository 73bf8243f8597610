/* Several devices that share a model, on the CPU: what they tell each other, and that they choose what one would. */
#include <sys/wait.h>

#include "bench/decoder/load.h"
#include "bench/decoder/synthetic.h"
#include "kernels/half.h"
#include "tests/golden.h"
#include "tests/model_dir.h"

/* With four ranks the last has no id of its own, with two the second has fewer than the first. */
enum { VOCAB = 180, CONTEXT = 96, BATCH = 3, PROMPT = 21, NEW = 12, REQUESTS = 7 };

static const struct model_config shape = {.hidden = 256,
                                          .intermediate = 512,
                                          .layers = 2,
                                          .heads = 8,
                                          .kv_heads = 4,
                                          .head_dim = 64,
                                          .vocab = VOCAB,
                                          .max_position = CONTEXT,
                                          .rms_eps = 1e-6,
                                          .rope_theta = 1e4,
                                          .dtype = "float16",
                                          .temperature = 1,
                                          .top_p = 1,
                                          .repetition_penalty = 1};

static char directory[64];

static void make_model(enum quant_method quant, bool tied) {
    struct synthetic_options options = {.config = shape, .seed = 4, .directory = directory};
    struct error error = {""};
    options.config.quant = quant;
    options.config.group = quant == QUANT_NONE ? 0 : 128;
    options.config.symmetric = quant == QUANT_GPTQ;
    options.config.tied = tied;
    model_dir_remove(directory);
    must(synthetic_write(&options, &error), &error);
}

/* A model of the directory, shared by so many. */
struct shared {
    struct communicator *communicator;
    struct model_config config;
    struct checkpoint *checkpoint;
    struct model *model;
};

static int open_shared(struct shared *s, enum method method, int ranks, struct error *error) {
    struct model_options options = {
        .method = method, .context = CONTEXT, .sequences = BATCH, .samples = golden_samples, .scored = 5, .chunk = 16};
    *s = (struct shared){0};
    must(communicator_open("cpu", ranks, &s->communicator, error), error);
    must(model_config_read(directory, &s->config, error), error);
    must(checkpoint_open(directory, &s->checkpoint, error), error);
    options.communicator = s->communicator;
    return model_create(s->communicator->devices[0], &s->config, s->checkpoint, &options, &s->model, error);
}

static void close_shared(struct shared *s) {
    model_destroy(s->model);
    checkpoint_close(s->checkpoint);
    communicator_close(s->communicator);
}

/* --- what they tell each other --- */

static void parts_are_added_in_the_order_of_ranks(void **state) {
    (void)state;
    /* In fp32 and in this order the last one is not lost; by pairs of fp16 it would be. */
    const float parts[3][2] = {{60000, 1}, {-60000, 0x1p-11f}, {0x1p-10f, 0x1p-11f}};
    uint16_t words[3][2], *buffers[3];
    struct communicator *c;
    struct error error = {""};
    must(communicator_open("cpu", 3, &c, &error), &error);
    assert_int_equal(c->count, 3);
    for (int rank = 0; rank < 3; rank++) {
        buffers[rank] = words[rank];
        for (int i = 0; i < 2; i++) words[rank][i] = half_from_float(parts[rank][i]);
    }
    must(all_reduce(c, buffers, 2, &error), &error);
    for (int rank = 0; rank < 3; rank++) {
        assert_float_equal(half_to_float(words[rank][0]), 0x1p-10f, 0);
        assert_float_equal(half_to_float(words[rank][1]), 1 + 0x1p-10f, 0);
    }
    communicator_close(c);
}

static void rows_are_put_side_by_side(void **state) {
    (void)state;
    uint16_t parts[2][6] = {{1, 2, 3, 4, 5, 6}, {11, 12, 13, 14, 15, 16}}, all[2][12], *from[2], *to[2];
    const uint16_t expected[12] = {1, 2, 11, 12, 3, 4, 13, 14, 5, 6, 15, 16};
    struct communicator *c;
    struct error error = {""};
    must(communicator_open("cpu", 2, &c, &error), &error);
    for (int rank = 0; rank < 2; rank++) {
        from[rank] = parts[rank];
        to[rank] = all[rank];
    }
    must(all_gather(c, from, to, 3, 2, &error), &error);
    for (int rank = 0; rank < 2; rank++) assert_memory_equal(all[rank], expected, sizeof expected);
    communicator_close(c);
}

/* --- what each of them has --- */

static void tensors_are_cut_on_either_side(void **state) {
    (void)state;
    int16_t numbers[4][6];
    for (int i = 0; i < 24; i++) numbers[i / 6][i % 6] = (int16_t)i;
    const struct tensor whole = {.data = numbers, .bytes = sizeof numbers};
    const int16_t columns[4][2] = {{2, 3}, {8, 9}, {14, 15}, {20, 21}};
    struct tensor part;
    struct error error = {""};
    void *room = NULL;
    must(share_tensor(&(struct share){1, 2}, &whole, SHARE_ROWS, 2, &part, &room, &error), &error);
    assert_ptr_equal(part.data, numbers[2]);
    assert_int_equal(part.bytes, sizeof numbers / 2);
    must(share_tensor(&(struct share){1, 3}, &whole, SHARE_COLUMNS, 4, &part, &room, &error), &error);
    assert_int_equal(part.bytes, sizeof columns);
    assert_memory_equal(part.data, columns, sizeof columns);
    must(share_tensor(&(struct share){1, 2}, &whole, SHARE_NOTHING, 4, &part, &room, &error), &error);
    assert_ptr_equal(part.data, numbers);
    assert_int_equal(part.bytes, sizeof numbers);
    free(room);
}

static void numbers_of_devices_are_checked(void **state) {
    (void)state;
    struct model_config config;
    struct error error = {""};
    must(model_config_named("qwen2.5-14b", &config, &error), &error);
    config.quant = QUANT_AWQ;
    config.group = 128;
    must(weights_check(&config, METHOD_AWQ_MARLIN, 4, &error), &error);
    assert_int_equal(weights_check(&config, METHOD_AWQ_MARLIN, 3, &error), -1);
    assert_says(error.text, "--tp 3|40 heads, 8 key-value heads|13824|accepted for this model: 1, 2, 4");
    assert_int_equal(weights_check(&config, METHOD_AWQ_MARLIN, 8, &error), -1);
    assert_says(error.text, "--tp 8|down matrix|K=1728|accepted for this model: 1, 2, 4");
    assert_null(strstr(error.text, "4, 8"));
    config.quant = QUANT_NONE;
    must(weights_check(&config, METHOD_NONE, 8, &error), &error);
    assert_int_equal(weights_check(&config, METHOD_NONE, 16, &error), -1);
    config.hidden = 100;
    assert_int_equal(weights_check(&config, METHOD_NONE, 2, &error), -1);
    assert_null(strstr(error.text, "accepted for this model"));
}

/* Weights and cache of one of four are a quarter, but for norms and what rounds the head up. */
static void each_has_a_part_of_everything(void **state) {
    (void)state;
    struct shared one, four;
    struct error error = {""};
    make_model(QUANT_NONE, false);
    must(open_shared(&one, METHOD_NONE, 1, &error), &error);
    must(open_shared(&four, METHOD_NONE, 4, &error), &error);
    struct model_memory all = model_memory(one.model), part = model_memory(four.model);
    assert_in_range(4 * part.weights, all.weights, all.weights + 64 * 256 * 2 + 4 * 8192);
    assert_int_equal(4 * part.kv, all.kv);
    assert_int_equal(part.kv_tokens, all.kv_tokens);
    assert_int_equal(part.embedding, all.embedding);
    double bytes = model_bytes_per_step(one.model, 50) - 4 * model_bytes_per_step(four.model, 50);
    assert_true(fabs(bytes) < 64 * 256 * 2 * 4);
    close_shared(&four);
    close_shared(&one);
}

/* --- tokens --- */

static void fill_prompt(int which, int *ids, int count) {
    for (int i = 0; i < count; i++) ids[i] = (i * 37 + which * 59 + 5) % VOCAB;
}

/* Prompts of their own lengths in sequences of another order, then steps, two under way. */
static void run_batch(struct model *model, float logits[VOCAB], int tokens[NEW][BATCH]) {
    int prompt[PROMPT], ids[BATCH], positions[BATCH], sequences[BATCH] = {2, 0, 1};
    struct error error = {""};
    double seconds;
    for (int i = 0; i < BATCH; i++) {
        positions[i] = PROMPT - 4 * i;
        fill_prompt(i, prompt, positions[i]);
        must(model_forward(model, sequences[i], prompt, positions[i], 0, i ? NULL : logits, &error), &error);
        ids[i] = i + 7;
    }
    must(model_begin(model, sequences, ids, positions, BATCH, &error), &error);
    must(model_step(model, &error), &error);
    for (int step = 0; step < NEW; step++) {
        if (step + 1 < NEW) must(model_step(model, &error), &error);
        must(model_take(model, tokens[step], &seconds, &error), &error);
        assert_true(seconds > 0);
    }
}

static struct requests make_requests(void) {
    struct requests requests = {.path = "made up", .count = REQUESTS};
    requests.list = calloc(REQUESTS, sizeof *requests.list);
    for (int i = 0; i < REQUESTS; i++) {
        struct request *r = &requests.list[i];
        *r = (struct request){.line = i + 1, .prompt_count = 3 + 5 * i % 17, .max_tokens = 2 + 3 * i % 7};
        r->prompt = malloc((size_t)r->prompt_count * sizeof *r->prompt);
        fill_prompt(i, r->prompt, r->prompt_count);
    }
    return requests;
}

/* Requests that join and leave. */
static struct requests run_requests(struct shared *s) {
    static const volatile sig_atomic_t never;
    struct requests requests = make_requests();
    struct batch_figures figures;
    struct error error = {""};
    int ended = 0;
    const struct batch_options options = {.sampling = {.top_p = 1, .repetition_penalty = 1},
                                          .context = CONTEXT,
                                          .sequences = BATCH,
                                          .ignore_eos = true,
                                          .interrupted = &never};
    must(batch_run(s->model, &s->config, &options, &requests, golden_ended, &ended, &figures, &error), &error);
    assert_int_equal(figures.done, REQUESTS);
    return requests;
}

struct outcome {
    float logits[VOCAB];
    int tokens[NEW][BATCH];
    struct requests requests;
    double score;
};

static struct outcome outcome_of(enum method method, int ranks) {
    struct shared s;
    struct outcome outcome;
    struct error error = {""};
    int prompt[PROMPT];
    must(open_shared(&s, method, ranks, &error), &error);
    run_batch(s.model, outcome.logits, outcome.tokens);
    fill_prompt(9, prompt, PROMPT);
    must(model_score(s.model, prompt, PROMPT, &outcome.score, &error), &error);
    outcome.requests = run_requests(&s);
    close_shared(&s);
    return outcome;
}

static void check_outcomes(const struct outcome *a, const struct outcome *b, const char *what) {
    double off = relative_error(a->logits, b->logits, VOCAB);
    if (!(off <= GOLDEN_TOLERANCE)) fail_msg("%s: logits are off by %g", what, off);
    if (memcmp(a->tokens, b->tokens, sizeof a->tokens)) fail_msg("%s: other tokens in a batch", what);
    if (!(fabs(a->score - b->score) < 0.01)) fail_msg("%s: scores %g and %g", what, a->score, b->score);
    for (int i = 0; i < REQUESTS; i++) {
        const struct request *r = &a->requests.list[i], *other = &b->requests.list[i];
        assert_int_equal(r->count, other->count);
        if (memcmp(r->ids, other->ids, (size_t)r->count * sizeof *r->ids)) fail_msg("%s: request %d differs", what, i);
    }
}

static void check_method(enum method method) {
    struct outcome one = outcome_of(method, 1);
    for (int ranks = 2; ranks <= 4; ranks *= 2) {
        struct outcome shared = outcome_of(method, ranks);
        check_outcomes(&one, &shared, method_name(method));
        requests_free(&shared.requests);
    }
    requests_free(&one.requests);
}

static void none_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_NONE, false);
    check_method(METHOD_NONE);
}

static void a_tied_head_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_NONE, true);
    check_method(METHOD_NONE);
}

static void awq_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_AWQ, false);
    check_method(METHOD_AWQ);
    check_method(METHOD_AWQ_MARLIN);
}

static void gptq_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_GPTQ, false);
    check_method(METHOD_GPTQ);
    check_method(METHOD_GPTQ_MARLIN);
}

/* By the ops of sampling, which have state on each device: a step fails where ranks choose differently. */
static void samples_are_the_same_on_all(void **state) {
    (void)state;
    const struct sampling sampling = {.temperature = 1.5, .top_p = 0.9, .repetition_penalty = 1.2, .seed = 3};
    struct shared s;
    struct error error = {""};
    int prompt[PROMPT], id, position = PROMPT, token, others = 0;
    double seconds;
    golden_samples = true;
    make_model(QUANT_NONE, false);
    must(open_shared(&s, METHOD_NONE, 4, &error), &error);
    fill_prompt(0, prompt, PROMPT);
    must(model_prefill(s.model, 1, prompt, PROMPT, 0, &error), &error);
    must(model_sample(s.model, 1, &sampling, prompt, PROMPT, &error), &error);
    must(model_choose(s.model, 1, PROMPT - 1, &id, &error), &error);
    must(model_begin(s.model, (const int[]){1}, &id, &position, 1, &error), &error);
    for (int i = 0; i < NEW; i++, id = token) {
        must(model_step(s.model, &error), &error);
        must(model_take(s.model, &token, &seconds, &error), &error);
        assert_in_range(token, 0, VOCAB - 1);
        others += token != id;
    }
    assert_true(others > NEW / 2);
    close_shared(&s);
    golden_samples = false;
}

/* --- failures --- */

/* Where the tensor's bytes begin in the file. */
static long find_bytes(const char *path, const char *name) {
    uint64_t length = 0;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(&length, 8, 1, file), 1);
    json_t *header = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL);
    json_t *offsets = json_object_get(json_object_get(header, name), "data_offsets");
    assert_int_equal(json_array_size(offsets), 2);
    long at = 8 + (long)length + (long)json_integer_value(json_array_get(offsets, 0));
    json_decref(header);
    fclose(file);
    return at;
}

static void a_rank_that_fails_ends_all(void **state) {
    (void)state;
    const float beyond = 1e6f;
    struct shared s;
    struct error error = {""};
    struct synthetic_options options = {.config = shape, .directory = directory};
    char path[96];
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    strcpy(options.config.dtype, "bfloat16");
    model_dir_remove(directory);
    must(synthetic_write(&options, &error), &error);
    FILE *file = fopen(path, "r+b");
    assert_int_equal(fseek(file, find_bytes(path, "model.layers.1.mlp.down_proj.weight") + 2 * 300, SEEK_SET), 0);
    assert_int_equal(fwrite((const char *)&beyond + 2, 2, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(open_shared(&s, METHOD_NONE, 4, &error), -1);
    assert_says(error.text, "rank 2 (cpu)|down_proj|beyond fp16");
    close_shared(&s);
}

/* --- the command --- */

static int decode(const char *arguments, char *text, size_t size) {
    char command[1024];
    snprintf(command, sizeof command, "%s decode --device cpu --model %s %s 2>&1", getenv("TILEBOOK"), directory,
             arguments);
    FILE *out = popen(command, "r");
    assert_non_null(out);
    text[fread(text, 1, size - 1, out)] = 0;
    int status = pclose(out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define IDS " --prompt-ids 3,1,4,1,5 -n 8 --temperature 0 --json"

static void decode_takes_tp(void **state) {
    (void)state;
    char one[32768], two[32768];
    make_model(QUANT_AWQ, false);
    assert_int_equal(decode(IDS, one, sizeof one), 0);
    assert_int_equal(decode("--tp 2" IDS, two, sizeof two), 0);
    json_t *alone = json_loads(one, 0, NULL), *shared = json_loads(two, 0, NULL);
    assert_true(json_equal(json_object_get(alone, "ids"), json_object_get(shared, "ids")));
    assert_int_equal(json_integer_value(json_object_get(alone, "tp")), 1);
    assert_int_equal(json_integer_value(json_object_get(shared, "tp")), 2);
    json_decref(alone);
    json_decref(shared);
    if (decode("--tp 4 --bench --ctx 24 -n 4", one, sizeof one)) fail_msg("%s", one);
    assert_says(one, "shared   by 4 devices|tok/s|k=128 n=256");
    if (decode("--tp 2 --profile --ctx 24 -n 6", one, sizeof one)) fail_msg("%s", one);
    if (decode("--tp 2 --report -q awq --ctx 24 -n 4", one, sizeof one)) fail_msg("%s", one);
    assert_says(one, "Shared by 2 devices (--tp)");
    if (decode("--tp 2 --in-memory --bench --ctx 24 -n 4", one, sizeof one)) fail_msg("%s", one);
    assert_int_equal(decode("--tp 3 --bench --ctx 24 -n 4", one, sizeof one), 1);
    assert_says(one, "--tp 3|accepted for this model: 1, 2, 4");
    assert_int_equal(decode("--tp 0 --bench", one, sizeof one), 2);
}

static int set_up(void **state) {
    (void)state;
    model_dir_make(directory);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    model_dir_remove(directory);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_added_in_the_order_of_ranks),
        cmocka_unit_test(rows_are_put_side_by_side),
        cmocka_unit_test(tensors_are_cut_on_either_side),
        cmocka_unit_test(numbers_of_devices_are_checked),
        cmocka_unit_test(each_has_a_part_of_everything),
        cmocka_unit_test(none_gives_the_same_tokens),
        cmocka_unit_test(a_tied_head_gives_the_same_tokens),
        cmocka_unit_test(awq_gives_the_same_tokens),
        cmocka_unit_test(gptq_gives_the_same_tokens),
        cmocka_unit_test(samples_are_the_same_on_all),
        cmocka_unit_test(a_rank_that_fails_ends_all),
        cmocka_unit_test(decode_takes_tp),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
