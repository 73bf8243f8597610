/* The decoder on the CPU: against transformers, against itself, and its command. */
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/decoder/perplexity.h"
#include "tests/golden.h"
#include "tests/model_dir.h"

#define PLAIN FIXTURES "tiny-qwen2"
#define AWQ FIXTURES "tiny-qwen2-awq"

/* --- against transformers --- */

static void none_gives_transformers_tokens(void **state) {
    (void)state;
    golden_check("cpu", "tiny-qwen2", METHOD_NONE, 512, NULL);
}

static void awq_gives_transformers_tokens(void **state) {
    (void)state;
    golden_check("cpu", "tiny-qwen2-awq", METHOD_AWQ, 512, NULL);
    golden_check("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, NULL);
}

static void gptq_gives_transformers_tokens(void **state) {
    (void)state;
    golden_check("cpu", "tiny-qwen2-gptq", METHOD_GPTQ, 512, NULL);
    golden_check("cpu", "tiny-qwen2-gptq", METHOD_GPTQ_MARLIN, 512, NULL);
}

static void desc_act_gives_transformers_tokens(void **state) {
    (void)state;
    golden_check("cpu", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ, 512, NULL);
    golden_check("cpu", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN, 512, NULL);
}

static void scores_are_transformers(void **state) {
    (void)state;
    golden_check_scores("cpu", "tiny-qwen2", METHOD_NONE, 512);
    golden_check_scores("cpu", "tiny-qwen2", METHOD_NONE, 3);
    golden_check_scores("cpu", "tiny-qwen2-awq", METHOD_AWQ, 512);
    golden_check_scores("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 7);
    golden_check_scores("cpu", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN, 512);
}

/* Chunks begin anew, and their first tokens are not counted. */
static void perplexity_is_of_chunks(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    struct perplexity p;
    int ids[50];
    double sums[3], bad;
    for (int i = 0; i < 50; i++) ids[i] = i * 7919 % GOLDEN_VOCAB;
    subject_open(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL);
    must(perplexity_measure(subject.model, ids, 50, 20, &p, &error), &error);
    for (int i = 0; i < 3; i++)
        must(model_score(subject.model, ids + 20 * i, i < 2 ? 20 : 10, &sums[i], &error), &error);
    assert_int_equal(p.counted, 47);
    assert_int_equal(p.chunks, 3);
    assert_float_equal(p.nats, -(sums[0] + sums[1] + sums[2]) / 47, 1e-9);
    assert_float_equal(p.perplexity / exp(p.nats), 1, 1e-9);
    must(perplexity_measure(subject.model, ids, 41, 20, &p, &error), &error);
    assert_int_equal(p.counted, 38); /* the third chunk is one token */
    assert_int_equal(perplexity_measure(subject.model, ids, 1, 20, &p, &error), -1);
    assert_non_null(strstr(error.text, "1 tokens"));
    ids[3] = GOLDEN_VOCAB;
    assert_int_equal(model_score(subject.model, ids, 20, &bad, &error), -1);
    assert_non_null(strstr(error.text, "vocab_size"));
    subject_close(&subject);
}

static void steps_give_transformers_tokens(void **state) {
    (void)state;
    golden_check_steps("cpu", "tiny-qwen2", METHOD_NONE);
    golden_check_steps("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_steps("cpu", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN);
}

/* Joining and leaving included. */
static void sampling_without_a_temperature_gives_them_too(void **state) {
    (void)state;
    golden_samples = true;
    golden_check_steps("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_batches("cpu", "tiny-qwen2", METHOD_NONE);
    golden_samples = false;
}

static void steps_choose_what_calls_would(void **state) {
    (void)state;
    golden_check_long("cpu", 127);
}

static void steps_check_their_input(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    int ids[2] = {1, GOLDEN_VOCAB}, positions[2] = {GOLDEN_IDS - 1, 0}, taken[GOLDEN_BATCH];
    double seconds;
    subject_open(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL);
    assert_int_equal(model_begin(subject.model, NULL, ids, positions, 2, &error), -1);
    assert_non_null(strstr(error.text, "vocab_size"));
    assert_int_equal(model_begin(subject.model, NULL, ids, positions, GOLDEN_BATCH + 1, &error), -1);
    assert_non_null(strstr(error.text, "18 sequences"));
    for (int i = 0; i < 2; i++) {
        int beyond = i ? GOLDEN_BATCH : -1;
        assert_int_equal(model_begin(subject.model, &beyond, ids, positions, 1, &error), -1);
        assert_non_null(strstr(error.text, "sequences"));
    }
    must(model_begin(subject.model, NULL, ids, positions, 1, &error), &error);
    assert_int_equal(model_take(subject.model, taken, &seconds, &error), -1);
    assert_non_null(strstr(error.text, "no step waits"));
    must(model_step(subject.model, &error), &error);
    assert_int_equal(model_step(subject.model, &error), -1);
    assert_non_null(strstr(error.text, "context of 512"));
    must(model_begin(subject.model, NULL, ids, positions + 1, 1, &error), &error);
    for (int i = 0; i < MODEL_STEPS; i++) must(model_step(subject.model, &error), &error);
    assert_int_equal(model_step(subject.model, &error), -1);
    assert_non_null(strstr(error.text, "4 steps wait"));
    subject_close(&subject);
}

/* A sequence runs as far as it has reserved; of a model with few pages not all sequences can have their context. */
static void sequences_keep_to_their_pages(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    int ids[65] = {1, 2, 3}, position = 63, taken;
    double seconds;
    subject_open_pages(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL, 9);
    must(model_reserve(subject.model, 1, 65, &error), &error);
    assert_int_equal(model_forward(subject.model, 0, ids, 1, 0, NULL, &error), -1);
    assert_non_null(strstr(error.text, "needs 8 pages"));
    assert_non_null(strstr(error.text, "7 of 9 are free"));
    must(model_forward(subject.model, 1, ids, 65, 0, NULL, &error), &error);
    assert_int_equal(model_forward(subject.model, 1, ids, 1, 65, NULL, &error), -1);
    assert_non_null(strstr(error.text, "the 65 that are reserved, in a context of 512"));
    must(model_begin(subject.model, (const int[]){1}, ids, &position, 1, &error), &error);
    for (int i = 0; i < 2; i++) {
        must(model_step(subject.model, &error), &error);
        must(model_take(subject.model, &taken, &seconds, &error), &error);
    }
    assert_int_equal(model_step(subject.model, &error), -1);
    assert_non_null(strstr(error.text, "position 65"));
    assert_int_equal(model_reserve(subject.model, 2, GOLDEN_IDS + 1, &error), -1);
    assert_int_equal(model_reserve(subject.model, GOLDEN_BATCH, 1, &error), -1);
    model_release(subject.model, 1);
    must(model_forward(subject.model, 0, ids, 1, 0, NULL, &error), &error);
    assert_int_equal(pages_reserved(model_pages(subject.model), 0), GOLDEN_IDS);
    subject_close(&subject);
}

/* A model of random weights that would like 100 pages, of 64 KiB each; whether as few as four do. */
static int open_limited(struct device *device, size_t limit, bool fewer, struct model **model, struct error *error) {
    static struct model_config config;
    must(model_config_read(PLAIN, &config, error), error);
    const struct model_options options = {.method = METHOD_NONE,
                                          .context = 512,
                                          .sequences = 30,
                                          .pages = 100,
                                          .least_pages = fewer ? 4 : 0,
                                          .kv_limit = limit,
                                          .synthetic = true};
    return model_create(device, &config, NULL, &options, model, error);
}

static void a_cache_takes_what_it_may(void **state) {
    (void)state;
    static const struct {
        size_t limit;
        int pages;
    } cases[] = {{0, 100}, {101 << 16, 100}, {(6 << 16) - 1, 5}, {4 << 16, 4}, {(4 << 16) - 1, 0}};
    struct device *device;
    struct model *model;
    struct error error = {""};
    must(device_open("cpu", &device, &error), &error);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(open_limited(device, cases[i].limit, true, &model, &error), cases[i].pages ? 0 : -1);
        if (!model) continue;
        assert_int_equal(pages_count(model_pages(model)), cases[i].pages);
        assert_int_equal(model_memory(model).kv, (size_t)cases[i].pages << 16);
        assert_int_equal(model_memory(model).kv_tokens, 64 * cases[i].pages);
        model_destroy(model);
    }
    assert_non_null(strstr(error.text, "needs 0.0002441 GiB"));
    must(open_limited(device, 1, false, &model, &error), &error);
    assert_int_equal(pages_count(model_pages(model)), 100);
    model_destroy(model);
    device_close(device);
}

static void chunks_do_not_matter(void **state) {
    (void)state;
    golden_check("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 1, NULL);
    golden_check("cpu", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN, 7, NULL);
}

/* --- against itself --- */

/* A place for the table; the caller unlinks it. */
static const char *table_path(void) {
    static char path[32];
    snprintf(path, sizeof path, "/tmp/decode-table-XXXXXX");
    close(mkstemp(path));
    return path;
}

static void a_table_changes_configurations_not_tokens(void **state) {
    (void)state;
    golden_check_table("cpu");
}

static void tables_take_turns(void **state) {
    (void)state;
    golden_check_tables_by_turns("cpu");
}

static void a_bad_row_falls_back_and_says_so(void **state) {
    (void)state;
    struct tile_table table;
    struct subject subject;
    struct error error = {""};
    const char *path = table_path();
    int all, ids[3] = {1, 2, 3};
    golden_table("cpu", path, &table);
    for (size_t i = 0; i < table.count; i++) strcpy(table.rows[i].configuration, "no_such_parameter=1");
    subject_open(&subject, "cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, &table);
    must(model_forward(subject.model, 0, ids, 1, 0, NULL, &error), &error);
    assert_int_equal(golden_plans(subject.model, "default: the table's row", &all), 4);
    assert_int_equal(golden_plans(subject.model, "no_such_parameter", &all), 4);
    size_t count = table.count;
    table.count = 0;
    must(model_forward(subject.model, 0, ids, 3, 0, NULL, &error), &error);
    assert_int_equal(golden_plans(subject.model, "default: no row", &all), 4);
    assert_int_equal(all, 8);
    table.count = count;
    subject_close(&subject);
    tiles_free(&table);
    unlink(path);
}

/* A row may name any kernel; one of another op would read other operands. */
static void a_row_with_a_kernel_of_another_op_is_refused(void **state) {
    (void)state;
    struct tile_table table;
    struct subject subject;
    struct error error = {""};
    const char *path = table_path();
    int all;
    golden_table("cpu", path, &table);
    const struct tile_row other = *tiles_find(&table, "fp16_gemm", 256, 512, 0, 1);
    for (size_t i = 0; i < table.count; i++) {
        strcpy(table.rows[i].kernel, other.kernel);
        strcpy(table.rows[i].configuration, other.configuration);
    }
    subject_open(&subject, "cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN, 512, &table);
    must(model_prepare(subject.model, 1, &error), &error);
    assert_int_equal(golden_plans(subject.model, "fp16_gemm/cpu does not compute marlin_gemm", &all), 4);
    subject_close(&subject);
    tiles_free(&table);
    unlink(path);
}

static void forward_checks_its_input(void **state) {
    (void)state;
    struct subject subject;
    struct error error = {""};
    int ids[2] = {0, GOLDEN_VOCAB};
    subject_open(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL);
    assert_int_equal(model_forward(subject.model, 0, ids, 2, 0, NULL, &error), -1);
    assert_non_null(strstr(error.text, "vocab_size"));
    assert_int_equal(model_forward(subject.model, 0, ids, 1, GOLDEN_IDS, NULL, &error), -1);
    assert_non_null(strstr(error.text, "512"));
    assert_int_equal(model_forward(subject.model, 0, ids, 0, 0, NULL, &error), -1);
    subject_close(&subject);
}

static void synthetic_logits(enum method method, unsigned long long seed, float *logits) {
    struct error error = {""};
    struct device *device;
    struct model *model;
    struct model_config config;
    const int ids[3] = {5, 6, 7};
    must(device_open("cpu", &device, &error), &error);
    must(model_config_read(PLAIN, &config, &error), &error);
    config.quant = method == METHOD_NONE                                 ? QUANT_NONE
                   : method == METHOD_AWQ || method == METHOD_AWQ_MARLIN ? QUANT_AWQ
                                                                         : QUANT_GPTQ;
    config.group = 64;
    config.symmetric = config.quant == QUANT_GPTQ;
    struct model_options options = {.method = method, .context = 8, .chunk = 8, .synthetic = true, .seed = seed};
    must(model_create(device, &config, NULL, &options, &model, &error), &error);
    must(model_forward(model, 0, ids, 3, 0, logits, &error), &error);
    model_destroy(model);
    device_close(device);
}

static void synthetic_models_are_sane_and_seeded(void **state) {
    (void)state;
    static float a[GOLDEN_VOCAB], b[GOLDEN_VOCAB], other[GOLDEN_VOCAB];
    for (int method = METHOD_NONE; method <= METHOD_GPTQ_MARLIN; method++) {
        double squares = 0;
        synthetic_logits((enum method)method, 1, a);
        synthetic_logits((enum method)method, 1, b);
        synthetic_logits((enum method)method, 2, other);
        assert_memory_equal(a, b, sizeof a);
        assert_memory_not_equal(a, other, sizeof a);
        for (int i = 0; i < GOLDEN_VOCAB; i++) squares += (double)a[i] * a[i];
        double size = sqrt(squares / GOLDEN_VOCAB);
        if (!(size > 0.1 && size < 10)) fail_msg("%s: logits of size %g", method_name((enum method)method), size);
    }
}

/* --- the command --- */

struct result {
    int status;
    char out[65536], err[65536];
};

static void slurp(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    text[fread(text, 1, size - 1, file)] = 0;
    fclose(file);
    unlink(path);
}

/* Runs "tilebook decode ARGUMENTS" with both streams kept apart. */
static const struct result *decode(const char *arguments) {
    static struct result result;
    char out[] = "/tmp/decode-out-XXXXXX", err[] = "/tmp/decode-err-XXXXXX", command[2048];
    close(mkstemp(out));
    close(mkstemp(err));
    snprintf(command, sizeof command, "%s decode %s >%s 2>%s", getenv("TILEBOOK"), arguments, out, err);
    int status = system(command);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    slurp(out, result.out, sizeof result.out);
    slurp(err, result.err, sizeof result.err);
    return &result;
}

/* The run ends with `status`; its stderr has each of the words, its stdout nothing. */
static void refuses(const char *arguments, int status, const char *const *words) {
    const struct result *result = decode(arguments);
    if (result->status != status)
        fail_msg("%s: exit code %d, not %d: %s", arguments, result->status, status, result->err);
    assert_string_equal(result->out, "");
    for (; *words; words++)
        if (!strstr(result->err, *words)) fail_msg("%s: no '%s' in: %s", arguments, *words, result->err);
}

#define REFUSES(arguments, status, ...) refuses(arguments, status, (const char *const[]){__VA_ARGS__, NULL})

static json_t *decode_json(const char *arguments) {
    const struct result *result = decode(arguments);
    if (result->status) fail_msg("%s: %s", arguments, result->err);
    json_t *object = json_loads(result->out, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(object)) fail_msg("%s: not one JSON object: %s", arguments, result->out);
    return object;
}

static void json_has_the_golden_ids_and_the_figures(void **state) {
    (void)state;
    static const char *const keys[] = {"text",   "tok_s",          "ms_per_token",  "gb_s",
                                       "memory", "configurations", "logits_fnv1a64"};
    json_t *root, *entry = json_array_get(golden_entries("tiny-qwen2-awq", &root), 1);
    json_t *object = decode_json("--device cpu --model " AWQ
                                 " --temperature 0 --max-tokens 48 --json --prompt 'Let me not to the marriage'");
    assert_true(json_equal(json_object_get(object, "prompt_ids"), json_object_get(entry, "prompt_ids")));
    assert_true(json_equal(json_object_get(object, "ids"), json_object_get(entry, "greedy_ids")));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) assert_non_null(json_object_get(object, keys[i]));
    assert_true(json_number_value(json_object_get(object, "tok_s")) > 0);
    assert_string_equal(json_string_value(json_object_get(object, "method")), "awq_marlin");
    assert_true(json_is_false(json_object_get(object, "synthetic_weights")));
    json_decref(object);
    json_decref(root);
}

static void stdout_has_the_text_alone(void **state) {
    (void)state;
    static const char *const figures[] = {
        "tok/s", "ms/token", "GB/s", "memory", "marlin_gemm/", "fnv1a64", "built-in defaults (no table given)"};
    const char *arguments = "--device cpu --temperature 0 -n 20 --model " AWQ " --prompt 'Four score'";
    char text[1024], json[512];
    const struct result *result = decode(arguments);
    assert_int_equal(result->status, 0);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) assert_non_null(strstr(result->err, figures[i]));
    assert_null(strstr(result->err, "synthetic"));
    snprintf(text, sizeof text, "%s", result->out);
    snprintf(json, sizeof json, "%s --json", arguments);
    json_t *object = decode_json(json);
    assert_string_equal(text, json_string_value(json_object_get(object, "text")));
    assert_true(strlen(text) > 20);
    json_decref(object);
}

static void chat_is_a_turn_and_its_end_is_not_printed(void **state) {
    (void)state;
    json_t *root, *entry = json_array_get(golden_entries("tiny-qwen2", &root), 4);
    json_t *object = decode_json("--device cpu --model " PLAIN " --temperature 0 -n 400 --json --chat --prompt "
                                 "'Recite sonnet 18.'");
    assert_true(json_equal(json_object_get(object, "prompt_ids"), json_object_get(entry, "prompt_ids")));
    assert_string_equal(json_string_value(json_object_get(object, "stop")), "eos");
    assert_null(strstr(json_string_value(json_object_get(object, "text")), "<|im_end|>"));
    json_decref(object);
    json_decref(root);
}

/* Steps run ahead of the host: an end of text is found when there are more, and the figures are not theirs. */
static void logits_are_those_of_the_last_token(void **state) {
    (void)state;
    char arguments[256];
    json_t *objects[2];
    int count = 400;
    for (int i = 0; i < 2; i++) {
        snprintf(arguments, sizeof arguments,
                 "--device cpu --model " PLAIN " --temperature 0 -n %d --json --chat --prompt 'Recite sonnet 18.'",
                 count);
        objects[i] = decode_json(arguments);
        count = (int)json_array_size(json_object_get(objects[i], "ids"));
    }
    assert_in_range(count, 2, 399);
    assert_true(json_equal(json_object_get(objects[0], "ids"), json_object_get(objects[1], "ids")));
    assert_string_equal(json_string_value(json_object_get(objects[0], "logits_fnv1a64")),
                        json_string_value(json_object_get(objects[1], "logits_fnv1a64")));
    for (int i = 0; i < 2; i++) json_decref(objects[i]);
}

static void logits_are_written_raw(void **state) {
    (void)state;
    static float logits[GOLDEN_VOCAB + 1], expected[GOLDEN_VOCAB];
    char path[] = "/tmp/decode-logits-XXXXXX", arguments[512];
    close(mkstemp(path));
    snprintf(arguments, sizeof arguments, "--device cpu --model " PLAIN " -n 1 --prompt We --logits %s", path);
    assert_int_equal(decode(arguments)->status, 0);
    FILE *file = fopen(path, "rb");
    assert_int_equal(fread(logits, sizeof *logits, GOLDEN_VOCAB + 1, file), GOLDEN_VOCAB);
    fclose(file);
    unlink(path);
    json_t *root;
    golden_logits(json_array_get(golden_entries("tiny-qwen2", &root), 0), expected);
    assert_true(relative_error(logits, expected, GOLDEN_VOCAB) <= GOLDEN_TOLERANCE);
    json_decref(root);
}

static void sampling_follows_its_seed(void **state) {
    (void)state;
    const char *arguments =
        "--device cpu --model " PLAIN " --temperature 3 --top-k 0 --top-p 1 -n 16 --json --prompt We";
    char seeded[512];
    json_t *ids[3];
    for (int i = 0; i < 3; i++) {
        snprintf(seeded, sizeof seeded, "%s --seed %d", arguments, i / 2);
        json_t *object = decode_json(seeded);
        ids[i] = json_incref(json_object_get(object, "ids"));
        json_decref(object);
    }
    assert_true(json_equal(ids[0], ids[1]));
    assert_false(json_equal(ids[1], ids[2]));
    for (int i = 0; i < 3; i++) json_decref(ids[i]);
}

/* Several sequences at a time; what generation_config.json has does not count. */
static void a_bench_samples_if_told(void **state) {
    (void)state;
    static const char *const options[] = {"", "--temperature 0", "--temperature 3 --seed 1", "--temperature 3 --seed 1",
                                          "--temperature 3 --seed 2"};
    char line[256];
    json_t *ids[5];
    for (int i = 0; i < 5; i++) {
        snprintf(line, sizeof line, "--device cpu --model " PLAIN " --bench --batch 3 --ctx 24 -n 12 --json %s",
                 options[i]);
        json_t *object = decode_json(line);
        ids[i] = json_incref(json_object_get(object, "ids"));
        assert_int_equal(json_array_size(ids[i]), 12);
        json_decref(object);
    }
    for (int i = 1; i < 5; i++) assert_int_equal(json_equal(ids[i - 1], ids[i]), i % 2);
    for (int i = 0; i < 5; i++) json_decref(ids[i]);
}

static void models_in_memory_say_synthetic(void **state) {
    (void)state;
    const struct result *result =
        decode("--device cpu --in-memory -q gptq_marlin --model " PLAIN " -n 3 --temperature 0 --prompt-ids 1,2,3");
    assert_int_equal(result->status, 0);
    assert_non_null(strstr(result->err, "synthetic weights"));
    json_t *object = decode_json("--device cpu --in-memory -q awq --model " PLAIN " --bench --ctx 24 -n 4 --json");
    assert_int_equal(json_array_size(json_object_get(object, "prompt_ids")), 20);
    assert_int_equal(json_integer_value(json_object_get(object, "decode_steps")), 3);
    assert_string_equal(json_string_value(json_object_get(object, "clock")), "host clock");
    json_int_t kv = json_integer_value(json_object_get(json_object_get(object, "memory"), "kv_bytes"));
    assert_true(json_is_true(json_object_get(object, "synthetic_weights")));
    json_decref(object);
    object = decode_json("--device cpu --in-memory -q awq --model " PLAIN " --bench --batch 3 --ctx 24 -n 4 --json");
    assert_int_equal(json_integer_value(json_object_get(object, "batch")), 3);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(object, "memory"), "kv_bytes")), 3 * kv);
    json_decref(object);
}

static void made_checkpoints_say_synthetic(void **state) {
    (void)state;
    char directory[64], command[512];
    model_dir_make(directory);
    for (int i = 0; i < 3; i++) {
        static const char *const quantization[] = {"none", "awq", "gptq"};
        snprintf(command, sizeof command, "%s model make --like " PLAIN " --quantization %s %s >/dev/null 2>&1",
                 getenv("TILEBOOK"), quantization[i], directory);
        assert_int_equal(system(command), 0);
        model_dir_delete(directory, "tokenizer.json");
        snprintf(command, sizeof command, "--device cpu --temperature 0 -n 3 --prompt-ids 1,2,3 --model %s", directory);
        const struct result *result = decode(command);
        if (result->status) fail_msg("%s: %s", quantization[i], result->err);
        assert_string_equal(result->out, "");
        assert_says(result->err, "synthetic weights|stopped  length, 3 tokens");
        snprintf(command, sizeof command, "--device cpu --prompt x --model %s", directory);
        REFUSES(command, 1, "tokenizer.json", "--prompt-ids");
        model_dir_remove(directory);
        assert_int_equal(mkdir(directory, 0700), 0);
    }
    model_dir_remove(directory);
}

static void methods_the_checkpoint_has_not(void **state) {
    (void)state;
    REFUSES("--device cpu --prompt x -q awq --model " PLAIN, 1, "--quantization awq", "not quantised", "config.json",
            "It can run with: none", "tilebook decode --model " PLAIN " --quantization none");
    REFUSES("--device cpu --prompt x -q none --model " AWQ, 1, "AWQ", "config.json", "awq_marlin, awq");
    REFUSES("--device cpu --prompt x -q gptq --model " AWQ, 1, "AWQ", "awq_marlin, awq");
}

static void wrong_usage_exits_2(void **state) {
    (void)state;
    REFUSES("--prompt x", 2, "--model");
    REFUSES("--model " PLAIN, 2, "--prompt");
    REFUSES("--model " PLAIN " --prompt x --prompt-ids 1", 2, "more than one prompt");
    REFUSES("--model " PLAIN " --prompt x -q awq4", 2, "awq4", "gptq_marlin");
    REFUSES("--model " PLAIN " --prompt x --device gpu", 2, "'gpu'", "cuda:N");
    REFUSES("--model " PLAIN " --prompt x -n many", 2, "--max-tokens", "many");
    REFUSES("--model " PLAIN " --prompt x --temperature -1", 2, "--temperature");
    REFUSES("--model " PLAIN " --prompt x --top-p 1.5", 2, "--top-p");
    REFUSES("--model " PLAIN " --prompt x --batch 2", 2, "--batch", "--bench");
    REFUSES("--model " PLAIN " --prompt x --no-such-option", 2, "no-such-option");
}

static void what_cannot_run_exits_1(void **state) {
    (void)state;
    REFUSES("--device cpu --model /nowhere --prompt x", 1, "/nowhere");
    REFUSES("--device cpu --model qwen2.5-14b --prompt-ids 1", 1, "--in-memory");
    REFUSES("--device cpu --model " PLAIN " --prompt ''", 1, "empty");
    REFUSES("--device cpu --model " PLAIN " --ctx 4 --prompt-ids 1,2,3,4,5", 1, "5 tokens", "--ctx 4");
    REFUSES("--device cpu --model " PLAIN " --ctx 4096 --prompt x", 1, "4096", "512", "max_position_embeddings");
    REFUSES("--device cpu --model " PLAIN " --prompt-ids 1,x", 1, "--prompt-ids", "'x'");
    REFUSES("--device cpu --model " PLAIN " --prompt-file /nowhere", 1, "/nowhere");
    REFUSES("--device cpu --model " PLAIN " --prompt x --table /nowhere", 1, "/nowhere");
}

static void tables_are_checked_and_used(void **state) {
    (void)state;
    const char *path = table_path();
    struct tile_table table;
    char arguments[512], message[TILES_MESSAGE];
    golden_table("cpu", path, &table);
    snprintf(arguments, sizeof arguments, "--device cpu --model " PLAIN " -n 2 --prompt x --table %s", path);
    const struct result *result = decode(arguments);
    assert_int_equal(result->status, 0);
    assert_non_null(strstr(result->err, " tuned"));
    assert_non_null(strstr(result->err, path));

    snprintf(table.device, sizeof table.device, "Another GPU");
    assert_int_equal(tiles_write(path, &table, message), 0);
    REFUSES(arguments, 1, "Another GPU", "tilebook tune --model " PLAIN " --device cpu", "--untuned");
    strcat(arguments, " --untuned");
    result = decode(arguments);
    assert_int_equal(result->status, 0);
    assert_null(strstr(result->err, " tuned"));
    assert_non_null(strstr(result->err, "built-in defaults (--untuned)"));
    tiles_free(&table);
    unlink(path);
}

static void check_worth(const json_t *row) {
    static const char *const verdicts[] = {"faster", "slower", "tie"};
    const char *verdict = json_string_value(json_object_get(row, "verdict"));
    double speedup = json_number_value(json_object_get(row, "speedup"));
    int known = 0;
    for (int i = 0; i < 3; i++) known += !strcmp(verdict, verdicts[i]);
    assert_int_equal(known, 1);
    assert_true(speedup > 0 && speedup >= json_number_value(json_object_get(row, "low")));
    assert_true(speedup <= json_number_value(json_object_get(row, "high")));
    assert_true(json_number_value(json_object_get(row, "noise")) >= 0);
    assert_true(json_number_value(json_object_get(row, "tok_s")) > 0);
    assert_true(json_number_value(json_object_get(row, "against_tok_s")) > 0);
}

/* Either verdict is possible here; the exit code says which it was. */
static void what_a_table_is_worth(void **state) {
    (void)state;
    const char *path = table_path();
    struct tile_table table;
    char arguments[512];
    golden_table("cpu", path, &table);
    snprintf(arguments, sizeof arguments,
             "--device cpu --model " PLAIN " --bench --batch 2 --ctx 24 -n 6 --table %s --against untuned", path);
    const struct result *result = decode(arguments);
    assert_in_range(result->status, 0, 1);
    assert_int_equal(result->status, strstr(result->out, "slower") != NULL);
    assert_non_null(strstr(result->out, " against built-in defaults: none on "));
    assert_non_null(strstr(result->out, "2 sequences, 18 tokens of prompt each, 9 rounds by turns, 5 steps each"));
    assert_non_null(strstr(result->out, "\ndecode   "));
    assert_non_null(strstr(result->out, "\nprefill  "));
    assert_non_null(strstr(result->out, "the first 6 of 6 are the same"));
    snprintf(arguments, sizeof arguments,
             "--device cpu --model " PLAIN " --bench --ctx 24 -n 6 --json --table %s --against %s", path, path);
    result = decode(arguments);
    json_t *object = json_loads(result->out, 0, NULL);
    assert_non_null(object);
    assert_string_equal(json_string_value(json_object_get(object, "against")), path);
    check_worth(json_object_get(object, "decode"));
    check_worth(json_object_get(object, "prefill"));
    json_decref(object);
    REFUSES("--device cpu --model " PLAIN " --bench --ctx 24 -n 6 --against untuned", 2, "--table");
    snprintf(arguments, sizeof arguments, "--model " PLAIN " --bench --table %s --against untuned --batch 1,2", path);
    REFUSES(arguments, 2, "a run of its own");
    snprintf(arguments, sizeof arguments,
             "--device cpu --model " PLAIN " --bench --ctx 24 -n 6 --table %s --against LICENSE", path);
    REFUSES(arguments, 1, "LICENSE");
    tiles_free(&table);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none_gives_transformers_tokens),
        cmocka_unit_test(awq_gives_transformers_tokens),
        cmocka_unit_test(gptq_gives_transformers_tokens),
        cmocka_unit_test(desc_act_gives_transformers_tokens),
        cmocka_unit_test(scores_are_transformers),
        cmocka_unit_test(perplexity_is_of_chunks),
        cmocka_unit_test(steps_give_transformers_tokens),
        cmocka_unit_test(sampling_without_a_temperature_gives_them_too),
        cmocka_unit_test(steps_choose_what_calls_would),
        cmocka_unit_test(steps_check_their_input),
        cmocka_unit_test(sequences_keep_to_their_pages),
        cmocka_unit_test(a_cache_takes_what_it_may),
        cmocka_unit_test(chunks_do_not_matter),
        cmocka_unit_test(a_table_changes_configurations_not_tokens),
        cmocka_unit_test(tables_take_turns),
        cmocka_unit_test(a_bad_row_falls_back_and_says_so),
        cmocka_unit_test(a_row_with_a_kernel_of_another_op_is_refused),
        cmocka_unit_test(forward_checks_its_input),
        cmocka_unit_test(synthetic_models_are_sane_and_seeded),
        cmocka_unit_test(json_has_the_golden_ids_and_the_figures),
        cmocka_unit_test(stdout_has_the_text_alone),
        cmocka_unit_test(chat_is_a_turn_and_its_end_is_not_printed),
        cmocka_unit_test(logits_are_those_of_the_last_token),
        cmocka_unit_test(logits_are_written_raw),
        cmocka_unit_test(sampling_follows_its_seed),
        cmocka_unit_test(a_bench_samples_if_told),
        cmocka_unit_test(models_in_memory_say_synthetic),
        cmocka_unit_test(made_checkpoints_say_synthetic),
        cmocka_unit_test(methods_the_checkpoint_has_not),
        cmocka_unit_test(wrong_usage_exits_2),
        cmocka_unit_test(what_cannot_run_exits_1),
        cmocka_unit_test(tables_are_checked_and_used),
        cmocka_unit_test(what_a_table_is_worth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
