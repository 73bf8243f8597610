/* Checkpoints that are well-formed files but not models: each is a fixture with a few bytes changed. */
#include "tests/golden.h"
#include "tests/model_dir.h"

static char directory[64];

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

static void copy_fixture(const char *name) {
    char command[256];
    snprintf(command, sizeof command, "cp " FIXTURES "%s/*.json " FIXTURES "%s/*.safetensors %s/", name, name,
             directory);
    assert_int_equal(system(command), 0);
}

/* Overwrites `count` bytes of a tensor in a safetensors file: 8 bytes of length, a JSON header, the data. */
static void patch(const char *file_name, const char *tensor, long at, const void *bytes, size_t count) {
    char path[128];
    uint64_t length;
    snprintf(path, sizeof path, "%s/%s", directory, file_name);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fread(&length, sizeof length, 1, file), 1);
    char *text = malloc(length);
    assert_int_equal(fread(text, 1, length, file), length);
    json_t *header = json_loadb(text, length, 0, NULL);
    json_t *offsets = json_object_get(json_object_get(header, tensor), "data_offsets");
    assert_non_null(offsets);
    long start = 8 + (long)length + (long)json_integer_value(json_array_get(offsets, 0));
    assert_int_equal(fseek(file, start + at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
    json_decref(header);
    free(text);
}

/* Loads the changed copy; the message must have all parts. */
static void refuses(enum method method, const char *parts) {
    struct error error = {""};
    struct device *device;
    struct model_config config;
    struct checkpoint *checkpoint;
    struct model *model;
    struct model_options options = {.method = method, .context = 16, .chunk = 16};
    must(device_open("cpu", &device, &error), &error);
    must(model_config_read(directory, &config, &error), &error);
    must(checkpoint_open(directory, &checkpoint, &error), &error);
    assert_int_equal(model_create(device, &config, checkpoint, &options, &model, &error), -1);
    assert_says(error.text, parts);
    checkpoint_close(checkpoint);
    device_close(device);
}

static void a_value_beyond_fp16(void **state) {
    (void)state;
    const uint16_t bf16_70000 = 0x4789;
    copy_fixture("tiny-qwen2");
    patch("model-00001-of-00002.safetensors", "model.layers.0.self_attn.q_proj.weight", 20, &bf16_70000, 2);
    refuses(METHOD_NONE,
            "model.layers.0.self_attn.q_proj.weight|70144|element 10|65504|model-00001-of-00002.safetensors");
}

static void zero_points_that_are_not_symmetric(void **state) {
    (void)state;
    const uint32_t word = 0x77778777;
    copy_fixture("tiny-qwen2-gptq");
    patch("model.safetensors", "model.layers.1.mlp.up_proj.qzeros", 4, &word, 4);
    refuses(METHOD_GPTQ_MARLIN, "sym|model.layers.1.mlp.up_proj.qzeros|0x77778777|0x77777777|config.json");
}

static void a_bias_where_qwen2_has_none(void **state) {
    (void)state;
    const uint16_t one = 0x3c00;
    copy_fixture("tiny-qwen2-gptq-desc-act");
    patch("model.safetensors", "model.layers.1.mlp.down_proj.bias", 6, &one, 2);
    refuses(METHOD_GPTQ_MARLIN, "model.layers.1.mlp.down_proj.bias|not zero");
}

static void groups_that_cannot_be_fused(void **state) {
    (void)state;
    int32_t g_idx[256];
    for (int i = 0; i < 256; i++) g_idx[i] = i / 64;
    copy_fixture("tiny-qwen2-gptq-desc-act");
    patch("model.safetensors", "model.layers.0.self_attn.k_proj.g_idx", 0, g_idx, sizeof g_idx);
    refuses(METHOD_GPTQ, "layer 0|self_attn.q_proj|self_attn.k_proj|g_idx");
}

static void groups_of_unequal_size(void **state) {
    (void)state;
    const int32_t group = 0;
    copy_fixture("tiny-qwen2-gptq");
    patch("model.safetensors", "model.layers.0.self_attn.o_proj.g_idx", 4 * 200, &group, 4);
    refuses(METHOD_GPTQ, "g_idx");
}

static void a_tensor_that_is_not_there(void **state) {
    (void)state;
    copy_fixture("tiny-qwen2-awq");
    char command[256];
    snprintf(command, sizeof command,
             "sed -i s/layers.1.mlp.gate_proj.scales/layers.1.mlp.gate_proj.scalez/ %s/*.safetensors", directory);
    assert_int_equal(system(command), 0);
    refuses(METHOD_AWQ, "model.layers.1.mlp.gate_proj.scales");
}

static void a_context_beyond_the_model(void **state) {
    (void)state;
    struct error error = {""};
    struct model *model;
    struct subject s;
    subject_open(&s, "cpu", "tiny-qwen2", METHOD_NONE, 1, NULL);
    struct model_options options = {.method = METHOD_NONE, .context = 513, .chunk = 1};
    assert_int_equal(model_create(s.device, &s.config, s.checkpoint, &options, &model, &error), -1);
    assert_says(error.text, "513|512|max_position_embeddings");
    subject_close(&s);
}

static void a_shape_that_no_kernel_takes(void **state) {
    (void)state;
    struct error error = {""};
    struct model *model;
    struct subject s;
    subject_open(&s, "cpu", "tiny-qwen2-awq", METHOD_AWQ, 1, NULL);
    struct model_options options = {.method = METHOD_AWQ, .context = 1, .chunk = 1, .synthetic = true};
    struct model_config odd = s.config;
    odd.intermediate = 704;
    assert_int_equal(model_create(s.device, &odd, NULL, &options, &model, &error), -1);
    assert_says(error.text, "down|704|divisible by 128");
    odd = s.config;
    odd.group = 96;
    assert_int_equal(model_create(s.device, &odd, NULL, &options, &model, &error), -1);
    assert_says(error.text, "96|32, 64, 128");
    odd = s.config;
    odd.vocab = 2097152;
    odd.hidden = odd.heads * odd.head_dim * 8;
    odd.heads *= 8;
    odd.kv_heads *= 8;
    assert_int_equal(model_create(s.device, &odd, NULL, &options, &model, &error), -1);
    assert_says(error.text, "lm_head|2^31");
    subject_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_value_beyond_fp16, set_up, tear_down),
        cmocka_unit_test_setup_teardown(zero_points_that_are_not_symmetric, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bias_where_qwen2_has_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(groups_that_cannot_be_fused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(groups_of_unequal_size, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_tensor_that_is_not_there, set_up, tear_down),
        cmocka_unit_test(a_context_beyond_the_model),
        cmocka_unit_test(a_shape_that_no_kernel_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
