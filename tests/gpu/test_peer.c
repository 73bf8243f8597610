/* cuBLAS behind the header for other people's kernels: tried in a process of its own, then measured in the stream and
 * in a graph. Skips where there is no cuBLAS.
 * Argument: "small" says that a sanitizer runs this, which would look at cuBLAS and at nothing of ours. */
#include "tests/command.h"

#define SWEEP                                                                                                          \
    "$TILEBOOK sweep --device cuda:0 --op fp16_gemm --kernel fp16_gemm/peer:cublas --peer build/tests/gpu/cublas.so "  \
    "--benchmark_min_time=0.01 --benchmark_format=csv "

/* The loader's message names what it missed. */
static void need_cublas(void) {
    if (access("build/tests/gpu/cublas.so", R_OK)) skip();
    if (shell(SWEEP "--shapes 256x128 --m 1") && strstr(output, "libcublas")) skip();
}

static void test_cublas(void **state) {
    (void)state;
    static const char *const regimes[] = {"stream", "graph"};
    need_cublas();
    for (size_t i = 0; i < sizeof regimes / sizeof *regimes; i++) {
        char line[512];
        snprintf(line, sizeof line, SWEEP "--shapes 512x256,4096x1024 --m 1,17,300 --regime %s", regimes[i]);
        expect_shell(0, line, "fp16_gemm/peer:cublas/512x256/|m:17/-/|fp16_gemm/peer:cublas/4096x1024/|m:300/-/");
        if (strstr(output, "ERROR") || strstr(output, "failed")) fail_msg("%s", output);
    }
}

static void test_limits(void **state) {
    (void)state;
    need_cublas();
    expect_shell(2, SWEEP "--shapes 256x128 --m 1 --epilogue bias", "it has no epilogues");
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "small")) return 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cublas), cmocka_unit_test(test_limits)};
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
