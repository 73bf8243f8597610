/* The fp8 KV cache on the CPU: e4m3 by its definition, what is written and what is read, and the model with it. */
#include "bench/decoder/ops.h"
#include "kernels/reference.h"
#include "tests/command.h"
#include "tests/golden.h"

#define AWQ "tests/fixtures/tiny-qwen2-awq"

/* --- e4m3 --- */

/* The number of a code from 0 to 0x7e. */
static double number(int code) {
    int exponent = code >> 3, fraction = code & 7;
    return exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
}

/* The nearest code, of two the even one. */
static int nearest(double magnitude) {
    int best = 0;
    for (int code = 1; code <= 0x7e; code++) {
        double off = fabs(number(code) - magnitude), least = fabs(number(best) - magnitude);
        if (off < least || (off == least && code % 2 == 0)) best = code;
    }
    return best;
}

static void every_half_becomes_the_nearest_code(void **state) {
    (void)state;
    for (int half = 0; half < 65536; half++) {
        double value = half_to_float((uint16_t)half);
        int expected = isnan(value) ? 0x7f : isinf(value) ? 0x7e : nearest(fabs(value)), code;
        if (!isnan(value)) expected |= half >> 8 & 0x80;
        code = e4m3_from_half((uint16_t)half);
        if (code != expected) fail_msg("%04x, %g: code %02x, not %02x", half, value, code, expected);
    }
}

static void every_code_is_its_number_and_a_half(void **state) {
    (void)state;
    for (int code = 0; code < 256; code++) {
        float value = e4m3_to_float((uint8_t)code);
        if ((code & 0x7f) == 0x7f) {
            assert_true(isnan(value));
            continue;
        }
        assert_true(value == (code & 0x80 ? -1 : 1) * number(code & 0x7f) && !signbit(value) == !(code & 0x80));
        assert_true(half_to_float(half_from_float(value)) == value);
        assert_int_equal(e4m3_from_half(half_from_float(value)), code);
    }
    assert_true(e4m3_to_float(0x7e) == 448 && e4m3_to_float(0x08) == 0x1p-6f && e4m3_to_float(0x01) == 0x1p-9f);
}

/* --- the operations --- */

enum { HEADS = 6, KV_HEADS = 2, DIM = 64, TOKENS = 70, POSITION = 61, PITCH = 3 };
enum { ROW = (HEADS + 2 * KV_HEADS) * DIM, CACHED = PITCH * KV_HEADS * OPS_PAGE * DIM };

static struct device *device;

static int open_device(void **state) {
    struct error error;
    return folder_make(state) || device_open("cpu", &device, &error);
}

static int close_device(void **state) {
    device_close(device);
    return folder_remove(state);
}

/* A chunk of a prompt behind a full cache, in both types. */
static uint16_t qkv[2][TOKENS * ROW], words[2][CACHED], y[2][TOKENS * HEADS * DIM];
static uint8_t codes[2][CACHED];
static const int32_t pages[PITCH] = {2, 0, 1};

static struct ops_cache cache_of(enum kv_type kv) {
    return (struct ops_cache){.keys = kv == KV_FP8 ? (void *)codes[0] : words[0],
                              .values = kv == KV_FP8 ? (void *)codes[1] : words[1],
                              .pages = pages,
                              .kv_heads = KV_HEADS,
                              .head_dim = DIM,
                              .position = POSITION};
}

static void fill(uint16_t *halves, size_t count, float scale, uint64_t seed) {
    struct error error = {""};
    must(reference_fill_half(device, halves, count, -scale, scale, seed, &error), &error);
}

static void begin(float scale) {
    fill(qkv[0], TOKENS * ROW, scale, 1);
    memcpy(qkv[1], qkv[0], sizeof qkv[0]);
    for (int side = 0; side < 2; side++) {
        fill(words[side], CACHED, scale, 2 + (uint64_t)side);
        for (int i = 0; i < CACHED; i++) codes[side][i] = e4m3_from_half(words[side][i]);
    }
}

static void run(enum kv_type kv, bool attends) {
    struct ops ops;
    struct error error = {""};
    float frequency[DIM / 2];
    for (int i = 0; i < DIM / 2; i++) frequency[i] = powf(1e4f, -2.0f * (float)i / DIM);
    struct ops_rope rope = {cache_of(kv), qkv[kv], frequency, TOKENS, HEADS};
    struct ops_attention attention = {rope.cache, qkv[kv], y[kv], TOKENS, HEADS};
    must(ops_open(device, ROW, DIM, kv, &ops, &error), &error);
    must(attends ? ops.functions->attention(&ops, &attention, &error) : ops.functions->rope(&ops, &rope, &error),
         &error);
}

/* The codes are those of the words; these become the codes' numbers. How many are the largest. */
static int round_words(void) {
    int largest = 0;
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < CACHED; i++) {
            assert_int_equal(codes[side][i], e4m3_from_half(words[side][i]));
            words[side][i] = half_from_float(e4m3_to_float(codes[side][i]));
            largest += (codes[side][i] & 0x7f) == 0x7e;
        }
    return largest;
}

/* The cache has the codes of what fp16 has, and attention sees exactly their numbers; the second time many are beyond
 * the largest. */
static void attention_sees_what_is_written(void **state) {
    (void)state;
    for (int wide = 0; wide < 2; wide++) {
        begin(wide ? 2000 : 2);
        for (int kv = KV_FP16; kv <= KV_FP8; kv++) run((enum kv_type)kv, false);
        assert_memory_equal(qkv[0], qkv[1], sizeof qkv[0]);
        assert_int_equal(round_words() > 0, wide);
        for (int kv = KV_FP16; kv <= KV_FP8; kv++) run((enum kv_type)kv, true);
        assert_memory_equal(y[0], y[1], sizeof y[0]);
        for (int i = 0; i < TOKENS * HEADS * DIM; i++) assert_true(isfinite(half_to_float(y[0][i])));
    }
}

static void older_cards_are_refused(void **state) {
    (void)state;
    struct device a100 = {.backend = BACKEND_CUDA, .id = "cuda:0", .name = "A100", .compute_capability = 80};
    struct ops ops;
    struct error error = {""};
    assert_int_equal(ops_open(&a100, ROW, DIM, KV_FP8, &ops, &error), -1);
    assert_string_equal(error.text,
                        "--kv fp8 needs compute capability 8.9 or later; cuda:0 (A100) has 8.0. Next: --kv fp16");
}

/* --- the model --- */

static int use_fp8(void **state) {
    (void)state;
    golden_kv = KV_FP8;
    return 0;
}

static int use_fp16(void **state) {
    (void)state;
    golden_kv = KV_FP16;
    return 0;
}

/* Rounding changes none of the fixtures' tokens: they are sure of them. */
static void batches_and_prompts_of_any_size_give_transformers_tokens(void **state) {
    (void)state;
    golden_check_steps("cpu", "tiny-qwen2", METHOD_NONE);
    golden_check_steps("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
    golden_check_batches("cpu", "tiny-qwen2", METHOD_NONE);
    golden_check_batches("cpu", "tiny-qwen2-gptq-desc-act", METHOD_GPTQ_MARLIN);
    golden_check_sharing("cpu", "tiny-qwen2-awq", METHOD_AWQ_MARLIN);
}

static void steps_choose_what_calls_would(void **state) {
    (void)state;
    golden_check_long("cpu", 127);
}

/* --- the command --- */

static double figure(const char *arguments, const char *object, const char *key) {
    char line[512];
    snprintf(line, sizeof line, "$TILEBOOK decode --device cpu --model " AWQ " --json %s >%s", arguments,
             in_folder("run.json"));
    if (shell(line)) fail_msg("%s: %s", arguments, output);
    json_t *root = json_load_file(in_folder("run.json"), 0, NULL);
    const json_t *value = json_object_get(object ? json_object_get(root, object) : root, key);
    assert_true(json_is_number(value));
    double number = json_number_value(value);
    json_decref(root);
    return number;
}

static void the_cache_takes_half(void **state) {
    (void)state;
    static const char *const runs[] = {"--bench --batch 2 --ctx 70 -n 4", "--prompt-ids 1,2,3 --ctx 200 -n 2",
                                       "--profile --ctx 70 -n 12"};
    for (int i = 0; i < 3; i++) {
        char arguments[128];
        snprintf(arguments, sizeof arguments, "%s --kv fp8", runs[i]);
        assert_true(figure(runs[i], "memory", "kv_bytes") == 2 * figure(arguments, "memory", "kv_bytes"));
    }
}

static void perplexity_hardly_changes(void **state) {
    (void)state;
    double fp16 = figure("--perplexity tests/fixtures/text.txt", NULL, "perplexity");
    double fp8 = figure("--perplexity tests/fixtures/text.txt --kv fp8", NULL, "perplexity");
    assert_true(fp8 != fp16);
    assert_float_equal(fp8 / fp16, 1, 1e-2);
}

static void every_output_says_which(void **state) {
    (void)state;
    expect(0, "decode --device cpu --model " AWQ " --prompt-ids 1,2,3 -n 2", "(64 tokens, fp16)");
    expect(0, "decode --device cpu --model " AWQ " --prompt-ids 1,2,3 -n 2 --kv fp8", "(64 tokens, fp8)");
    expect(0, "decode --device cpu --model " AWQ " --prompt-ids 1,2,3 -n 2 --kv fp8 --json", "\"kv\":\"fp8\"");
    expect(0, "decode --device cpu --model " AWQ " --bench --ctx 24 -n 4 --kv fp8 --csv @/t.csv --markdown @/t.md",
           "KV cache: fp8");
    expect_shell(0, "cat @/t.csv @/t.md", "total_gib,kv\n|,fp8\n|KV cache: fp8");
    expect(0, "decode --device cpu --model " AWQ " --bench --ctx 24 -n 4 --batch 1,2 --kv fp8 --json",
           "\"kv\": \"fp8\"");
    expect(2, "decode --model " AWQ " --prompt x --kv int8", "--kv 'int8'|fp16 or fp8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_becomes_the_nearest_code),
        cmocka_unit_test(every_code_is_its_number_and_a_half),
        cmocka_unit_test(attention_sees_what_is_written),
        cmocka_unit_test(older_cards_are_refused),
        cmocka_unit_test_setup_teardown(batches_and_prompts_of_any_size_give_transformers_tokens, use_fp8, use_fp16),
        cmocka_unit_test_setup_teardown(steps_choose_what_calls_would, use_fp8, use_fp16),
        cmocka_unit_test(the_cache_takes_half),
        cmocka_unit_test(perplexity_hardly_changes),
        cmocka_unit_test(every_output_says_which),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
