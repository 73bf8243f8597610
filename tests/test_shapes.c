#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#include "bench/shapes.h"

static void check_shape(const struct shapes *shapes, int index, const char *layer, int k, int n, bool quantized) {
    assert_true(index < shapes->count);
    assert_string_equal(shapes->list[index].layer, layer);
    assert_int_equal(shapes->list[index].k, k);
    assert_int_equal(shapes->list[index].n, n);
    assert_int_equal(shapes->list[index].quantized, quantized);
}

static void named_model(void **state) {
    (void)state;
    struct shapes shapes;
    struct error error;
    assert_int_equal(shapes_parse("qwen2.5-14b", &shapes, &error), 0);
    assert_string_equal(shapes.model, "qwen2.5-14b");
    assert_int_equal(shapes.group, 128);
    assert_int_equal(shapes.count, 5);
    check_shape(&shapes, 0, "qkv", 5120, 7168, true);
    check_shape(&shapes, 1, "o", 5120, 5120, true);
    check_shape(&shapes, 2, "gate_up", 5120, 27648, true);
    check_shape(&shapes, 3, "down", 13824, 5120, true);
    check_shape(&shapes, 4, "lm_head", 5120, 152064, false);
    static const enum epilogue epilogues[] = {EPILOGUE_BIAS, EPILOGUE_RESIDUAL, EPILOGUE_SILU_MUL, EPILOGUE_RESIDUAL,
                                              EPILOGUE_NONE};
    for (int i = 0; i < 5; i++) assert_int_equal(shapes.list[i].epilogue, epilogues[i]);
    shapes_free(&shapes);
    assert_null(shapes.list);
}

static void other_models(void **state) {
    (void)state;
    struct shapes shapes;
    struct error error = {""};
    if (shapes_parse("qwen2.5-72b:tp4", &shapes, &error)) fail_msg("%s", error.text);
    assert_string_equal(shapes.model, "qwen2.5-72b");
    check_shape(&shapes, 0, "qkv", 8192, (8192 + 2 * 8 * 128) / 4, true);
    check_shape(&shapes, 1, "o", 2048, 8192, true);
    check_shape(&shapes, 2, "gate_up", 8192, 14784, true);
    check_shape(&shapes, 3, "down", 7392, 8192, true);
    check_shape(&shapes, 4, "lm_head", 8192, 38016, false);
    shapes_free(&shapes);
    if (shapes_parse("llama-3-8b", &shapes, &error)) fail_msg("%s", error.text);
    check_shape(&shapes, 0, "qkv", 4096, 6144, true);
    assert_int_equal(shapes.list[0].epilogue, EPILOGUE_NONE);
    assert_int_equal(shapes.list[2].epilogue, EPILOGUE_SILU_MUL);
    check_shape(&shapes, 3, "down", 14336, 4096, true);
    shapes_free(&shapes);
    assert_int_equal(shapes_parse("qwen2.5-7b:tp8", &shapes, &error), -1);
    assert_non_null(strstr(error.text, "tp8: 28 heads, 4 key-value heads"));
    assert_int_equal(shapes_parse("qwen2.5-7b:tp0", &shapes, &error), -1);
    assert_non_null(strstr(error.text, "'qwen2.5-7b:tp0' is not a model"));
}

/* Every named model has shapes that the GEMMs take. */
static void named_models_are_legal(void **state) {
    (void)state;
    static const char *const names[] = {"qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "qwen2.5-14b",
                                        "qwen2.5-32b",  "qwen2.5-72b",  "llama-3-8b", "llama-3-70b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct shapes shapes;
        struct error error = {""};
        if (shapes_parse(names[i], &shapes, &error)) fail_msg("%s", error.text);
        for (int s = 0; s < shapes.count; s++) {
            enum op op = shapes.list[s].quantized ? OP_MARLIN_GEMM : OP_FP16_GEMM;
            struct problem problem = shape_problem(&shapes.list[s], op, 1, 128, true, shapes.list[s].epilogue);
            if (problem_check(&problem, &error)) fail_msg("%s %s: %s", names[i], shapes.list[s].layer, error.text);
        }
        shapes_free(&shapes);
    }
}

static void plain_list(void **state) {
    (void)state;
    struct shapes shapes;
    struct error error;
    assert_int_equal(shapes_parse("1024x512,256x64", &shapes, &error), 0);
    assert_string_equal(shapes.model, "");
    assert_int_equal(shapes.count, 2);
    check_shape(&shapes, 0, "1024x512", 1024, 512, true);
    check_shape(&shapes, 1, "256x64", 256, 64, true);
    shapes_free(&shapes);
}

static void bad_shapes(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",       "1024",     "x",      "1024x", "0x64",           "-1x64",         "64x64,",      ",64x64",
        "64x64 ", "64x64x64", "1e3x64", "64X64", "99999999999x64", "64x4294967297", "qwen2.5-15b", "64x64;64x64"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct shapes shapes;
        struct error error = {""};
        assert_int_equal(shapes_parse(texts[i], &shapes, &error), -1);
        assert_non_null(strstr(error.text, "KxN"));
        assert_null(shapes.list);
    }
    struct shapes shapes;
    struct error error = {""};
    assert_int_equal(shapes_parse("64x64,128x64,64x64", &shapes, &error), -1);
    assert_non_null(strstr(error.text, "64x64 is given twice"));
    assert_int_equal(shapes_parse("/nonexistent/model", &shapes, &error), -1);
    assert_non_null(strstr(error.text, "/nonexistent/model"));
}

static void names_and_their_own_m(void **state) {
    (void)state;
    struct shapes shapes;
    struct error error = {""};
    if (shapes_parse("qkv=1024x512@16,256x64@1,256x64@2,o_2.b-c=64x64", &shapes, &error)) fail_msg("%s", error.text);
    static const int m[] = {16, 1, 2, 0};
    assert_int_equal(shapes.count, 4);
    check_shape(&shapes, 0, "qkv", 1024, 512, true);
    check_shape(&shapes, 1, "256x64", 256, 64, true);
    check_shape(&shapes, 3, "o_2.b-c", 64, 64, true);
    for (int i = 0; i < 4; i++) assert_int_equal(shapes.list[i].m, m[i]);
    shapes_free(&shapes);
    static const char *const twice[] = {"64x64@2,64x64@2", "64x64,64x64@2", "64x64@2,64x64", "a=64x64,a=64x128"};
    for (size_t i = 0; i < sizeof twice / sizeof *twice; i++) {
        assert_int_equal(shapes_parse(twice[i], &shapes, &error), -1);
        assert_non_null(strstr(error.text, "is given twice"));
    }
    static const char *const bad[] = {
        "64x64@", "64x64@0", "64x64@x", "=64x64", "a b=64x64", "a=", "abcdefghijklmnopqrstuvwxy=64x64", "64x64@1@2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(shapes_parse(bad[i], &shapes, &error), -1);
        assert_non_null(strstr(error.text, "[NAME=]KxN[@M]"));
    }
}

static void write_text(const char *directory, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void file_of_shapes(void **state) {
    (void)state;
    char directory[] = "/tmp/tilebook-shapes-XXXXXX", path[64];
    struct shapes shapes;
    struct error error = {""};
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/list", directory);
    write_text(directory, "list",
               "# a model of our own\n\nqkv=1024x512  o=512x512@16\t# one M\n, 64x64 ,128x64\r\n256x64");
    if (shapes_parse(path, &shapes, &error)) fail_msg("%s", error.text);
    assert_int_equal(shapes.count, 5);
    assert_int_equal(shapes.group, 128);
    check_shape(&shapes, 0, "qkv", 1024, 512, true);
    check_shape(&shapes, 1, "o", 512, 512, true);
    check_shape(&shapes, 3, "128x64", 128, 64, true);
    check_shape(&shapes, 4, "256x64", 256, 64, true);
    assert_int_equal(shapes.list[1].m, 16);
    shapes_free(&shapes);
    write_text(directory, "list", "64x64\n\n64x64\n");
    assert_int_equal(shapes_parse(path, &shapes, &error), -1);
    assert_non_null(strstr(error.text, "/list:3: shape 64x64 is given twice"));
    write_text(directory, "list", "64x64 qwen2.5-14b\n");
    assert_int_equal(shapes_parse(path, &shapes, &error), -1);
    assert_non_null(strstr(error.text, "/list:1: shapes: 'qwen2.5-14b'"));
    write_text(directory, "list", "# none\n");
    assert_int_equal(shapes_parse(path, &shapes, &error), -1);
    assert_non_null(strstr(error.text, "holds none"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

static void model_directory(void **state) {
    (void)state;
    char directory[] = "/tmp/tilebook-shapes-XXXXXX", path[64], path_slash[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/config.json", directory);
    snprintf(path_slash, sizeof path_slash, "%s/", directory);
    write_text(directory, "config.json",
               "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"hidden_act\": \"silu\","
               "\"hidden_size\": 256, \"intermediate_size\": 640, \"num_hidden_layers\": 2,"
               "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 1024,"
               "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-06, \"rope_theta\": 10000.0,"
               "\"tie_word_embeddings\": false, \"torch_dtype\": \"float16\", \"use_sliding_window\": false,"
               "\"quantization_config\": {\"bits\": 4, \"group_size\": 64, \"quant_method\": \"awq\","
               "\"version\": \"gemm\", \"zero_point\": true, \"modules_to_not_convert\": null}}");
    struct shapes shapes;
    struct error error = {""};
    if (shapes_parse(path_slash, &shapes, &error)) fail_msg("%s", error.text);
    assert_string_equal(shapes.model, strrchr(directory, '/') + 1);
    assert_int_equal(shapes.group, 64);
    assert_int_equal(shapes.count, 5);
    check_shape(&shapes, 0, "qkv", 256, 256 + 2 * 2 * 64, true);
    check_shape(&shapes, 1, "o", 256, 256, true);
    check_shape(&shapes, 2, "gate_up", 256, 1280, true);
    check_shape(&shapes, 3, "down", 640, 256, true);
    check_shape(&shapes, 4, "lm_head", 256, 1024, false);
    shapes_free(&shapes);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

static void check_list(const char *text, int expected_count, const int *expected) {
    int *list, count;
    struct error error = {""};
    if (m_list_parse(text, &list, &count, &error)) fail_msg("%s", error.text);
    assert_int_equal(count, expected_count);
    assert_memory_equal(list, expected, (size_t)count * sizeof *list);
    free(list);
}

static void lists_of_m(void **state) {
    (void)state;
    check_list("16", 1, (int[]){16});
    check_list("256,1,16,16", 3, (int[]){1, 16, 256});
    check_list("1:8:x2", 4, (int[]){1, 2, 4, 8});
    check_list("3:20:x3", 2, (int[]){3, 9});
    check_list("1:25:+8", 4, (int[]){1, 9, 17, 25});
    check_list("5:5:+1,1:4:x2", 4, (int[]){1, 2, 4, 5});
    check_list("2147483647:2147483647:x2", 1, (int[]){2147483647});
}

static void bad_lists_of_m(void **state) {
    (void)state;
    static const char *const texts[] = {"",     "0",     "-1",    "a",      "1,",     ",1",    "1 2",        "1:8",
                                        "1:8:", "1:8:2", "1:8:x", "1:8:x1", "8:1:x2", "1::x2", "2147483648", "1:8:+0"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int *list, count;
        struct error error = {""};
        assert_int_equal(m_list_parse(texts[i], &list, &count, &error), -1);
        assert_non_null(strstr(error.text, "1:8192:x2"));
        assert_null(list);
    }
    int *list, count;
    struct error error = {""};
    assert_int_equal(m_list_parse("1:100000:+1", &list, &count, &error), -1);
    assert_non_null(strstr(error.text, "more than 4096"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_model),
        cmocka_unit_test(other_models),
        cmocka_unit_test(named_models_are_legal),
        cmocka_unit_test(plain_list),
        cmocka_unit_test(names_and_their_own_m),
        cmocka_unit_test(file_of_shapes),
        cmocka_unit_test(bad_shapes),
        cmocka_unit_test(model_directory),
        cmocka_unit_test(lists_of_m),
        cmocka_unit_test(bad_lists_of_m),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
