/* tilebook model: synthetic checkpoints of a small shape, what info says of them, tokenizing, and errors. */
#include "tests/model_dir.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "bench/decoder/checkpoint.h"
#include "bench/decoder/synthetic.h"
#include "bench/decoder/tensors.h"
#include "kernels/half.h"

static char root[64], like[128], made[128];
static struct error error;

static const char small_config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"hidden_size\": 256, \"intermediate_size\": 384, "
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"vocab_size\": 320, "
    "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, \"torch_dtype\": "
    "\"bfloat16\", "
    "\"eos_token_id\": 5}";

static int setup(void **state) {
    (void)state;
    model_dir_make(root);
    snprintf(like, sizeof like, "%s/like", root);
    snprintf(made, sizeof made, "%s/made", root);
    char command[256];
    snprintf(command, sizeof command, "mkdir %s", like);
    assert_int_equal(system(command), 0);
    model_dir_text(like, "config.json", small_config);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_dir_remove(like);
    model_dir_remove(made);
    model_dir_remove(root);
    return 0;
}

/* Runs "tilebook model ARGUMENTS"; both streams land in `output`. Returns the exit code. */
static char output[16384];
static int tilebook(const char *arguments, ...) {
    char command[1024], text[768];
    va_list list;
    const char *program = getenv("TILEBOOK");
    va_start(list, arguments);
    vsnprintf(text, sizeof text, arguments, list);
    va_end(list);
    snprintf(command, sizeof command, "exec 2>&1; %s model %s", program ? program : "build/tilebook", text);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    output[fread(output, 1, sizeof output - 1, pipe)] = 0;
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void runs(int expected, const char *arguments, const char *parts) {
    int code = tilebook("%s", arguments);
    if (code != expected) fail_msg("model %s: exit code %d, not %d: %s", arguments, code, expected, output);
    assert_says(output, parts);
}

static struct checkpoint *open_made(void) {
    struct checkpoint *checkpoint;
    if (checkpoint_open(made, &checkpoint, &error)) fail_msg("%s", error.text);
    return checkpoint;
}

static const struct tensor *get(const struct checkpoint *checkpoint, const char *name, enum dtype dtype, int64_t rows,
                                int64_t columns) {
    const struct tensor *tensor = checkpoint_get(checkpoint, name, 1u << dtype, rows, columns, &error);
    if (!tensor) fail_msg("%s", error.text);
    return tensor;
}

/* Standard deviation and mean; every element finite. */
static void check_floats(const struct tensor *tensor, double mean, double deviation) {
    const uint16_t *words = tensor->data;
    size_t count = tensor->bytes / 2;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        double value = tensor->dtype == DTYPE_F16 ? half_to_float(words[i]) : bf16_to_float(words[i]);
        assert_true(isfinite(value));
        sum += value;
        squares += value * value;
    }
    sum /= (double)count;
    double error_of_mean = 6 * deviation / sqrt((double)count) + 0.002 * fabs(mean);
    assert_true(fabs(sum - mean) < error_of_mean);
    assert_true(fabs(sqrt(squares / (double)count - sum * sum) / deviation - 1) < 0.2);
}

static void makes_unquantised(void **state) {
    (void)state;
    assert_int_equal(tilebook("make --like %s --seed 3 %s", like, made), 0);
    assert_says(output, "model.safetensors|synthetic weights|seed 3|no tokenizer.json");
    struct checkpoint *checkpoint = open_made();
    assert_int_equal(checkpoint_count(checkpoint), 3 + 2 * 12);
    check_floats(get(checkpoint, "model.embed_tokens.weight", DTYPE_BF16, 320, 256), 0, SYNTHETIC_WEIGHT_STD);
    check_floats(get(checkpoint, "lm_head.weight", DTYPE_BF16, 320, 256), 0, SYNTHETIC_WEIGHT_STD);
    check_floats(get(checkpoint, "model.norm.weight", DTYPE_BF16, 256, 0), 1, SYNTHETIC_NORM_STD);
    check_floats(get(checkpoint, "model.layers.1.self_attn.k_proj.weight", DTYPE_BF16, 128, 256), 0,
                 SYNTHETIC_WEIGHT_STD);
    get(checkpoint, "model.layers.0.self_attn.v_proj.bias", DTYPE_BF16, 128, 0);
    get(checkpoint, "model.layers.0.mlp.down_proj.weight", DTYPE_BF16, 256, 384);
    checkpoint_close(checkpoint);
    assert_int_equal(tilebook("info %s", made), 0);
    assert_says(output,
                "synthetic weights|2 layers|hidden 256|bfloat16|quantization   none|runs with      none|27 in 1 file");
}

/* Standard deviation of the weights that AWQ's words stand for, whatever the order of their nibbles. */
static double awq_deviation(const struct checkpoint *checkpoint) {
    const uint32_t *codes = get(checkpoint, "model.layers.0.mlp.up_proj.qweight", DTYPE_I32, 256, 48)->data;
    const uint32_t *zeros = get(checkpoint, "model.layers.0.mlp.up_proj.qzeros", DTYPE_I32, 2, 48)->data;
    const uint16_t *scales = get(checkpoint, "model.layers.0.mlp.up_proj.scales", DTYPE_F16, 2, 384)->data;
    double squares = 0;
    for (int k = 0; k < 256; k++)
        for (int n = 0; n < 384; n++) {
            int code = (int)(codes[k * 48 + n / 8] >> 4 * (n % 8) & 15);
            int zero = (int)(zeros[k / 128 * 48 + n / 8] >> 4 * (n % 8) & 15);
            assert_in_range(zero, 7, 8);
            double weight = (code - zero) * (double)half_to_float(scales[k / 128 * 384 + n]);
            squares += weight * weight;
        }
    return sqrt(squares / (256 * 384));
}

static void makes_awq(void **state) {
    (void)state;
    assert_int_equal(tilebook("make --like %s --quantization awq %s", like, made), 0);
    struct checkpoint *checkpoint = open_made();
    assert_int_equal(checkpoint_count(checkpoint), 3 + 2 * 26);
    get(checkpoint, "model.layers.1.self_attn.q_proj.qweight", DTYPE_I32, 256, 32);
    get(checkpoint, "model.layers.1.mlp.down_proj.scales", DTYPE_F16, 3, 256);
    get(checkpoint, "model.layers.1.self_attn.q_proj.bias", DTYPE_F16, 256, 0);
    assert_float_equal(awq_deviation(checkpoint), SYNTHETIC_WEIGHT_STD, 0.1 * SYNTHETIC_WEIGHT_STD);
    checkpoint_close(checkpoint);
    assert_int_equal(tilebook("info %s", made), 0);
    assert_says(output, "float16|awq, 4 bits, group 128, zero points (config.json)|awq_marlin|55 in 1 file");
}

static void makes_gptq(void **state) {
    (void)state;
    assert_int_equal(tilebook("make --like %s --quantization gptq %s", like, made), 0);
    struct checkpoint *checkpoint = open_made();
    assert_int_equal(checkpoint_count(checkpoint), 3 + 2 * 33);
    get(checkpoint, "model.layers.0.mlp.down_proj.qweight", DTYPE_I32, 48, 256);
    const uint32_t *zeros = get(checkpoint, "model.layers.0.mlp.down_proj.qzeros", DTYPE_I32, 3, 32)->data;
    for (int i = 0; i < 3 * 32; i++) assert_int_equal(zeros[i], 0x77777777);
    const int32_t *groups = get(checkpoint, "model.layers.0.mlp.down_proj.g_idx", DTYPE_I32, 384, 0)->data;
    for (int k = 0; k < 384; k++) assert_int_equal(groups[k], k / 128);
    checkpoint_close(checkpoint);
    assert_int_equal(tilebook("info %s", made), 0);
    assert_says(output, "gptq, 4 bits, group 128, symmetric|gptq_marlin|69 in 1 file");
}

/* The shape of config.json, ready to be written into `made`. */
static struct synthetic_options small_options(enum quant_method quant) {
    struct synthetic_options options = {.seed = 1, .directory = made};
    assert_int_equal(model_config_read(like, &options.config, &error), 0);
    strcpy(options.config.dtype, "float16");
    options.config.quant = quant;
    options.config.group = quant == QUANT_NONE ? 0 : 128;
    return options;
}

static void cuts_shards_with_the_same_bytes(void **state) {
    (void)state;
    char whole[160];
    snprintf(whole, sizeof whole, "%s-whole", made);
    struct synthetic_options options = small_options(QUANT_AWQ);
    options.shard_bytes = 100000;
    if (synthetic_write(&options, &error)) fail_msg("%s", error.text);
    options.directory = whole;
    options.shard_bytes = 0;
    if (synthetic_write(&options, &error)) fail_msg("%s", error.text);
    struct checkpoint *cut = open_made(), *one;
    if (checkpoint_open(whole, &one, &error)) fail_msg("%s", error.text);
    assert_int_equal(checkpoint_count(cut), checkpoint_count(one));
    for (int i = 0; i < checkpoint_count(cut); i++) {
        const struct tensor *a = checkpoint_at(cut, i), *b = checkpoint_at(one, i);
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    assert_string_not_equal(checkpoint_find(cut, "lm_head.weight")->file, "model.safetensors");
    assert_int_equal(strncmp(checkpoint_at(cut, 0)->file, "model-000", 9), 0);
    checkpoint_close(cut);
    checkpoint_close(one);
    model_dir_remove(whole);
}

static void seeds_differ(void **state) {
    (void)state;
    struct synthetic_options options = small_options(QUANT_NONE);
    uint64_t first[2];
    for (int i = 0; i < 2; i++) {
        options.seed = i;
        if (synthetic_write(&options, &error)) fail_msg("%s", error.text);
        struct checkpoint *checkpoint = open_made();
        memcpy(&first[i], checkpoint_find(checkpoint, "lm_head.weight")->data, 8);
        checkpoint_close(checkpoint);
        model_dir_remove(made);
    }
    assert_true(first[0] != first[1]);
}

static void lists_what_the_published_model_has(void **state) {
    (void)state;
    const struct {
        enum quant_method quant;
        int count;
        double gigabytes;
    } cases[] = {{QUANT_NONE, 579, 29.54}, {QUANT_AWQ, 1251, 9.98}, {QUANT_GPTQ, 1587, 9.99}};
    for (int i = 0; i < 3; i++) {
        struct model_config config;
        struct tensor_spec *specs;
        int count;
        assert_int_equal(model_config_named("qwen2.5-14b", &config, &error), 0);
        config.quant = cases[i].quant;
        config.group = 128;
        assert_int_equal(tensor_specs(&config, &specs, &count, &error), 0);
        double bytes = 0;
        for (int j = 0; j < count; j++) bytes += (double)specs[j].bytes;
        free(specs);
        assert_int_equal(count, cases[i].count);
        assert_float_equal(bytes / 1e9, cases[i].gigabytes, 0.006);
    }
}

static void leaves_nothing_half_written(void **state) {
    (void)state;
    struct synthetic_options options = small_options(QUANT_NONE);
    struct rlimit limit, old;
    struct checkpoint *checkpoint;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = old;
    limit.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &limit);
    int status = synthetic_write(&options, &error);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, -1);
    assert_says(error.text, "model.safetensors.partial|File too large");
    assert_int_equal(checkpoint_open(made, &checkpoint, &error), -1);
    assert_int_equal(rmdir(made), 0);
}

static void refuses_to_make(void **state) {
    (void)state;
    runs(2, "make", "which directory");
    runs(2, "make /tmp/x", "--like is missing");
    runs(2, "make --like qwen2.5-14b --quantization int8 /tmp/x", "int8|none, awq, gptq");
    runs(2, "make --like qwen2.5-14b --seed x /tmp/x", "--seed x|whole number from 0");
    runs(2, "make --like qwen2.5-14b --dtype int8 /tmp/x", "--dtype int8|bfloat16");
    runs(2, "make --like qwen2.5-14b -q awq --dtype bfloat16 /tmp/x", "4-bit checkpoints are float16");
    runs(1, "make --like qwen9 /tmp/tilebook-none", "qwen9|known: qwen2.5-0.5b");
    runs(1, "make --like /nonexistent/x /tmp/tilebook-none", "/nonexistent/x|no such directory");
    assert_int_equal(tilebook("make --like %s %s", like, like), 1);
    assert_says(output, "exists and holds 1 files|new or empty");
    assert_int_equal(tilebook("make --like %s %s/a/b", like, root), 1);
    assert_says(output, "No such file");
    char odd[2048];
    snprintf(odd, sizeof odd, "%s", small_config);
    memcpy(strstr(odd, "384"), "380", 3);
    model_dir_text(like, "config.json", odd);
    assert_int_equal(tilebook("make --like %s -q awq %s", like, made), 1);
    assert_says(output, "intermediate_size|380|multiples of 128");
}

static void info_refuses_what_does_not_fit(void **state) {
    (void)state;
    struct synthetic_options options = small_options(QUANT_NONE);
    runs(2, "info", "which directory");
    runs(1, "info /nonexistent/x", "/nonexistent/x|no such directory");
    assert_int_equal(tilebook("info %s", like), 1);
    assert_says(output, "there are no weights|model.safetensors");
    options.shard_bytes = 100000;
    if (synthetic_write(&options, &error)) fail_msg("%s", error.text);
    model_dir_text(made, "config.json", small_config);
    assert_int_equal(tilebook("info %s", made), 0);
    char wrong[2048];
    snprintf(wrong, sizeof wrong, "%s", small_config);
    memcpy(strstr(wrong, "384"), "512", 3);
    model_dir_text(made, "config.json", wrong);
    assert_int_equal(tilebook("info %s", made), 1);
    assert_says(output, "gate_proj.weight|expected|[512, 256]|found F16 [384, 256]");
    struct checkpoint *checkpoint = open_made();
    model_dir_delete(made, checkpoint_find(checkpoint, "lm_head.weight")->file);
    checkpoint_close(checkpoint);
    assert_int_equal(tilebook("info %s", made), 1);
    assert_says(output, "missing|fetch the file again");
    assert_int_equal(tilebook("info tests/fixtures/tiny-qwen2 >/dev/full"), 1);
    assert_says(output, "standard output|No space left");
}

static void tokenizes(void **state) {
    (void)state;
    model_dir_text(root, "text", "\"a\"\n\"\"\n\"<|im_end|>\"\n");
    assert_int_equal(tilebook("tokenize tests/fixtures/tiny-qwen2 --jsonl <%s/text", root), 0);
    assert_string_equal(output, "[64]\n[]\n[1026]\n");
    model_dir_text(root, "text", "a<|im_end|>");
    assert_int_equal(tilebook("tokenize tests/fixtures/tiny-qwen2 <%s/text", root), 0);
    assert_string_equal(output, "[64, 1026]\n");
    model_dir_text(root, "text", "\"a\"\nb\n");
    assert_int_equal(tilebook("tokenize tests/fixtures/tiny-qwen2 --jsonl <%s/text", root), 1);
    assert_says(output, "[64]|standard input: line 2");
    model_dir_text(root, "text", "a\xff");
    assert_int_equal(tilebook("tokenize tests/fixtures/tiny-qwen2 <%s/text", root), 1);
    assert_says(output, "UTF-8 at byte 1");
    assert_int_equal(tilebook("tokenize %s </dev/null", like), 1);
    assert_says(output, "tokenizer.json|No such file");
    runs(2, "tokenize", "which directory");
    runs(2, "tokenize --lines x", "unrecognized option");
}

static void copies_the_tokenizer(void **state) {
    (void)state;
    assert_int_equal(tilebook("make --like tests/fixtures/tiny-qwen2-gptq -q awq %s", made), 0);
    assert_null(strstr(output, "no tokenizer"));
    model_dir_text(root, "text", "a<|im_end|>");
    assert_int_equal(tilebook("tokenize %s <%s/text", made, root), 0);
    assert_string_equal(output, "[64, 1026]\n");
}

static void says_how_to_use_it(void **state) {
    (void)state;
    runs(0, "--help", "info|tokenize|make");
    runs(2, "", "usage: tilebook model");
    runs(2, "show", "no action 'show'|usage");
    runs(0, "make --help", "Usage: tilebook model make|--like|--quantization|--seed|--dtype");
    runs(0, "tokenize --help", "--jsonl");
    runs(0, "info --help", "DIR");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(makes_unquantised),
        TEST(makes_awq),
        TEST(makes_gptq),
        TEST(cuts_shards_with_the_same_bytes),
        TEST(seeds_differ),
        TEST(lists_what_the_published_model_has),
        TEST(leaves_nothing_half_written),
        TEST(refuses_to_make),
        TEST(info_refuses_what_does_not_fit),
        TEST(tokenizes),
        TEST(copies_the_tokenizer),
        TEST(says_how_to_use_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
