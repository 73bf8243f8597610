/* Several devices that share a model, on the CPU: what each has, and that they choose what one would. */
#include <sys/wait.h>

#include "bench/decoder/load.h"
#include "tests/shared.h"

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
    must(open_shared(&one, "cpu", METHOD_NONE, 1, &error), &error);
    must(open_shared(&four, "cpu", METHOD_NONE, 4, &error), &error);
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

static void none_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_NONE, false);
    check_method("cpu", METHOD_NONE, 4);
}

static void a_tied_head_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_NONE, true);
    check_method("cpu", METHOD_NONE, 4);
}

static void awq_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_AWQ, false);
    check_method("cpu", METHOD_AWQ, 4);
    check_method("cpu", METHOD_AWQ_MARLIN, 4);
}

static void gptq_gives_the_same_tokens(void **state) {
    (void)state;
    make_model(QUANT_GPTQ, false);
    check_method("cpu", METHOD_GPTQ, 4);
    check_method("cpu", METHOD_GPTQ_MARLIN, 4);
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
    must(open_shared(&s, "cpu", METHOD_NONE, 4, &error), &error);
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
    assert_int_equal(open_shared(&s, "cpu", METHOD_NONE, 4, &error), -1);
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
    if (decode("--tp 2 --in-memory --kv fp8 --bench --ctx 24 -n 4", one, sizeof one)) fail_msg("%s", one);
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
        cmocka_unit_test(tensors_are_cut_on_either_side),    cmocka_unit_test(numbers_of_devices_are_checked),
        cmocka_unit_test(each_has_a_part_of_everything),     cmocka_unit_test(none_gives_the_same_tokens),
        cmocka_unit_test(a_tied_head_gives_the_same_tokens), cmocka_unit_test(awq_gives_the_same_tokens),
        cmocka_unit_test(gptq_gives_the_same_tokens),        cmocka_unit_test(samples_are_the_same_on_all),
        cmocka_unit_test(a_rank_that_fails_ends_all),        cmocka_unit_test(decode_takes_tp),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
