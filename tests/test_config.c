/* config.json in its many spellings: what is read, and how the rest is refused. */
#include "tests/model_dir.h"

#include "bench/decoder/config.h"
#include "bench/decoder/jsonfile.h"

#define SHAPE                                                                                                          \
    "\"hidden_size\": 256, \"intermediate_size\": 512, \"num_hidden_layers\": 2, \"num_attention_heads\": 2, "         \
    "\"num_key_value_heads\": 1, \"vocab_size\": 300, \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-05"
#define QWEN "\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", "
#define BASE QWEN SHAPE ", \"rope_theta\": 1000000.0"
#define AWQ "\"bits\": 4, \"group_size\": 128, \"quant_method\": \"awq\", \"version\": \"gemm\", \"zero_point\": true"
#define GPTQ "\"bits\": 4, \"group_size\": 64, \"quant_method\": \"gptq\", \"sym\": true, \"desc_act\": false"

static char directory[64];
static struct model_config config;
static struct error error;

static int setup(void **state) {
    (void)state;
    model_dir_make(directory);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    model_dir_remove(directory);
    return 0;
}

static int read_config(const char *fields) {
    char text[4096];
    snprintf(text, sizeof text, "{%s}", fields);
    model_dir_text(directory, "config.json", text);
    error.text[0] = 0;
    return model_config_read(directory, &config, &error);
}

static void accepted(const char *fields) {
    if (read_config(fields)) fail_msg("%s", error.text);
}

static void refused(const char *fields, const char *parts) {
    if (!read_config(fields)) fail_msg("accepted: %s", fields);
    assert_says(error.text, parts);
}

static void reads_transformers_4(void **state) {
    (void)state;
    accepted(BASE ", \"torch_dtype\": \"bfloat16\", \"rope_scaling\": null, \"use_sliding_window\": false, "
                  "\"sliding_window\": 131072, \"tie_word_embeddings\": false, \"eos_token_id\": 7");
    assert_int_equal(config.hidden, 256);
    assert_int_equal(config.intermediate, 512);
    assert_int_equal(config.head_dim, 128);
    assert_int_equal(config.vocab, 300);
    assert_float_equal(config.rms_eps, 1e-5, 1e-12);
    assert_float_equal(config.rope_theta, 1e6, 0);
    assert_string_equal(config.dtype, "bfloat16");
    assert_int_equal(config.quant, QUANT_NONE);
    assert_int_equal(config.eos_count, 1);
    assert_int_equal(config.eos[0], 7);
    assert_float_equal(config.temperature, 1, 0);
    assert_false(config.tied || config.synthetic || config.do_sample);
}

static void reads_transformers_5(void **state) {
    (void)state;
    accepted(QWEN SHAPE ", \"dtype\": \"float16\", \"head_dim\": 64, \"layer_types\": [\"full_attention\"], "
                        "\"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"}");
    assert_float_equal(config.rope_theta, 5e5, 0);
    assert_int_equal(config.head_dim, 64);
    assert_string_equal(config.dtype, "float16");
    accepted("\"model_type\": \"qwen2\", " SHAPE ", \"rope_theta\": 10000, \"rope_parameters\": {\"rope_type\": "
             "\"default\"}, \"tilebook_synthetic\": 3, \"tie_word_embeddings\": true");
    assert_float_equal(config.rope_theta, 1e4, 0);
    assert_true(config.synthetic && config.tied);
}

static void reads_generation_config(void **state) {
    (void)state;
    model_dir_text(directory, "generation_config.json",
                   "{\"do_sample\": true, \"temperature\": 0.7, \"top_p\": 0.8, \"top_k\": 20, "
                   "\"repetition_penalty\": 1.05, \"eos_token_id\": [5, 3]}");
    accepted(BASE ", \"eos_token_id\": 9");
    assert_true(config.do_sample);
    assert_int_equal(config.top_k, 20);
    assert_float_equal(config.temperature, 0.7, 1e-12);
    assert_float_equal(config.repetition_penalty, 1.05, 1e-12);
    assert_int_equal(config.eos_count, 2);
    assert_int_equal(config.eos[1], 3);
    model_dir_text(directory, "generation_config.json", "{\"top_p\": 7}");
    refused(BASE, "generation_config.json|top_p|found 7|from 0 to 1");
    model_dir_text(directory, "generation_config.json", "{\"eos_token_id\": [1,2,3,4,5,6,7,8,9]}");
    refused(BASE, "eos_token_id|at most 8");
}

static void reads_quantisation(void **state) {
    (void)state;
    accepted(BASE ", \"quantization_config\": {" AWQ ", \"modules_to_not_convert\": null}");
    assert_int_equal(config.quant, QUANT_AWQ);
    assert_int_equal(config.group, 128);
    assert_string_equal(config.quant_file, "config.json");
    assert_false(config.symmetric || config.group_all);
    accepted(BASE ", \"quantization_config\": {" GPTQ ", \"unknown\": [1], \"modules_to_not_convert\": [\"lm_head\"]}");
    assert_int_equal(config.quant, QUANT_GPTQ);
    assert_int_equal(config.group, 64);
    assert_true(config.symmetric && !config.desc_act && !config.gptq_v2);
    accepted(BASE ", \"quantization_config\": {\"bits\": 4, \"group_size\": -1, \"quant_method\": \"gptq\", "
                  "\"sym\": false, \"desc_act\": true, \"checkpoint_format\": \"gptq_v2\"}");
    assert_true(config.group_all && config.group == 0 && config.desc_act && config.gptq_v2 && !config.symmetric);
}

static void reads_quantize_config(void **state) {
    (void)state;
    model_dir_text(directory, "quantize_config.json",
                   "{\"bits\": 4, \"group_size\": 32, \"sym\": true, \"desc_act\": true}");
    accepted(BASE ", \"quantization_config\": null");
    assert_int_equal(config.quant, QUANT_GPTQ);
    assert_int_equal(config.group, 32);
    assert_string_equal(config.quant_file, "quantize_config.json");
    model_dir_text(directory, "quantize_config.json", "{\"bits\": 3, \"group_size\": 32}");
    refused(BASE, "quantize_config.json|bits|found 3");
    model_dir_text(directory, "quant_config.json", "{}");
    refused(BASE, "quant_config.json|llm-awq");
}

static void refuses_other_models(void **state) {
    (void)state;
    refused("\"architectures\": [\"LlamaForCausalLM\"], " SHAPE,
            "config.json|architectures|LlamaForCausalLM|Qwen2ForCausalLM");
    refused(SHAPE, "model_type|found nothing|qwen2");
    refused("\"architectures\": 3, " SHAPE, "architectures|found 3");
    refused(BASE ", \"hidden_act\": \"gelu\"", "hidden_act|gelu|silu");
    refused(BASE ", \"use_sliding_window\": true", "use_sliding_window|found true");
    refused(BASE ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]", "layer_types|sliding_attention");
    refused(BASE ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0}", "rope_scaling|yarn|default");
    refused(BASE ", \"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"llama3\"}", "rope_parameters|llama3");
    refused(BASE ", \"rope_parameters\": [1]", "rope_parameters");
    refused(BASE ", \"dtype\": \"float8\"", "dtype|float8|bfloat16");
}

static void refuses_numbers(void **state) {
    (void)state;
    static const char *const fields[] = {"hidden_size",         "intermediate_size", "num_hidden_layers",
                                         "num_attention_heads", "vocab_size",        "max_position_embeddings",
                                         "num_key_value_heads", "head_dim",          "rms_norm_eps"};
    static const char *const values[] = {"-1", "9223372036854775807", "\"4\"", "[]", "1e300", "true"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (size_t j = 0; j < sizeof values / sizeof *values; j++) {
            char text[256];
            json_t *root = json_loads("{" BASE "}", 0, NULL), *value = json_loads(values[j], JSON_DECODE_ANY, NULL);
            json_object_set_new(root, fields[i], value);
            char *all = json_dumps(root, 0);
            all[strlen(all) - 1] = 0;
            snprintf(text, sizeof text, "config.json|%s|found", fields[i]);
            refused(all + 1, text);
            free(all);
            json_decref(root);
        }
    refused(QWEN SHAPE, "rope_theta|found nothing");
    refused(BASE ", \"hidden_size\": 5", "duplicate");
    refused(QWEN "\"hidden_size\": 256, \"intermediate_size\": 512, \"num_hidden_layers\": 2, \"num_attention_heads\": "
                 "4, \"num_key_value_heads\": 3, \"vocab_size\": 300, \"max_position_embeddings\": 9",
            "num_key_value_heads|divisor");
}

static void refuses_quantisation(void **state) {
    (void)state;
    const struct {
        const char *quant, *says;
    } cases[] = {
        {"\"bits\": 8, \"group_size\": 128, \"quant_method\": \"awq\"", "bits|found 8|accepted: 4"},
        {"\"bits\": 4, \"group_size\": 16, \"quant_method\": \"awq\"", "group_size|found 16|32, 64, 128"},
        {"\"bits\": 4, \"group_size\": 128, \"quant_method\": \"awq\", \"version\": \"gemv\"", "version|gemv|gemm"},
        {AWQ ", \"backend\": \"llm-awq\"", "backend|llm-awq|gemm"},
        {"\"bits\": 4, \"group_size\": 128, \"quant_method\": \"awq\", \"zero_point\": false", "zero_point|false"},
        {AWQ ", \"modules_to_not_convert\": [\"lm_head\", \"q_proj\"]", "modules_to_not_convert|q_proj"},
        {AWQ ", \"modules_to_not_convert\": \"q_proj\"", "modules_to_not_convert"},
        {"\"quant_method\": \"bitsandbytes\"", "quant_method|bitsandbytes|gptq"},
        {"\"bits\": 4, \"group_size\": 128", "quant_method|found nothing"},
        {"\"bits\": 4, \"group_size\": 128, \"quant_method\": \"gptq\", \"sym\": true", "desc_act|found nothing"},
        {GPTQ ", \"checkpoint_format\": \"marlin\"", "checkpoint_format|marlin|gptq_v2"},
        {GPTQ ", \"is_marlin_format\": true", "is_marlin_format"},
        {GPTQ ", \"lm_head\": true", "lm_head"},
        {GPTQ ", \"dynamic\": {\"-:x\": {}}", "dynamic"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[2048];
        snprintf(text, sizeof text, BASE ", \"quantization_config\": {%s}", cases[i].quant);
        refused(text, "config.json");
        assert_says(error.text, cases[i].says);
    }
    refused(BASE ", \"quantization_config\": 4", "quantization_config|found 4");
}

static void refuses_files(void **state) {
    (void)state;
    assert_int_equal(model_config_read("/nonexistent/model", &config, &error), -1);
    assert_says(error.text, "/nonexistent/model|no such directory");
    model_dir_delete(directory, "config.json");
    assert_int_equal(model_config_read(directory, &config, &error), -1);
    assert_says(error.text, "there is no config.json");
    model_dir_text(directory, "config.json", "");
    assert_int_equal(model_config_read(directory, &config, &error), -1);
    assert_says(error.text, "config.json|0 bytes");
    model_dir_text(directory, "config.json", "[]");
    assert_int_equal(model_config_read(directory, &config, &error), -1);
    assert_says(error.text, "config.json|object");
    refused("\"hidden_size\": ", "config.json|line 1|not JSON");
}

static void knows_a_model_by_name(void **state) {
    (void)state;
    assert_int_equal(model_config_named("qwen2.5-14b", &config, &error), 0);
    assert_int_equal(config.hidden, config.heads * config.head_dim);
    assert_int_equal(config.layers, 48);
    assert_int_equal(model_config_named("gpt-2", &config, &error), -1);
    assert_says(error.text, "gpt-2|qwen2.5-14b");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(reads_transformers_4),  TEST(reads_transformers_5),  TEST(reads_generation_config),
        TEST(reads_quantisation),    TEST(reads_quantize_config), TEST(refuses_other_models),
        TEST(refuses_numbers),       TEST(refuses_quantisation),  TEST(refuses_files),
        TEST(knows_a_model_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
