/* Which method runs a checkpoint, and what is said when it cannot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/decoder/model.h"

static struct model_config config_of(enum quant_method quant) {
    struct model_config config = {.quant = quant, .dtype = "bfloat16", .quant_file = "config.json", .group = 128};
    return config;
}

static void names_and_methods_are_one_to_one(void **state) {
    (void)state;
    for (int i = METHOD_AUTO; i <= METHOD_GPTQ_MARLIN; i++) {
        enum method method;
        assert_int_equal(method_parse(method_name((enum method)i), &method, NULL), 0);
        assert_int_equal(method, i);
    }
    struct error error = {""};
    enum method method;
    assert_int_equal(method_parse("marlin", &method, &error), -1);
    assert_non_null(strstr(error.text, "'marlin'"));
    assert_non_null(strstr(error.text, "gptq_marlin"));
}

static void each_checkpoint_has_its_methods(void **state) {
    (void)state;
    static const enum quant_method kind[] = {
        [METHOD_NONE] = QUANT_NONE, [METHOD_AWQ] = QUANT_AWQ,          [METHOD_AWQ_MARLIN] = QUANT_AWQ,
        [METHOD_GPTQ] = QUANT_GPTQ, [METHOD_GPTQ_MARLIN] = QUANT_GPTQ,
    };
    for (int quant = QUANT_NONE; quant <= QUANT_GPTQ; quant++)
        for (int asked = METHOD_NONE; asked <= METHOD_GPTQ_MARLIN; asked++) {
            struct model_config config = config_of((enum quant_method)quant);
            enum method method;
            int status = method_resolve((enum method)asked, &config, "dir", &method, NULL);
            assert_int_equal(status, kind[asked] == (enum quant_method)quant ? 0 : -1);
            if (!status) assert_int_equal(method, asked);
        }
}

static void auto_takes_the_fastest(void **state) {
    (void)state;
    static const enum method best[] = {METHOD_NONE, METHOD_AWQ_MARLIN, METHOD_GPTQ_MARLIN};
    for (int quant = QUANT_NONE; quant <= QUANT_GPTQ; quant++) {
        struct model_config config = config_of((enum quant_method)quant);
        enum method method;
        assert_int_equal(method_resolve(METHOD_AUTO, &config, "dir", &method, NULL), 0);
        assert_int_equal(method, best[quant]);
    }
}

static void refuses(enum method asked, const struct model_config *config, const char *const *words) {
    struct error error = {""};
    enum method method;
    assert_int_equal(method_resolve(asked, config, "models/it", &method, &error), -1);
    for (; *words; words++)
        if (!strstr(error.text, *words)) fail_msg("no '%s' in: %s", *words, error.text);
}

#define REFUSES(asked, config, ...) refuses(asked, config, (const char *const[]){__VA_ARGS__, NULL})

static void a_refusal_says_what_is_there_and_what_next(void **state) {
    (void)state;
    struct model_config plain = config_of(QUANT_NONE), awq = config_of(QUANT_AWQ), gptq = config_of(QUANT_GPTQ);
    gptq.quant_file = "quantize_config.json";
    REFUSES(METHOD_AWQ, &plain, "--quantization awq was asked", "models/it", "not quantised", "config.json", "bfloat16",
            "run with: none", "tilebook decode --model models/it --quantization none");
    REFUSES(METHOD_NONE, &awq, "quantised with AWQ (config.json: quant_method)", "awq_marlin, awq",
            "--quantization awq_marlin");
    REFUSES(METHOD_AWQ_MARLIN, &gptq, "quantised with GPTQ (quantize_config.json: quant_method)", "gptq_marlin, gptq");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_methods_are_one_to_one),
        cmocka_unit_test(each_checkpoint_has_its_methods),
        cmocka_unit_test(auto_takes_the_fastest),
        cmocka_unit_test(a_refusal_says_what_is_there_and_what_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
