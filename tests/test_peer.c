/* Libraries with kernels of others: a right one is measured like any other, a wrong one costs its own rows. */
#include "tests/command.h"

#include "bench/probe.h"

#define SWEEP "$TILEBOOK sweep --device cpu --benchmark_min_time=0.001 --op fp16_gemm --m 1 "
#define PEER "--peer $(dirname $TILEBOOK)/tests/peer/"

static int lines_with(const char *text) {
    int count = 0;
    for (const char *at = output; (at = strstr(at, text)); at++) count++;
    return count;
}

/* In the output, where the row of K ends. */
static void expect_row(int k, const char *kernel, const char *text) {
    char name[96];
    snprintf(name, sizeof name, "\"fp16_gemm/peer:%s/%dx64/", kernel, k);
    const char *row = strstr(output, name), *end = row ? strchr(row, '\n') : NULL, *found = row ? strstr(row, text) : 0;
    if (!found || (end && found > end)) fail_msg("no row %s with '%s' in:\n%s", name, text, output);
}

static void test_right(void **state) {
    (void)state;
    const char *line =
        SWEEP PEER "plain.so --shapes 256x128,128x64 --m 1,3 --benchmark_format=csv --report @/report.csv "
                   "2>&1 && cat @/report.csv";
    expect_shell(0, line, "fp16_gemm/cpu/|fp16_gemm,256x128,|cold call monotonic,fp16_gemm/peer:plain,-,");
    assert_int_equal(lines_with("\"fp16_gemm/peer:plain/256x128/k:256/n:128/g:0/z:0/m:3/-/"), 1);
    assert_int_equal(lines_with(",fp16_gemm/peer:plain,-,"), 4);
    assert_int_equal(lines_with("ERROR"), 0);
}

/* Nothing tells whether the library is the one of before: its rows are measured again, once in every file. */
static void test_resume(void **state) {
    (void)state;
    expect_shell(0, SWEEP PEER "plain.so --shapes 128x64 --benchmark_out=@/p.json", "2 runs on cpu");
    expect_shell(0, SWEEP PEER "plain.so --shapes 128x64 --benchmark_out=@/p.json --resume",
                 "1 run on cpu|measured before: 1 point");
    expect_shell(0, "grep -c real_time @/p.json; wc -l <@/p.json.samples; $TILEBOOK compare @/p.json @/p.json",
                 "2\n3\n|2 rows: 0 faster, 0 slower, 2 tied");
}

/* What a peer does not take is no failure of it. */
static void test_limits(void **state) {
    (void)state;
    expect_shell(0, SWEEP PEER "plain.so --shapes 128x64 --m 64,65", "points of peers left out: 1;|m=65|m <= 64");
    expect_shell(2, SWEEP PEER "plain.so --shapes 128x64 --m 65 --kernel fp16_gemm/peer:plain", "m <= 64");
    expect_shell(0, SWEEP PEER "plain.so --shapes 128x64 --epilogue residual", "fp16_gemm/cpu/|no epilogue");
    expect_shell(
        0, "$TILEBOOK sweep --device cpu --op awq_dequant --shapes 128x64 --benchmark_min_time=0.001 " PEER "plain.so",
        "awq_dequant/cpu/|no point is a peer's");
    expect_shell(0, "$TILEBOOK kernels --device cpu --shapes 128x64 --m 65 " PEER "plain.so",
                 "fp16_gemm/peer:plain  (cpu)  three loops|: 0: it needs m <= 64");
}

static void test_wrong(void **state) {
    (void)state;
    static const struct {
        int k;
        const char *text;
    } rows[] = {
        {128, "wrong: relative error 1"},
        {256, "open: it is not legal after all"},
        {384, "signal 11 (Segmentation fault) in prepare"},
        {512, "prepare: wrote behind the 1000 bytes"},
        {640, "signal 11 (Segmentation fault) in run"},
        {768, "signal 6 (Aborted) in run"},
        {896, "the process ended with exit code "},
        {1024, "64 of 64 outputs are NaN, infinite or not written"},
        {1152, "run: failed without a reason"},
        {1536, "right with the first weights, then with others: wrong"},
    };
    expect_shell(1,
                 SWEEP PEER "bad.so " PEER "plain.so --benchmark_format=csv --kernel fp16_gemm/peer:bad,"
                            "fp16_gemm/peer:plain --shapes 128x64,256x64,384x64,512x64,640x64,768x64,896x64,1024x64,"
                            "1152x64,1536x64 2>@/words; code=$?; tail -n 1 @/words; exit $code",
                 "10 runs failed");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expect_row(rows[i].k, "bad", rows[i].text);
        expect_row(rows[i].k, "plain", "stop=");
    }
}

static void test_refused_libraries(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"version.so", "version 1000 of tilebook_peer.h, and this program takes 1"},
        {"name.so", "its name 'A/B, C' is not 1 to 24 of a-z"},
        {"entry.so", "does not define tilebook_peer"},
        {"loading.so", "signal 6 (Aborted) in loading; nothing was measured"},
        {"missing.so", "No such file"},
        {"bad.so --shapes 1408x64", "signal 11 (Segmentation fault) in legal; nothing was measured"},
        {"../../tilebook", "--peer"},
        {"plain.so " PEER "plain.so", "fp16_gemm/peer:plain is registered twice"},
    };
    char line[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(line, sizeof line, SWEEP PEER "%s", cases[i][0]);
        expect_shell(1, line, cases[i][1]);
    }
    expect_shell(1, SWEEP "--peer README.md", "--peer README.md: this is not a shared library of");
    /* The same library, said to be for another machine: bytes 18 and 19 of an ELF file. */
    expect_shell(
        1,
        "cp $(dirname $TILEBOOK)/tests/peer/plain.so @/other.so && printf '\\377\\376' | dd of=@/other.so bs=1 "
        "seek=18 conv=notrunc status=none && " SWEEP "--peer @/other.so",
        "for another machine (ELF machine 65279");
    expect_shell(2, SWEEP "--chain 2 " PEER "plain.so", "--peer does not go with --chain");
}

/* --- a call that does not return, with less patience than the program has --- */

static bool try_hanging(void *context, struct probe *probe) {
    const struct sweep_options options = {
        .ops = "fp16_gemm", .shapes = "1280x64,128x64", .m = "1", .kernels = "fp16_gemm/peer:bad"};
    struct device *device;
    struct sweep *sweep;
    if (peer_load(context, NULL) || device_open("cpu", &device, NULL)) return true;
    if (sweep_create(device, &options, NULL, &sweep, NULL)) return true;
    return probe_points(probe, sweep);
}

static void test_hanging(void **state) {
    (void)state;
    char path[256];
    const char *program = getenv("TILEBOOK"), *const libraries[] = {path};
    struct error error;
    snprintf(path, sizeof path, "%.*s/tests/peer/bad.so", (int)(strrchr(program, '/') - program), program);
    struct probe *probe = probe_create(&error);
    assert_non_null(probe);
    probe->watch.seconds = 1;
    if (probe_run(probe, try_hanging, path, libraries, &error)) fail_msg("%s", error.text);
    assert_int_equal(probe->count, 2);
    assert_string_equal(probe->verdicts[0].why.text, "no end within 1 s in run");
    assert_non_null(strstr(probe->verdicts[1].why.text, "relative error 1"));
    probe_destroy(probe);
}

/* --- the page --- */

static char *read_file(const char *path) {
    char *text = calloc(1, 1 << 16);
    FILE *file = fopen(path, "r");
    assert_non_null(text);
    assert_non_null(file);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    return text;
}

static void test_page(void **state) {
    (void)state;
    char *page = read_file("kernels/peer/README.md"), *example = read_file("tests/peer/plain.c");
    if (!strstr(page, example)) fail_msg("kernels/peer/README.md does not show tests/peer/plain.c as it is");
    free(page);
    free(example);
    expect_shell(0,
                 "for language in 'c -std=c11' 'c++ -std=c++17'; do echo '#include \"tilebook_peer.h\"' | "
                 "cc -Wall -Wextra -Werror -fsyntax-only -I kernels/peer -x $language - || exit 1; done; echo fine",
                 "fine");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_refused_libraries),
        cmocka_unit_test(test_hanging),
        cmocka_unit_test(test_page),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
