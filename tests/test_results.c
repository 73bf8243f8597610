/* results/measure with a program that only notes what it is asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[64], text[16384];

/* The exit code of a shell's command, run in the folder; what it says goes to `text`. */
static int shell(const char *command) {
    char line[2048];
    snprintf(line, sizeof line, "(cd %s && %s) 2>&1", folder, command);
    FILE *pipe = popen(line, "r");
    assert_non_null(pipe);
    text[fread(text, 1, sizeof text - 1, pipe)] = 0;
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A copy of the script, the program in its place, and a PATH without git, gnuplot and nvidia-smi. */
static int set_up(void **state) {
    (void)state;
    char command[512], *here = getcwd(NULL, 0);
    strcpy(folder, "/tmp/tilebook-results-XXXXXX");
    if (!here || !mkdtemp(folder)) return -1;
    snprintf(command, sizeof command, "mkdir results build bin && cp %s/results/measure results/", here);
    free(here);
    if (shell(command)) return -1;
    if (shell("for t in bash env date mkdir dirname realpath grep rm cat; do ln -s $(command -v $t) bin/; done"))
        return -1;
    return shell("printf '%s\\n' '#!/usr/bin/env bash' 'echo \"$*\" >>calls' "
                 "'[ \"$1\" != sweep ] || cat row 2>/dev/null || true' "
                 "'[ \"$1 $2\" != \"table lint\" ] || [ ! -e row ]' >build/tilebook && chmod +x build/tilebook");
}

static int tear_down(void **state) {
    (void)state;
    return shell("rm -r \"$PWD\"");
}

static void expect(int code, const char *arguments, const char *words) {
    char command[512];
    snprintf(command, sizeof command, "rm -f calls; PATH=$PWD/bin results/measure %s", arguments);
    int found = shell(command);
    if (found != code || !strstr(text, words))
        fail_msg("%s: exit code %d, expected %d and '%s' in: %s", arguments, found, code, words, text);
}

static void expect_calls(const char *const *calls) {
    assert_int_equal(shell("cat calls"), 0);
    for (const char *const *call = calls; *call; call++)
        if (!strstr(text, *call)) fail_msg("'%s' is not among:\n%s", *call, text);
}

static void test_wrong_usage(void **state) {
    (void)state;
    expect(2, "", "a device and a folder are needed");
    expect(2, "cpu", "usage: results/measure");
    expect(2, "cpu out more", "usage: results/measure");
    expect(2, "--budget", "--budget needs a value");
    expect(2, "--quick cpu out", "unknown option --quick");
    expect(0, "--help", "--throttled");
}

static void test_goes_through_without_gnuplot_and_git(void **state) {
    (void)state;
    expect(0, "cuda:0 out", "gnuplot is not there");
    expect_calls((const char *const[]){
        "devices\n", "sweep --device cuda:0 --op fp16_gemm --kernel fp16_gemm/cublaslt --shapes 4096x4096 --m 4096 ",
        "tune --model qwen2.5-14b --device cuda:0 --budget 5m --out ", "--m 1:8192:x2 --budget 5m --table ",
        "decode --report --model qwen2.5-14b --in-memory --device cuda:0 --batch 1,64 ",
        "decode --profile --model qwen2.5-14b --in-memory --quantization gptq_marlin ",
        "decode --bench --model qwen2.5-14b --in-memory --quantization gptq_marlin --device cuda:0 --ctx 512 "
        "--max-tokens 64 "
        "--table out/tiles.txt --against untuned --json",
        NULL});
    assert_int_equal(shell("test -s out/environment.txt && ! grep commit out/environment.txt"), 0);
    assert_int_not_equal(shell("test -e out/check.json"), 0);
}

static void test_options_reach_the_program(void **state) {
    (void)state;
    expect(0, "--m 1,16 --budget 90s cpu out", "");
    expect_calls((const char *const[]){"tune --model qwen2.5-14b --device cpu --m 1,16 --budget 90s ",
                                       "sweep --device cpu --shapes qwen2.5-14b --m 1,16 --budget 90s ", NULL});
    assert_null(strstr(text, "cublaslt")); /* no check on a CPU */
}

static void test_stops_before_a_throttled_card(void **state) {
    (void)state;
    assert_int_equal(shell("echo '\"label\": \"throttle=power brake\", \"throttled\": 1' >row"), 0);
    expect(1, "cuda:0 out", "cuda:0 is throttled");
    assert_non_null(strstr(text, "power brake"));
    assert_int_not_equal(shell("grep tune calls"), 0);
    expect(0, "--throttled cuda:0 out", "power brake");
    expect_calls((const char *const[]){"tune ", "decode ", NULL});
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_wrong_usage),
        TEST(test_goes_through_without_gnuplot_and_git),
        TEST(test_options_reach_the_program),
        TEST(test_stops_before_a_throttled_card),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
