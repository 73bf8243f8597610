/* Where a prefill's and a token's time goes: what records say, what the CPU's clock says, and tilebook decode
 * --profile. */
#include "tests/command.h"
#include "tests/golden.h"

#include "bench/decoder/profile.h"

/* --- records --- */

/* Each op's kernels as the log hands them out, whatever the order in which records came. */
static void a_log_has_its_kernels(void **state) {
    (void)state;
    struct cupti_log log = {.lost = 0};
    struct cupti_kernel *kernels;
    struct error error = {""};
    size_t count;
    cupti_log_kernel(&log, 9, 7000, 8000, "untagged");
    cupti_log_kernel(&log, 12, 5000, 6000, "reduce");
    cupti_log_kernel(&log, 11, 3000, 4500, "gemm");
    cupti_log_kernel(&log, 10, 1000, 2000, "norm");
    for (uint32_t i = 10; i < 13; i++) cupti_log_tag(&log, i, i == 10 ? 0 : 2); /* 1 has none */
    must(cupti_log_kernels(&log, 0, 3, &kernels, &count, &error), &error);
    assert_int_equal(count, 3);
    assert_string_equal(kernels[0].label, "norm");
    assert_string_equal(kernels[1].label, "gemm");
    assert_string_equal(kernels[2].label, "reduce");
    assert_true(kernels[0].sample == 0 && kernels[1].sample == 2 && kernels[2].sample == 2);
    free(kernels);
    cupti_log_kernel(&log, 1, 1000, 1000, "norm");
    cupti_log_tag(&log, 1, 0);
    assert_int_equal(cupti_log_kernels(&log, 0, 1, &kernels, &count, &error), -1);
    assert_non_null(strstr(error.text, "no time"));
    log.lost = 3;
    assert_int_equal(cupti_log_kernels(&log, 0, 1, &kernels, &count, &error), -1);
    assert_non_null(strstr(error.text, "3 records were dropped"));
    must(cupti_log_kernels(&log, 0, 1, &kernels, &count, &error), &error);
    assert_int_equal(count, 0);
    free(kernels);
    cupti_log_free(&log);
}

static struct cupti_kernel kernel(const char *name, uint64_t sample, uint64_t start, uint64_t end) {
    return (struct cupti_kernel){.start = start, .end = end, .name = (uint64_t)*name, .label = name, .sample = sample};
}

static void kernels_get_their_ops(void **state) {
    (void)state;
    const struct model_call calls[] = {{-1, MODEL_EMBED, 7, 0}, {0, MODEL_QKV, 7, 0}, {0, MODEL_ATTEND, 7, 9}};
    const struct cupti_kernel listed[] = {kernel("embed", 0, 10, 20), kernel("gemm", 1, 30, 40),
                                          kernel("reduce", 1, 50, 60), kernel("attend", 2, 70, 80)};
    struct cupti_kernel token[] = {kernel("embed", 77, 5000, 7000), kernel("gemm", 77, 6000, 9000),
                                   kernel("reduce", 77, 9500, 10000), kernel("attend", 77, 9000, 9900)};
    static const double us[] = {2, 2, 0.5, 0}, gaps[] = {0, 0, 0.5, 0};
    struct profile_part *parts;
    struct error error = {""};
    must(profile_match(calls, listed, token, 4, &parts, &error), &error);
    assert_true(parts[0].call.layer == -1 && parts[1].call.layer == 0 && parts[3].call.layer == 0);
    assert_true(parts[1].call.op == MODEL_QKV && parts[2].call.op == MODEL_QKV && parts[3].call.op == MODEL_ATTEND);
    assert_true(parts[3].call.rows == 7 && parts[3].call.position == 9);
    assert_float_equal(profile_settle(parts, 4), 5, 1e-9);
    for (int i = 0; i < 4; i++) {
        assert_float_equal(parts[i].us, us[i], 1e-9);
        assert_float_equal(parts[i].gap_us, gaps[i], 1e-9);
    }
    free(parts);
    token[2] = kernel("other", 77, 9500, 10000);
    assert_int_equal(profile_match(calls, listed, token, 4, &parts, &error), -1);
    assert_non_null(strstr(error.text, "kernel 2 of a run is other, but reduce"));
    assert_null(parts);
}

/* --- the model's ops --- */

struct seen {
    int count, fails_at;
    enum model_op last;
};

static int see(void *context, const struct model_call *call, struct error *error) {
    struct seen *seen = context;
    bool inside = call->op >= MODEL_INPUT_NORM && call->op <= MODEL_DOWN;
    assert_int_equal(call->layer, inside ? seen->count / 8 : -1);
    assert_int_equal(call->rows, 1);
    assert_true(!inside || call->position == -1);
    seen->last = call->op;
    return seen->count++ == seen->fails_at ? error_set(error, "seen enough") : 0;
}

/* Steps that are traced choose what others would. */
static void steps_are_seen_op_by_op(void **state) {
    (void)state;
    enum { STEPS = 6 };
    struct subject subject;
    struct error error = {""};
    struct seen seen;
    int prompt[] = {411, 261, 651}, position = 3, first = 282, found[2][STEPS];
    double seconds;
    subject_open(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 512, NULL);
    must(model_forward(subject.model, 0, prompt, 3, 0, NULL, &error), &error);
    for (int traced = 0; traced < 2; traced++) {
        must(model_begin(subject.model, NULL, &first, &position, 1, &error), &error);
        model_trace(subject.model, traced ? see : NULL, &seen);
        for (int i = 0; i < STEPS; i++) {
            seen = (struct seen){.fails_at = -1};
            must(model_step(subject.model, &error), &error);
            must(model_take(subject.model, &found[traced][i], &seconds, &error), &error);
            assert_int_equal(seen.count, traced ? 4 + 2 * 7 : 0);
        }
    }
    assert_memory_equal(found[0], found[1], sizeof found[0]);
    seen = (struct seen){.fails_at = 5};
    assert_int_equal(model_step(subject.model, &error), -1);
    assert_string_equal(error.text, "layer 0: seen enough");
    assert_int_equal(seen.last, MODEL_POST_NORM);
    subject_close(&subject);
}

/* --- the command --- */

#define AWQ "decode --device cpu --model tests/fixtures/tiny-qwen2-awq "

static double number(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static double add_up(const json_t *array, const char *key) {
    double sum = 0;
    for (size_t i = 0; i < json_array_size(array); i++) sum += number(json_array_get(array, i), key);
    return sum;
}

static double op_number(const json_t *object, int kernel, const char *op, const char *key) {
    const json_t *row = json_array_get(json_object_get(object, "kernels"), (size_t)kernel);
    assert_string_equal(json_string_value(json_object_get(row, "op")), op);
    return number(row, key);
}

/* A prompt of 40 tokens in three chunks, the last of which has a kernel of its own. In the last layer its last row
 * alone attends, and nothing comes behind that in the others. */
static void the_chunks_of_a_prefill_are_added_up(void **state) {
    (void)state;
    struct subject subject;
    struct profile profile;
    struct error error = {""};
    int ids[40], chunks = 0;
    for (int i = 0; i < 40; i++) ids[i] = i * 7919 % GOLDEN_VOCAB;
    subject_open(&subject, "cpu", "tiny-qwen2", METHOD_NONE, 16, NULL);
    const struct model_config *c = &subject.config;
    must(profile_take(subject.model, c, ids, 40, 1, PROFILE_LEAST, &profile, &error), &error);
    assert_int_equal(profile.prefill.count, 3 * (1 + 7) + 3 + 3 + 7 + 2);
    for (int i = 0; i < profile.prefill.count; i++) {
        struct profile_part *part = &profile.prefill.parts[i];
        if (part->call.op == MODEL_EMBED) chunks++;
        bool behind = part->call.layer < 0 && part->call.op != MODEL_EMBED;
        bool last = part->call.layer == 1 && part->call.op >= MODEL_ATTEND;
        int all = chunks == 3 ? 8 : 16, rows = behind || last ? chunks == 3 : all;
        assert_int_equal(part->call.rows, rows);
        if (!behind) assert_int_equal(part->call.position, 16 * (chunks - 1) + all - rows);
        if (part->call.op == MODEL_QKV && chunks == 3) part->kernel = "another";
    }
    json_t *all = profile_json(&profile, subject.model), *prefill = json_object_get(all, "prefill");
    assert_true(number(prefill, "prompt_tokens") == 40 && number(prefill, "runs") >= 1);
    assert_int_equal(json_array_size(json_object_get(prefill, "kernels")), 11);
    assert_int_equal(json_array_size(json_object_get(prefill, "layers")), 4);
    assert_int_equal(op_number(prefill, 2, "qkv", "calls"), 4);
    assert_int_equal(op_number(prefill, 3, "qkv", "calls"), 2);
    double us = op_number(prefill, 2, "qkv", "us") + op_number(prefill, 3, "qkv", "us");
    double width = (c->heads + 2 * c->kv_heads) * c->head_dim, attend_us = op_number(prefill, 4, "attend", "us");
    assert_float_equal(op_number(prefill, 3, "qkv", "op_tflop_s") * us * 1e6, 2 * 2 * 40.0 * width * c->hidden, 10);
    assert_float_equal(op_number(prefill, 3, "qkv", "op_gb_s") * us * 1e3, 2 * 3 * 2 * width * c->hidden, 10);
    assert_float_equal(op_number(prefill, 4, "attend", "op_tflop_s") * attend_us * 1e6,
                       (40 * 41 / 2 + 40) * 4.0 * c->heads * c->head_dim, 10);
    assert_float_equal(op_number(prefill, 4, "attend", "op_gb_s") * attend_us * 1e3,
                       (16 + 32 + 40 + 40) * 4.0 * c->kv_heads * c->head_dim, 10);
    assert_float_equal(add_up(json_object_get(prefill, "layers"), "us"), number(prefill, "span_us"),
                       1e-3 * number(prefill, "span_us"));
    json_decref(all);
    profile_free(&profile);
    subject_close(&subject);
}

static void check_sums(const json_t *object, size_t parts, size_t kernels) {
    double span = number(object, "span_us");
    assert_true(number(object, "least_us") <= span && span <= number(object, "most_us"));
    assert_int_equal(json_array_size(json_object_get(object, "parts")), parts);
    assert_int_equal(json_array_size(json_object_get(object, "kernels")), kernels);
    assert_int_equal(json_array_size(json_object_get(object, "layers")), 4);
    for (const char *const *of = (const char *const[]){"parts", "kernels", NULL}; *of; of++)
        assert_float_equal(add_up(json_object_get(object, *of), "us") + add_up(json_object_get(object, *of), "gap_us"),
                           span, 1e-3 * span);
    assert_float_equal(add_up(json_object_get(object, "layers"), "us"), span, 1e-3 * span);
}

static void the_parts_are_the_token(void **state) {
    (void)state;
    char line[256];
    snprintf(line, sizeof line, "$TILEBOOK " AWQ "--profile --json --batch 2 --ctx 20 -n 7 >%s", in_folder("p.json"));
    if (shell(line)) fail_msg("%s", output);
    json_t *object = json_load_file(in_folder("p.json"), 0, NULL), *prefill = json_object_get(object, "prefill");
    assert_string_equal(json_string_value(json_object_get(object, "clock")), "monotonic");
    assert_true(number(object, "tokens") == 5 && number(object, "batch") == 2);
    assert_true(number(object, "positions") >= 16 && number(object, "positions") <= 20);
    check_sums(object, 18, 11);
    check_sums(prefill, 17, 10);
    /* Codes, scales and zero points of two layers' 640 x 256, group 128. */
    const double bytes = 2 * (640 * 128 + 5 * 256 * 2 + 5 * 128);
    assert_true(number(prefill, "prompt_tokens") == 13 && op_number(object, 7, "down", "calls") == 2);
    double us = op_number(object, 7, "down", "us"), prefill_us = op_number(prefill, 7, "down", "us");
    assert_float_equal(op_number(object, 7, "down", "op_gb_s") * us * 1e3, bytes, 1);
    assert_float_equal(op_number(object, 7, "down", "op_tflop_s") * us * 1e6, 2 * 2 * 2 * 640 * 256, 10);
    assert_float_equal(op_number(prefill, 7, "down", "op_gb_s") * prefill_us * 1e3, bytes, 1);
    assert_float_equal(op_number(prefill, 7, "down", "op_tflop_s") * prefill_us * 1e6, 2 * (13 + 1) * 640 * 256, 10);
    json_decref(object);
}

static void the_text_has_ops_and_layers(void **state) {
    (void)state;
    expect(0, AWQ "--profile --ctx 20 -n 4",
           "prefill|one prompt of 16 tokens|gaps|behind|token|the median of 2|1 sequence of |input_norm      2|"
           "gate_up|lm_head         1|choose          1|before|behind|weights|marlin_gemm/cpu");
    expect(1, AWQ "--profile --ctx 20 -n 3", "--profile: --max-tokens 3 must be from 4");
    expect(2, AWQ "--profile --ctx 20,24", "--profile is a run of its own");
    expect(2, AWQ "--profile --bench", "--profile is a run of its own");
    expect(2, AWQ "--profile --prompt x", "takes no prompt");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_has_its_kernels),   cmocka_unit_test(kernels_get_their_ops),
        cmocka_unit_test(steps_are_seen_op_by_op), cmocka_unit_test(the_chunks_of_a_prefill_are_added_up),
        cmocka_unit_test(the_parts_are_the_token), cmocka_unit_test(the_text_has_ops_and_layers),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
