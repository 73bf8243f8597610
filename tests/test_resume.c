/* `tilebook sweep --resume`: what is measured stays, what is not is measured, and other rows never mix with these. */
#include "tests/command.h"

#include <jansson.h>

#include "bench/progress.h"
#include "bench/sweep.h"

/* Three points at --m 1, two more for each further M. */
#define SWEEP "sweep --device cpu --cache warm --shapes 128x128 --benchmark_min_time=0.001 "
#define FILE_JSON "--benchmark_out=@/f.json "

static json_t *load(const char *name) {
    json_error_t error;
    json_t *root = json_load_file(in_folder(name), 0, &error);
    if (!root) fail_msg("%s, line %d: %s", name, error.line, error.text);
    return root;
}

static json_t *rows_of(const json_t *root) {
    return json_object_get(root, "benchmarks");
}

static const char *name_of(const json_t *row) {
    return json_string_value(json_object_get(row, "name"));
}

/* Its figures, digit by digit; the family is its place in the file. */
static bool has_same(const json_t *rows, const json_t *row) {
    const json_t *other;
    json_t *wanted = json_copy((json_t *)row);
    bool found = false;
    size_t i;
    json_array_foreach((json_t *)rows, i, other) {
        json_object_set(wanted, "family_index", json_object_get(other, "family_index"));
        found |= json_equal(wanted, other);
    }
    json_decref(wanted);
    return found;
}

/* `count` rows of as many names, none failed, families in order; nothing temporary lies beside them. */
static json_t *expect_rows(size_t count) {
    json_t *root = load("f.json"), *rows = rows_of(root), *names = json_object();
    assert_int_equal(json_array_size(rows), count);
    for (size_t i = 0; i < count; i++) {
        const json_t *row = json_array_get(rows, i);
        if (json_object_get(row, "error_occurred")) fail_msg("%s failed", name_of(row));
        assert_int_equal(json_integer_value(json_object_get(row, "family_index")), i);
        json_object_set_new(names, name_of(row), json_true());
    }
    assert_int_equal(json_object_size(names), count);
    json_decref(names);
    expect_shell(0, "ls @ | grep -c 'part\\|new' | grep -x 0", "");
    return root;
}

static void begin_file(const char *arguments) {
    char line[512];
    expect_shell(0, "rm -rf @/*", "");
    snprintf(line, sizeof line, SWEEP FILE_JSON "%s", arguments);
    expect(0, line, "");
}

/* Also that every sample is there once: compare refuses others. */
static void expect_samples(const char *rows) {
    char line[128];
    snprintf(line, sizeof line, "wc -l <@/f.json.samples | grep -x %s", rows);
    expect_shell(0, line, "");
    expect(0, "compare @/f.json @/f.json --format json", "\"basis\": \"samples\"");
    assert_null(strstr(output, "\"basis\": \"p20..p80\""));
}

static void test_goes_on(void **state) {
    (void)state;
    begin_file("--resume --m 1"); /* nothing to go on with: begins */
    json_t *before = load("f.json"), *row;
    size_t i;
    expect(0, SWEEP FILE_JSON "--resume --m 1,2 --markdown @/t.md", "2 runs on cpu|measured before: 3 points");
    json_t *after = expect_rows(5);
    json_array_foreach(rows_of(before), i, row) assert_true(has_same(rows_of(after), row));
    const json_t *context = json_object_get(after, "context");
    assert_true(json_is_string(json_object_get(context, "resumed")));
    assert_string_equal(json_string_value(json_object_get(context, "read_gbs")),
                        json_string_value(json_object_get(json_object_get(before, "context"), "read_gbs")));
    expect_samples("6");
    expect_shell(0, "wc -l <@/t.md | grep -x 9 && grep -c '/cpu' @/t.md", "5"); /* those of before too */
    json_decref(before);
    json_decref(after);
}

static void test_nothing_is_left(void **state) {
    (void)state;
    begin_file("--m 1");
    expect_shell(0, "cp @/f.json @/copy && cp @/f.json.samples @/lines", "");
    expect(0, SWEEP FILE_JSON "--resume --m 1", "0 runs on cpu|measured before: 3 points");
    expect_shell(0, "cmp @/f.json @/copy && cmp @/f.json.samples @/lines", "");
}

/* Ctrl-C in the middle of a sweep, then the same command. */
static void test_interrupt(void **state) {
    (void)state;
    json_t *row;
    size_t i, measured = 0;
    expect_shell(0, "rm -rf @/*", "");
    expect_shell(130,
                 "$TILEBOOK sweep --device cpu --shapes 1024x1024 --m 1,16 --benchmark_min_time=0.5 " FILE_JSON
                 "2>&1 >@/stdout & pid=$!; until grep -q '^marlin_gemm' @/stdout || ! kill -0 $pid; do "
                 "sleep 0.1; done; kill -INT $pid; wait $pid",
                 "interrupted|--resume goes on");
    json_t *before = load("f.json");
    expect(0, "sweep --device cpu --shapes 1024x1024 --m 1,16 --benchmark_min_time=0.001 --resume " FILE_JSON,
           "measured before: ");
    json_t *after = expect_rows(5);
    json_array_foreach(rows_of(before), i, row) {
        bool failed = json_object_get(row, "error_occurred") != NULL;
        assert_int_equal(has_same(rows_of(after), row), !failed);
        measured += !failed;
    }
    assert_in_range(measured, 2, 4);
    expect_samples("6");
    json_decref(before);
    json_decref(after);
}

/* Killed while it wrote: behind a whole row, in the middle of one, before the first, and after all. */
static void test_cut_files(void **state) {
    (void)state;
    static const struct {
        const char *cut, *left;
    } cases[] = {
        {"head -c -6 @/f.json", "0 runs"},
        {"head -c -300 @/f.json", "1 run on"},
        {"sed '/^      \"name\"/,$d' @/f.json", "3 runs"},
        {"sed '/benchmarks/q' @/f.json", "3 runs"},
    };
    begin_file("--m 1");
    expect_shell(0, "cp @/f.json @/whole", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[256];
        snprintf(line, sizeof line, "cp @/whole @/f.json; %s >@/cut && mv @/cut @/f.json", cases[i].cut);
        expect_shell(0, line, "");
        expect(0, SWEEP FILE_JSON "--resume --m 1", cases[i].left);
        json_decref(expect_rows(3));
        expect_samples("4");
    }
}

/* A resumed run that was killed left its part, and a sample line of a row that is in neither. */
static void test_killed_twice(void **state) {
    (void)state;
    begin_file("--op fp16_gemm --m 1");
    expect(0, SWEEP "--op fp16_gemm --m 2,3 --benchmark_out=@/g.json", "");
    expect_shell(0,
                 "head -c -300 @/g.json >@/f.json.part && tail -n +2 @/g.json.samples >>@/f.json.samples && "
                 "printf 'fp16_gemm/cpu/128x128 mono' >>@/f.json.samples && rm @/g.*",
                 "");
    expect(0, SWEEP FILE_JSON "--op fp16_gemm --resume --m 1,2,3", "1 run on cpu|measured before: 2 points");
    json_decref(expect_rows(3));
    expect_samples("4");
    /* A file that is begun anew has nothing to do with an old part. */
    expect_shell(0, "cp @/f.json @/f.json.part", "");
    expect(0, SWEEP FILE_JSON "--op fp16_gemm --m 1", "");
    json_decref(expect_rows(1));
}

/* Rows that nobody asks for now stay; a row that failed is measured again. */
static void test_other_rows_stay(void **state) {
    (void)state;
    begin_file("--m 1,2");
    expect_shell(0,
                 "sed -i '0,/\"run_type\": \"iteration\",/s//&\\n\"error_occurred\": true, \"error_message\": \"x\",/' "
                 "@/f.json",
                 "");
    expect(0, SWEEP FILE_JSON "--m 1,4 --resume --benchmark_filter=-fp16", "2 runs on cpu|measured before: 1 point");
    json_decref(expect_rows(6));
    expect_samples("7");
    expect(0, SWEEP FILE_JSON "--m 8 --resume --benchmark_filter='k:128.*/m:8/.*manual'", "2 runs on cpu");
    json_decref(expect_rows(8));
}

static void test_repetitions(void **state) {
    (void)state;
    begin_file("--op awq_dequant,fp16_gemm --m 1 --benchmark_repetitions=2");
    expect(0, SWEEP FILE_JSON "--op awq_dequant,fp16_gemm --m 1,2 --benchmark_repetitions=2 --resume",
           "2 runs on cpu|measured before: 2 points");
    json_t *root = load("f.json"), *row;
    int runs = 0;
    size_t i;
    json_array_foreach(rows_of(root), i, row) runs +=
        !strcmp(json_string_value(json_object_get(row, "run_type")), "iteration");
    assert_int_equal(runs, 6);
    expect_samples("7");
    json_decref(root);
}

/* Refused before anything is measured or written. */
static void test_other_origins(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"s/\"kernels\": \"[0-9a-f]*\"/\"kernels\": \"00000000\"/", "kernels '00000000', here it is '"},
        {"s/\"device\": \".*\"/\"device\": \"Other\"/", "device 'Other', here it is '"},
        {"s/\"software\": \".*\"/\"software\": \"gcc 1\"/", "software 'gcc 1', here it is '"},
        {"s/\"cache\": \"warm\"/\"cache\": \"cold\"/", "cache 'cold', here it is 'warm'"},
        {"s/\"launch\": \"call\"/\"launch\": \"pdl\"/", "launch 'pdl', here it is 'call'"},
        {"s/\"seed\": \"1\"/\"seed\": \"2\"/", "seed '2', here it is '1'"},
        {"s/\"read_gbs\": \".*\"/\"read_gbs\": \"-1\"/", "read_gbs is '-1'|remove it, or name another file"},
        {"s/\"device\"/\"machine\"/", "is not the JSON of a sweep; remove it, or name another file"},
        {"s/\"run_type\"/\"type\"/", "is not the JSON of a sweep"},
        {"s/{//", "f.json, line "},
        {"s/.*//", "f.json, line "},
    };
    begin_file("--op fp16_gemm --m 1");
    expect_shell(0, "cp @/f.json @/whole", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char line[256];
        snprintf(line, sizeof line, "sed '%s' @/whole >@/f.json && cp @/f.json @/copy", cases[i][0]);
        expect_shell(0, line, "");
        expect(1, SWEEP FILE_JSON "--op fp16_gemm --m 1,2 --resume", cases[i][1]);
        expect_shell(0, "cmp @/f.json @/copy", "");
    }
    expect_shell(0, "cp @/whole @/f.json && echo other >@/f.json.samples", "");
    expect(1, SWEEP FILE_JSON "--op fp16_gemm --m 1,2 --resume", "f.json.samples does not begin with '# tilebook");
}

static void test_usage(void **state) {
    (void)state;
    expect(2, SWEEP "--resume", "--resume needs the JSON file that it goes on with: --benchmark_out=FILE");
    expect(2, SWEEP "--resume --benchmark_out=@/x.csv --benchmark_out_format=csv", "--resume needs the JSON file");
    expect(2, SWEEP FILE_JSON "--resume --csv @/x.csv", "neither with --chain nor with --csv");
    /* A list leaves the file alone. */
    begin_file("--op fp16_gemm --m 1");
    expect_shell(0, "cp @/f.json @/whole", "");
    expect(0, SWEEP FILE_JSON "--m 1 --benchmark_list_tests", "fp16_gemm/cpu");
    expect(0, SWEEP FILE_JSON "--m 1 --benchmark_list_tests --resume", "awq_dequant/cpu");
    expect_shell(0, "cmp @/f.json @/whole", "");
}

/* --- progress --- */

static const char *show(struct sweep *sweep) {
    static char text[512];
    sweep->progress.drawn_s = 0;
    rewind(sweep->progress.stream);
    sweep_show(sweep, "a/point");
    sweep_ran(sweep);
    long length = ftell(sweep->progress.stream);
    rewind(sweep->progress.stream);
    text[fread(text, 1, (size_t)length, sweep->progress.stream)] = 0;
    return text;
}

static void test_progress(void **state) {
    (void)state;
    struct sweep sweep = {.runs = 4};
    sweep.progress = (struct progress){.stream = tmpfile(), .terminal = true};
    assert_non_null(strstr(show(&sweep), "]   0%  ? left  1/4 a/point"));
    sweep.began_s -= 100; /* that is what one run took */
    assert_non_null(strstr(show(&sweep), "]  25%  5:00 left  2/4 a/point"));
    assert_string_equal(show(&sweep) + strlen(show(&sweep)) - 4, "\r\033[K");
    fclose(sweep.progress.stream);
}

static void test_progress_in_a_log(void **state) {
    (void)state;
    struct sweep sweep = {.runs = 4};
    sweep.progress = (struct progress){.stream = tmpfile()};
    assert_string_equal(show(&sweep), "");
    sweep.began_s -= 1000;
    assert_string_equal(show(&sweep), ""); /* so soon after the start */
    sweep.said_s -= 31;
    assert_string_equal(show(&sweep), "[3/4] 5:33 left\n");
    assert_string_equal(show(&sweep), "");
    fclose(sweep.progress.stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on),
        cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_killed_twice),
        cmocka_unit_test(test_other_rows_stay),
        cmocka_unit_test(test_repetitions),
        cmocka_unit_test(test_other_origins),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_progress_in_a_log),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
