/* What all commands have in common: the same words for the same mistake, no output that is lost in silence. */
#include "tests/command.h"

#include <jansson.h>

#define MODEL "tests/fixtures/tiny-qwen2-awq"
#define SWEEP "sweep --device cpu --shapes 128x128 --m 1 --benchmark_min_time=0.001 "

/* A command line that stops at its --device, whatever else is wrong. */
static const char *const with_device[] = {
    "kernels", "sweep", "tune --shapes 128x128 --out @/t", "table lint @/none", "decode --model " MODEL " --prompt x",
};

static void test_devices(void **state) {
    (void)state;
    char line[256];
    static const char *const unknown[] = {"gpu", "cuda", "cuda:x", "cuda:9999", "CPU", "''"};
    for (size_t i = 0; i < sizeof with_device / sizeof *with_device; i++)
        for (size_t j = 0; j < sizeof unknown / sizeof *unknown; j++) {
            snprintf(line, sizeof line, "%s --device %s", with_device[i], unknown[j]);
            expect(2, line, "unknown device|accepted: cpu, cuda:N|--help");
        }
    /* The hundredth GPU is missing everywhere. The table is read first: its file says which device it needs. */
    for (size_t i = 0; i < sizeof with_device / sizeof *with_device; i++) {
        snprintf(line, sizeof line, "%s --device cuda:99", with_device[i]);
        expect(1, line, strstr(line, "table") ? "none: cannot read" : "cuda:99: |`--device cpu` works");
    }
}

static void test_options(void **state) {
    (void)state;
    static const char *const groups[] = {"48", "0", "-1", "128x", "''"};
    char line[256];
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        snprintf(line, sizeof line, SWEEP "--group %s", groups[i]);
        expect(2, line, "accepted are 32, 64, 128 and all");
        snprintf(line, sizeof line, "tune --shapes 128x128 --group %s", groups[i]);
        expect(2, line, "accepted are 32, 64, 128 and all");
    }
    expect(0, "tune --device cpu --shapes 256x64 --group all --op awq_dequant --trials 1 --out @/all.txt", "group=256");
    expect(2, "decode --seed x", "--seed x: not a whole number from 0");
    expect(2, "decode --temperature nan", "--temperature nan: not a number from 0 to 1000");
    expect(2, "decode --top-p 1.5", "--top-p 1.5: not a number from 0 to 1");
    expect(2, "decode --ctx 0", "--ctx 0: not whole numbers from 1");
    expect(2, "tune --shapes 128x128 --budget nan", "--budget nan: not a time");
    expect(2, "tune --shapes 128x128 --part 3/2", "--part: expected I/N with I from 1 to N, found 3/2");
    expect(2, "tune --shapes 128x128,128x192 --part 1/3", "--part 1/3: there are 2 shapes");
    expect(0,
           "tune --coarse --device cpu --shapes 128x64,128x128,128x192 --part 2/2 --op fp16_gemm --m 1 --trials 1 "
           "--out @/part.txt",
           "n=128 k=128");
    expect(2, SWEEP "--regime graphs", "--regime: unknown regime 'graphs'; accepted: stream, graph, pdl");
    expect(2, SWEEP "--regime pdl", "device cpu has no graphs: regime pdl needs cuda:N");
    expect(2, "tune --shapes 128x128 --regime x", "--regime: unknown regime 'x'; accepted: stream, graph, pdl");
    expect(2, "tune --device cpu --shapes 128x128 --regime graph --out @/t", "regime graph needs cuda:N");
    expect(2, "sweep --device cpu --shapes qwen2.5-14b --chain 48",
           "--chain needs graphs, which cuda:N has; found device cpu");
    expect(2, "sweep --chain 48 --regime pdl",
           "--config, --epilogue, --norm, --regime, --csv, --report and --markdown do not go with it");
    expect(2, "sweep --chain 0", "--chain 0: not a whole number from 1");
    expect(2, "frob", "no command 'frob'|decode");
}

static void test_help(void **state) {
    (void)state;
    static const char *const commands[] = {"devices", "kernels",    "sweep",          "compare",    "tune",  "table",
                                           "plot",    "model info", "model tokenize", "model make", "decode"};
    expect(0, "--help", "usage: tilebook COMMAND|decode");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char line[64], usage[64];
        snprintf(line, sizeof line, "%s --help", commands[i]);
        snprintf(usage, sizeof usage, "Usage: tilebook %s", commands[i]);
        expect(0, line, usage);
        snprintf(line, sizeof line, "%s --frob", commands[i]);
        snprintf(usage, sizeof usage, "tilebook %s: unrecognized option", commands[i]);
        expect(2, line, usage);
    }
}

/* Output that cannot be written is a failure, whichever command it is. */
static void test_full_output(void **state) {
    (void)state;
    static const char *const commands[] = {"devices", "kernels", "table show tests/fixtures/plots/tiles.txt",
                                           "model info " MODEL,
                                           "decode --device cpu --model " MODEL " --prompt-ids 1 --max-tokens 1"};
    char line[256];
    if (access("/dev/full", W_OK)) skip();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        snprintf(line, sizeof line, "$TILEBOOK %s >/dev/full", commands[i]);
        expect_shell(1, line, "tilebook");
    }
    expect_shell(1, "$TILEBOOK devices >/dev/full", "standard output: No space left on device");
}

/* Files that end before they are complete: the limit stands for a full disk. */
static void test_full_disk(void **state) {
    (void)state;
    expect_shell(1,
                 "trap '' XFSZ; ulimit -f 1; $TILEBOOK " SWEEP "--op fp16_gemm --benchmark_out=@/full.json >/dev/null",
                 "full.json could not be written; is the disk full?");
    if (shell("command -v gnuplot")) skip();
    expect_shell(0, "echo old >@/speedup.png", "");
    expect_shell(1, "trap '' XFSZ; ulimit -f 8; $TILEBOOK plot --results tests/fixtures/plots --out @ --figure speedup",
                 "speedup.png: could not be written; is the disk full?");
    expect_shell(0, "cat @/speedup.png; ls @", "old");
    assert_null(strstr(output, "png."));
}

/* Ctrl-C in a sweep: what was measured stays, in a file that can be read. */
static void test_interrupted_sweep(void **state) {
    (void)state;
    expect_shell(
        130,
        "$TILEBOOK sweep --device cpu --shapes 1024x1024 --m 1,16 --benchmark_out=@/cut.json "
        "--benchmark_min_time=1 2>&1 >@/stdout & pid=$!; "
        "for i in $(seq 300); do grep -q '^awq_dequant' @/stdout && break; sleep 0.1; done; kill -TERM $pid; wait $pid",
        "interrupted");
    json_error_t error;
    json_t *root = json_load_file(in_folder("cut.json"), 0, &error), *rows = json_object_get(root, "benchmarks");
    if (!root) fail_msg("%s", error.text);
    assert_int_equal(json_array_size(rows), 5);
    assert_null(json_object_get(json_array_get(rows, 0), "error_occurred"));
    assert_true(json_is_true(json_object_get(json_array_get(rows, 4), "error_occurred")));
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 4), "error_message")), "interrupted");
    json_decref(root);
}

static void test_decode_streams(void **state) {
    (void)state;
    const char *decode = "$TILEBOOK decode --device cpu --model " MODEL " --temperature 0 --max-tokens 8 ";
    char line[512], text[sizeof output];
    snprintf(line, sizeof line, "%s --prompt 'Shall I' 2>/dev/null", decode);
    expect_shell(0, line, " compare");
    strcpy(text, output);
    snprintf(line, sizeof line, "printf 'Shall I' | %s --prompt-file - 2>/dev/null", decode);
    expect_shell(0, line, text);
    snprintf(line, sizeof line, "%s --prompt x --logits @/missing/logits", decode);
    expect_shell(1, line, "--logits");
    assert_null(strstr(output, "prefill"));
    assert_int_equal(strncmp(output, "tilebook decode: ", 17), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),        cmocka_unit_test(test_options),
        cmocka_unit_test(test_help),           cmocka_unit_test(test_full_output),
        cmocka_unit_test(test_full_disk),      cmocka_unit_test(test_interrupted_sweep),
        cmocka_unit_test(test_decode_streams),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
