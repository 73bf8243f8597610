/* `tilebook compare`: the statistics against values worked out by hand, files that are known, files that are hostile,
 * and two arms on the CPU. */
#include "tests/command.h"

#include <jansson.h>
#include <math.h>

#include "bench/compare.h"
#include "bench/samples.h"

#define ARMS "compare --device cpu --op fp16_gemm --shapes 128x64 --m 1 --rounds 6 "

static bool near(double a, double b) {
    return fabs(a - b) <= 1e-5 * fabs(b);
}

static void check_near(const char *what, double found, double expected) {
    if (!near(found, expected)) fail_msg("%s: %.9g, expected %.9g", what, found, expected);
}

/* --- statistics --- */

static void test_mann_whitney(void **state) {
    (void)state;
    /* U = 0, its mean 4.5, variance 9 / 12 * 7: z = 4 / sqrt(5.25) */
    float a[] = {3, 1, 2}, b[] = {6, 4, 5};
    check_near("apart", compare_mann_whitney(a, 3, b, 3), erfc(4 / sqrt(2 * 5.25)));
    check_near("exchanged", compare_mann_whitney(b, 3, a, 3), 0.0808556);
    /* Ranks 1, 3, 3, 3, 5.5, 5.5, 7.5, 7.5: U = 2.5 of 8; ties of 3, 2 and 2: 36; variance 16 / 12 * (9 - 36 / 56) */
    float c[] = {2, 1, 3, 2}, d[] = {4, 2, 4, 3};
    check_near("ties", compare_mann_whitney(c, 4, d, 4), erfc(5 / sqrt(2 * 16 / 12.0 * (9 - 36 / 56.0))));
    /* Unequal sizes. Ranks of e: 1, 4; U = 2 of 3; (1 - 0.5) / sqrt(3) */
    float e[] = {1, 4}, f[] = {2, 3, 5};
    check_near("sizes", compare_mann_whitney(e, 2, f, 3), erfc(0.5 / sqrt(2 * 3.0)));
    float same[] = {7, 7, 7}, others[] = {7, 7};
    assert_true(compare_mann_whitney(same, 3, others, 2) == 1);
    /* U at its mean: the correction must not make p exceed 1. */
    float g[] = {1, 4}, h[] = {2, 3};
    assert_true(compare_mann_whitney(g, 2, h, 2) == 1);
}

static void test_verdict_is_symmetric(void **state) {
    (void)state;
    for (double ratio = 0.9; ratio < 1.1; ratio += 0.003) {
        enum verdict verdict = compare_verdict(ratio, 0.02), back = compare_verdict(1 / ratio, 0.02);
        assert_int_equal(verdict, ratio > 1.02 ? VERDICT_SLOWER : ratio < 1 / 1.02 ? VERDICT_FASTER : VERDICT_TIE);
        assert_int_equal(back, verdict == VERDICT_TIE ? VERDICT_TIE : VERDICT_SLOWER + VERDICT_FASTER - verdict);
    }
    assert_int_equal(compare_verdict(1, 0), VERDICT_TIE);
}

static void test_geometric_mean(void **state) {
    (void)state;
    /* Logarithms ln 2 and -ln 2: mean 0, deviation sqrt(2) ln 2, over sqrt(2) rows; one degree of freedom. */
    struct compare_total total = compare_geometric_mean((double[]){2, 0.5}, 2, 0);
    check_near("mean", total.ratio, 1);
    check_near("high", total.high, exp(12.706 * log(2)));
    check_near("low", total.low, exp(-12.706 * log(2)));
    assert_int_equal(total.verdict, VERDICT_TIE);
    total = compare_geometric_mean((double[]){1.1, 1.2, 1.1, 1.2}, 4, 0.02);
    check_near("mean", total.ratio, sqrt(1.1 * 1.2));
    check_near("high", total.high / total.ratio, exp(3.182 * log(sqrt(1.2 / 1.1)) / sqrt(3)));
    assert_int_equal(total.verdict, VERDICT_SLOWER);
    assert_int_equal(compare_geometric_mean((double[]){1.1, 1.2, 1.1, 1.2}, 4, 0.2).verdict, VERDICT_TIE);
    assert_int_equal(compare_geometric_mean((double[]){0.9, 0.88, 0.9}, 3, 0.02).verdict, VERDICT_FASTER);
    double many[200];
    for (int i = 0; i < 200; i++) many[i] = i % 2 ? exp(0.1) : exp(-0.1);
    total = compare_geometric_mean(many, 200, 0);
    assert_true(fabs(log(total.high) / (1.97196 * 0.1 / sqrt(199)) - 1) < 1e-3);
    total = compare_geometric_mean((double[]){3}, 1, 0);
    assert_true(near(total.ratio, 3) && total.low == 0 && total.high == 0);
}

enum { ROUNDS = 20 };

static struct compare_row rounds_of(double again_share, double b_share, double margin) {
    float a[ROUNDS], again[ROUNDS], b[ROUNDS];
    struct compare_row row = {.name = NULL};
    struct error error;
    for (int r = 0; r < ROUNDS; r++) {
        a[r] = 10 + (float)r; /* a drift that all three share */
        again[r] = (float)(a[r] * (r % 2 ? again_share : 1 / again_share));
        b[r] = (float)(sqrt((double)a[r] * again[r]) * b_share);
    }
    assert_int_equal(compare_rounds(a, again, b, ROUNDS, margin, &row, &error), 0);
    return row;
}

static void test_rounds(void **state) {
    (void)state;
    struct compare_row row = rounds_of(1.01, 1.03, 0);
    check_near("ratio", row.ratio, 1.03);
    check_near("noise", row.noise, 0.01);
    assert_int_equal(row.verdict, VERDICT_SLOWER);
    assert_int_equal(row.basis, BASIS_ROUNDS);
    assert_int_equal(row.a.samples, ROUNDS);
    assert_int_equal(rounds_of(1.01, 0.97, 0).verdict, VERDICT_FASTER);
    assert_int_equal(rounds_of(1.01, 1.03, 0.05).verdict, VERDICT_TIE);
    /* Less than what A differs from itself by, though the interval excludes 1. */
    row = rounds_of(1.05, 1.03, 0);
    assert_true(row.low > 1);
    assert_int_equal(row.verdict, VERDICT_TIE);
    assert_int_equal(rounds_of(1, 1, 0).verdict, VERDICT_TIE);
    /* A wide interval is a tie, whatever its middle. */
    float a[ROUNDS], b[ROUNDS];
    struct error error;
    for (int r = 0; r < ROUNDS; r++) a[r] = 1, b[r] = r < 11 ? 1.5f : 0.5f;
    assert_int_equal(compare_rounds(a, a, b, ROUNDS, 0, &row, &error), 0);
    assert_true(row.ratio > 1.4 && row.low < 1 && row.noise == 0);
    assert_int_equal(row.verdict, VERDICT_TIE);
    assert_int_equal(compare_rounds(a, a, b, 5, 0, &row, &error), -1);
    assert_non_null(strstr(error.text, "at least 6"));
}

/* --- files --- */

#define CONTEXT(device, kernels)                                                                                       \
    "{\"context\":{\"device\":\"" device                                                                               \
    "\",\"architecture\":\"sm_90a\",\"multiprocessors\":\"132\",\"kernels\":\"" kernels                                \
    "\",\"cache\":\"cold\",\"launch\":\"graph\"},\"benchmarks\":["
#define ROW(name, figures)                                                                                             \
    "{\"name\":\"" name "/iterations:1/manual_time\",\"run_type\":\"iteration\"," figures                              \
    ",\"label\":\"stop=interval clock=cupti regime=graph\"}"
#define FIGURES(us, p20, p80) "\"us\":" us ",\"p20_us\":" p20 ",\"p80_us\":" p80 ",\"samples\":8"
#define FAILED "\"error_occurred\":true,\"error_message\":\"wrong\""
#define TEN FIGURES("10", "9.9", "10.1")
#define ELEVEN FIGURES("11", "10.9", "11.1")

/* Eight samples of 20 calls each, of about 10 and 11 us. */
#define SAMPLES_OF_TEN "cupti 20 8 198000 198000 199000 200000 200000 201000 202000 202000\n"
#define SAMPLES_OF_ELEVEN "cupti 20 8 218000 218000 219000 220000 220000 221000 222000 222000\n"

static void put(const char *name, const char *text) {
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_verdicts_with_samples(void **state) {
    (void)state;
    put("a.json", CONTEXT("H", "1") ROW("x", TEN) "," ROW("y", ELEVEN) "]}");
    put("b.json", CONTEXT("H", "1") ROW("x", ELEVEN) "," ROW("y", ELEVEN) "]}");
    put("a.json.samples", SAMPLES_HEADER "\nx " SAMPLES_OF_TEN "y " SAMPLES_OF_ELEVEN);
    put("b.json.samples", SAMPLES_HEADER "\nx " SAMPLES_OF_ELEVEN "y " SAMPLES_OF_ELEVEN);
    expect(0, "compare @/a.json @/a.json", "2 rows: 0 faster, 0 slower, 2 tied; overall B/A 1.0000|: tie");
    /* U = 0 of 64 with six pairs of ties: z = 31.5 / sqrt(64 / 12 * (17 - 36 / 240)). */
    expect(1, "compare @/a.json @/b.json", "slower    1.1000      10.0000      11.0000  p=0.00089 |1 slower, 1 tied");
    expect(0, "compare @/b.json @/a.json", "faster    0.9091|1 faster, 0 slower, 1 tied");
    expect(0, "compare @/a.json @/b.json --margin 15", "tie       1.1000|0 slower, 2 tied");
    expect(0, "compare @/a.json @/b.json --margin 10.1%", "tie       1.1000");
    expect(1, "compare @/a.json @/b.json --margin 9.9%", "slower    1.1000");
    expect(1, "compare @/a.json @/b.json --format csv",
           "name,verdict,ratio,low|\"x\",slower,1.100000,,,10.0000,9.9000,10.1000,8,11.0000,|,samples,0.00|\"overall\","
           "tie,1.0488");
    expect(1, "compare @/a.json @/b.json --format markdown",
           "| x | 10.0000 | 11.0000 | 1.1000 | p=0.00089 |slower |\n|| y | 11.0000 |");
    expect(1, "compare @/a.json @/b.json --format json 2>/dev/null", "\"regressed\": true|\"basis\": \"samples\"");
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    const json_t *row = json_array_get(json_object_get(root, "rows"), 0);
    check_near("ratio", json_real_value(json_object_get(row, "ratio")), 1.1);
    assert_true(json_is_null(json_object_get(row, "noise")));
    check_near("overall", json_real_value(json_object_get(json_object_get(root, "overall"), "ratio")), sqrt(1.1));
    json_decref(root);
}

static void test_verdicts_without_samples(void **state) {
    (void)state;
    put("a.json", CONTEXT("H", "1") ROW("x", TEN) "," ROW("y", TEN) "," ROW("z", TEN) "]}");
    put("b.json", CONTEXT("H", "1") ROW("x", ELEVEN) "," ROW("y", FIGURES("11", "10.05", "12")) "," ROW(
                      "z", FIGURES("10.15", "10.11", "10.2")) "]}");
    expect(1, "compare @/a.json @/b.json",
           "a.json has no samples beside it|b.json has no samples|slower    1.1000      10.0000      11.0000  p20..p80|"
           "tie       1.1000|tie       1.0150|1 slower, 2 tied");
    expect(1, "compare @/a.json @/b.json --margin 1", "slower    1.0150|2 slower, 1 tied");
    /* Samples of one alone decide nothing. */
    put("a.json.samples", SAMPLES_HEADER "\nx " SAMPLES_OF_TEN);
    expect(1, "compare @/a.json @/b.json", "b.json has no samples|p20..p80|1 slower, 2 tied");
}

static void test_repetitions_are_one_row(void **state) {
    (void)state;
    put("a.json", CONTEXT("H", "1") ROW("x", TEN) "," ROW("x", ELEVEN) ",{\"name\":\"x_mean\",\"run_type\":"
                                                                       "\"aggregate\",\"us\":10.5}]}");
    put("b.json", CONTEXT("H", "1") ROW("x", TEN) "]}");
    expect(0, "compare @/b.json @/a.json", "tie       1.0500      10.0000      10.5000|1 row:");
    put("a.json.samples", SAMPLES_HEADER "\nx " SAMPLES_OF_TEN "x " SAMPLES_OF_ELEVEN);
    expect(0, "compare @/a.json @/a.json --format csv", "\"x\",tie,1.000000,,,10.5000,10.0000,11.0000,16,");
}

static void test_missing_and_failed_rows(void **state) {
    (void)state;
    put("a.json", CONTEXT("H", "1") ROW("x", TEN) "," ROW("y", TEN) "," ROW("f", FAILED) "," ROW("g", FAILED) "]}");
    put("b.json", CONTEXT("H", "1") ROW("x", TEN) "," ROW("z", TEN) "," ROW("f", TEN) "," ROW("g", FAILED) "]}");
    expect(0, "compare @/a.json @/b.json", "only in A: y|only in B: z|failed in A: f|failed in both: g|1 row: ");
    put("c.json", CONTEXT("H", "1") ROW("x", TEN) "," ROW("y", FAILED) "]}");
    expect(1, "compare @/a.json @/c.json", "failed in B: y|0 slower, 1 tied");
    expect(1, "compare @/a.json @/c.json --format json 2>/dev/null", "\"worse\": true");
    put("d.json", CONTEXT("H", "1") ROW("w", TEN) "]}");
    expect(2, "compare @/a.json @/d.json", "no row is measured in both");
}

static void test_contexts(void **state) {
    (void)state;
    put("a.json", CONTEXT("H100", "1") ROW("x", TEN) "]}");
    put("b.json", CONTEXT("H200", "1") ROW("x", TEN) "]}");
    put("c.json", CONTEXT("H100", "2") ROW("x", TEN) "]}");
    expect(2, "compare @/a.json @/b.json",
           "differ in device: A has 'H100', B has 'H200'|of different devices; --force compares them all the same");
    expect(0, "compare @/a.json @/b.json --force", "differ in device|1 tied");
    expect(0, "compare @/a.json @/c.json", "differ in kernels: A has '1', B has '2'|1 tied");
    put("d.json",
        "{\"context\":{\"device\":\"H100\",\"architecture\":\"sm_90a\",\"multiprocessors\":\"132\",\"kernels\":"
        "\"1\",\"cache\":\"warm\",\"launch\":\"pdl\"},\"benchmarks\":[{\"name\":\"x\",\"run_type\":"
        "\"iteration\"," TEN ",\"throttled\":1,\"label\":\"clock=events\"}]}");
    expect(
        0, "compare @/a.json @/d.json",
        "differ in cache|differ in launch|throttled card: 0 in A, 1 in B|rows timed by different clocks in A and B: 1");
}

static void test_samples_of_another_run(void **state) {
    (void)state;
    put("a.json", CONTEXT("H", "1") ROW("x", TEN) "]}");
    put("a.json.samples", SAMPLES_HEADER "\nx cupti 1 7 9 9 9 9 9 9 9\n");
    expect(2, "compare @/a.json @/a.json", "does not belong to|row x: 7 samples, 8 in the JSON|remove it");
    put("a.json.samples", SAMPLES_HEADER "\nx " SAMPLES_OF_ELEVEN);
    expect(2, "compare @/a.json @/a.json", "row x: their median is 11.0000 us");
    put("a.json.samples", SAMPLES_HEADER "\nx " SAMPLES_OF_TEN "x " SAMPLES_OF_TEN);
    expect(2, "compare @/a.json @/a.json", "more samples than the 8 of the JSON");
    put("a.json.samples", SAMPLES_HEADER "\nx " SAMPLES_OF_TEN "other " SAMPLES_OF_TEN);
    expect(0, "compare @/a.json @/a.json", "p=1");
}

static void test_refuses(void **state) {
    (void)state;
    put("a.json", CONTEXT("H", "1") ROW("x", TEN) "]}");
    static const struct {
        const char *text, *message;
    } files[] = {
        {"", "line "},
        {"[]", "not a result of `tilebook sweep --benchmark_out=FILE`"},
        {"{\"context\":{},\"benchmarks\":[]}", "lacks \"benchmarks\" or the context's \"device\""},
        {CONTEXT("H", "1") "]}", "it has no rows"},
        {CONTEXT("H", "1") "3]}", "no \"name\""},
        {CONTEXT("H", "1") "{\"name\":3}]}", "no \"name\""},
        {CONTEXT("H", "1") ROW("x", "\"us\":10") "]}", "row x: expected 0 < p20_us"},
        {CONTEXT("H", "1") ROW("x", FIGURES("10", "11", "12")) "]}", "row x: expected"},
        {CONTEXT("H", "1") ROW("x", FIGURES("-1", "-1", "-1")) "]}", "row x: expected"},
        {CONTEXT("H", "1") ROW("x", FIGURES("1", "1", "1e300")) "]}", "row x: expected"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        put("b.json", files[i].text);
        expect(2, "compare @/a.json @/b.json", files[i].message);
    }
    expect(2, "compare @/a.json @/none.json", "none.json");
    expect(2, "compare @/a.json", "found one file; accepted are two");
    expect(2, "compare @/a.json @/a.json @/a.json", "third file");
    expect(2, "compare @/a.json @/a.json --m 1", "options that choose points do not go with them");
    expect(2, "compare @/a.json @/a.json --margin -1", "--margin -1: not a number from 0");
    expect(2, "compare @/a.json @/a.json --margin %", "not a number");
    expect(2, "compare @/a.json @/a.json --format xml", "accepted: text, csv, markdown, json");
    expect(2, "compare", "expected two files, two times --config, or --kernel A,B");
    expect(2, ARMS "--config default", "expected two files, two times --config");
    expect(2, ARMS "--config default --config all", "--config all is many");
    expect(2, ARMS "--config a=1 --config b=1 --config c=1", "at most two");
    expect(2, ARMS "--kernel fp16_gemm/cpu,fp16_gemm/cpu,x", "at most two");
    expect(2, ARMS "--config default --config tile_x=1", "tile_x");
    expect(2, ARMS "--kernel fp16_gemm/cpu,fp16_gemm/mma", "fp16_gemm/mma does not run on cpu");
    expect(2, ARMS "--config default --config default --rounds 5", "--rounds 5: not a whole number from 6");
    expect(2, ARMS "--config default --config default --regime graph", "regime graph needs cuda:N");
    expect(2, "compare --device cuda:99 --config default --config default", "`--device cpu` works");
}

/* --- samples --- */

static void test_samples_are_read_back(void **state) {
    (void)state;
    float us[] = {1.5f, 0.001f, 123456.789f};
    struct measurement m = {.clock = "cupti", .calls = 20, .samples = 3, .sample_us = us};
    struct samples samples;
    struct error error;
    FILE *file = fopen(in_folder("s"), "w");
    fputs(SAMPLES_HEADER "\n", file);
    samples_put(file, "op/kernel/k:1", &m);
    m.samples = 1;
    samples_put(file, "other", &m);
    fclose(file);
    if (samples_read(in_folder("s"), &samples, &error)) fail_msg("%s", error.text);
    assert_int_equal(samples.count, 2);
    assert_string_equal(samples.rows[0].name, "op/kernel/k:1");
    assert_string_equal(samples.rows[0].clock, "cupti");
    assert_int_equal(samples.rows[0].count, 3);
    for (int i = 0; i < 3; i++) assert_true(samples.rows[0].us[i] == us[i]);
    assert_int_equal(samples.rows[1].count, 1);
    samples_free(&samples);
}

static void test_bad_samples_are_named(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "line 0: the file is empty"},
        {"# other\n", "line 1: it is not '# tilebook samples 1"},
        {SAMPLES_HEADER, "line 1: it is cut off"},
        {SAMPLES_HEADER "\n\n", "line 2: expected NAME CLOCK CALLS N"},
        {SAMPLES_HEADER "\nx cupti\n", "line 2: calls and the number"},
        {SAMPLES_HEADER "\nx cupti 1 1000001 1\n", "line 2: calls and the number"},
        {SAMPLES_HEADER "\nx cupti 0 1 1\n", "line 2: calls and the number"},
        {SAMPLES_HEADER "\nx cupti 1 999999 1\n", "line 2: it has fewer samples"},
        {SAMPLES_HEADER "\nx cupti 1 2 100\n", "line 2: a sample is not a whole number"},
        {SAMPLES_HEADER "\nx cupti 1 1 1 2\n", "line 2: it has more samples"},
        {SAMPLES_HEADER "\nx cupti 1 2 1  2\n", "line 2: a sample is not"},
        {SAMPLES_HEADER "\nx cupti 1 1 -1\n", "line 2: a sample is not"},
        {SAMPLES_HEADER "\nx cupti 1 1 0x1\n", "line 2: a sample is not"},
        {SAMPLES_HEADER "\nx cupti 1 1 1234567890123456\n", "line 2: a sample is not"},
        {SAMPLES_HEADER "\nx cupti 1 1 1\ny cupti 1 1 1", "line 3: it is cut off"},
        {SAMPLES_HEADER "\nx a_clock_that_is_too_long 1 1 1\n", "line 2: expected NAME"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct samples samples;
        struct error error;
        put("s", cases[i][0]);
        int result = samples_read(in_folder("s"), &samples, &error);
        if (!result || !strstr(error.text, cases[i][1])) fail_msg("case %zu: '%s'", i, result ? error.text : "");
        samples_free(&samples);
    }
}

static void put_bytes(const char *name, const char *bytes, size_t count) {
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    assert_true(fwrite(bytes, 1, count, file) == count);
    fclose(file);
}

/* Whatever the two files of B are, there is a verdict or a message. */
static void compare_hostile(FILE *words) {
    struct compare compare;
    struct error error = {""};
    char a[128];
    snprintf(a, sizeof a, "%s", in_folder("a.json"));
    if (compare_files(a, in_folder("b.json"), 0.02, true, words, &compare, &error)) assert_true(error.text[0]);
    compare_free(&compare);
}

static void test_hostile_files(void **state) {
    (void)state;
    static const char json[] = CONTEXT("H", "1") ROW("x", TEN) "," ROW("y", TEN) "]}";
    static const char text[] = SAMPLES_HEADER "\nx " SAMPLES_OF_TEN "y " SAMPLES_OF_TEN;
    FILE *words = fopen("/dev/null", "w");
    char mutant[sizeof json + sizeof text];
    unsigned random = 1;
    put("a.json", json);
    put("b.json", json);
    for (size_t length = 0; length < sizeof text; length++) {
        struct samples samples;
        struct error error;
        put_bytes("b.json.samples", text, length);
        int result = samples_read(in_folder("b.json.samples"), &samples, &error);
        assert_int_equal(result, length && text[length - 1] == '\n' ? 0 : -1);
        samples_free(&samples);
        compare_hostile(words);
    }
    put("b.json.samples", text);
    for (size_t length = 0; length < sizeof json; length++) {
        put_bytes("b.json", json, length);
        compare_hostile(words);
    }
    for (int i = 0; i < 3000; i++) {
        bool of_json = i % 2;
        size_t size = of_json ? sizeof json - 1 : sizeof text - 1;
        memcpy(mutant, of_json ? json : text, size);
        for (int change = 0; change <= i % 4; change++) {
            random = random * 1664525 + 1013904223;
            mutant[(random >> 8) % size] = " \n0918x:-\"{}[],\0\xff"[random % 17];
        }
        put_bytes(of_json ? "b.json" : "b.json.samples", mutant, size);
        compare_hostile(words);
        put(of_json ? "b.json" : "b.json.samples", of_json ? json : text);
    }
    fclose(words);
}

/* --- what the program measures --- */

static void test_sweeps_keep_every_sample(void **state) {
    (void)state;
    struct samples samples;
    struct error error;
    expect(0,
           "sweep --device cpu --op fp16_gemm --shapes 128x64 --m 1,2 --benchmark_min_time=0.001 "
           "--benchmark_out=@/s.json 2>/dev/null",
           "m:2");
    if (samples_read(in_folder("s.json.samples"), &samples, &error)) fail_msg("%s", error.text);
    json_t *root = json_load_file(in_folder("s.json"), 0, NULL);
    assert_int_equal(samples.count, 2);
    for (int i = 0; i < 2; i++) {
        const json_t *row = json_array_get(json_object_get(root, "benchmarks"), (size_t)i);
        size_t length = strlen(samples.rows[i].name);
        assert_memory_equal(json_string_value(json_object_get(row, "name")), samples.rows[i].name, length);
        assert_int_equal((int)json_number_value(json_object_get(row, "samples")), samples.rows[i].count);
        assert_string_equal(samples.rows[i].clock, "monotonic");
        measure_sort(samples.rows[i].us, samples.rows[i].count);
        double median = measure_median(samples.rows[i].us, samples.rows[i].count);
        assert_true(fabs(median - json_number_value(json_object_get(row, "us"))) <= 0.001);
    }
    json_decref(root);
    samples_free(&samples);
    expect(0, "compare @/s.json @/s.json", "p=1|2 rows: 0 faster, 0 slower, 2 tied");
    /* Neither a device nor a list has samples. */
    expect(0, "sweep --device cpu --op fp16_gemm --shapes 128x64 --m 1 --benchmark_list_tests --benchmark_out=@/l.json",
           "m:1");
    assert_int_not_equal(access(in_folder("l.json.samples"), F_OK), 0);
    expect(1, "sweep --device cpu --op fp16_gemm --shapes 128x64 --m 1 --benchmark_out=@/none/s.json", "none/s.json");
}

/* The margin is beyond any noise: two arms that are the same are a tie. */
static void test_arms(void **state) {
    (void)state;
    expect(0, ARMS "--config default --config default --margin 900 --format json 2>/dev/null", "\"basis\": \"rounds\"");
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    const json_t *rows = json_object_get(root, "rows"), *row = json_array_get(rows, 0);
    assert_int_equal(json_array_size(rows), 1);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(row, "a"), "n")), 6);
    double ratio = json_real_value(json_object_get(row, "ratio"));
    assert_true(ratio >= json_real_value(json_object_get(row, "low")));
    assert_true(ratio <= json_real_value(json_object_get(row, "high")));
    assert_true(json_is_null(json_object_get(row, "p")));
    json_decref(root);
    static const char b[] = "tile_m=1,tile_n=16,tile_k=256,unroll=1,threads=1";
    char line[512];
    snprintf(line, sizeof line, ARMS "--m 1,3 --config default --config %s --margin 900", b);
    expect(0, line, "A: fp16_gemm, default|B: fp16_gemm, tile_m=1|/m:3/|-> tile_m=1,tile_n=16|A/A|2 rows: 0 faster");
    expect(0, ARMS "--kernel fp16_gemm/cpu,fp16_gemm/cpu --margin 900", "A: fp16_gemm/cpu, default|1 tied");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mann_whitney),
        cmocka_unit_test(test_verdict_is_symmetric),
        cmocka_unit_test(test_geometric_mean),
        cmocka_unit_test(test_rounds),
        TEST(test_verdicts_with_samples),
        TEST(test_verdicts_without_samples),
        TEST(test_repetitions_are_one_row),
        TEST(test_missing_and_failed_rows),
        TEST(test_contexts),
        TEST(test_samples_of_another_run),
        TEST(test_refuses),
        TEST(test_samples_are_read_back),
        TEST(test_bad_samples_are_named),
        TEST(test_hostile_files),
        TEST(test_sweeps_keep_every_sample),
        TEST(test_arms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
