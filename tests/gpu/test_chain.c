/* Chains of GEMMs as graphs: what they leave is checked by chain_measure itself, in both regimes. Argument: "small"
 * says that a sanitizer runs this. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "bench/chain.h"
#include "tests/gpu/devices.h"

static struct shape small[] = {{"qkv", 512, 768, true, EPILOGUE_BIAS, 0},
                               {"o", 512, 512, true, EPILOGUE_RESIDUAL, 0},
                               {"gate_up", 512, 2816, true, EPILOGUE_SILU_MUL, 0},
                               {"down", 1408, 512, true, EPILOGUE_RESIDUAL, 0}};
static const struct shapes model = {.group = 128, .count = 4, .list = small};

static bool sanitized;

static void check_chain(const struct kernel *kernel, int m, bool zeros) {
    const int layers = sanitized ? 2 : 24;
    const struct measure_options options = {.max_samples = 200, .min_samples = 50, .max_seconds = 1, .interval = 0.01};
    struct chain_gemm gemms[CHAIN_GEMMS];
    struct problem problems[CHAIN_GEMMS];
    struct chain *chain;
    char name[64];
    done(chain_problems(&model, kernel->op, m, 128, zeros, problems, &error));
    for (int g = 0; g < CHAIN_GEMMS; g++) {
        gemms[g] = (struct chain_gemm){.problem = problems[g], .kernel = kernel};
        done(config_default(gpu, kernel, &problems[g], &gemms[g].config, &error));
    }
    done(chain_create(gpu, gemms, layers, 1, &chain, &error));
    for (enum regime regime = REGIME_GRAPH; regime <= REGIME_PDL; regime++) {
        struct measurement measured;
        done(chain_measure(chain, regime, &options, &measured, &error));
        print_message("%s, m=%d, %d layers, %s: %.1f us, events %.1f us\n", kernel_full_name(kernel, name), m, layers,
                      regime_name(regime), measured.median_us, measured.event_us);
        assert_true(measured.median_us > 0);
        measurement_free(&measured);
    }
    chain_destroy(chain);
}

/* Every GEMM that has a default for all four layers at this M. */
static bool takes_chain(const struct kernel *kernel, int m) {
    struct problem problems[CHAIN_GEMMS];
    struct config config;
    if (kernel->backend != BACKEND_CUDA || kernel->op == OP_AWQ_DEQUANT) return false;
    done(chain_problems(&model, kernel->op, m, 128, true, problems, &error));
    for (int g = 0; g < CHAIN_GEMMS; g++)
        if (config_default(gpu, kernel, &problems[g], &config, NULL)) return false;
    return true;
}

static void chains_are_the_stream(void **state) {
    (void)state;
    static const int ms[] = {1, 8, 16, 64};
    int checked = 0;
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++)
        for (size_t i = 0; i < sizeof ms / sizeof *ms; i++)
            if (takes_chain(*kernel, ms[i])) {
                check_chain(*kernel, ms[i], (*kernel)->op == OP_MARLIN_GEMM && i % 2 == 0);
                checked++;
            }
    assert_true(checked >= 8);
}

int main(int argc, char **argv) {
    sanitized = argc > 1 && !strcmp(argv[1], "small");
    const struct CMUnitTest tests[] = {cmocka_unit_test(chains_are_the_stream)};
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
