/* From a lookup in vain to a row for it: the list of misses, who writes it, and tune --from-misses. */
#include "tests/command.h"

#include "bench/misses.h"

static const struct problem problem = {OP_MARLIN_GEMM, 37, 512, 256, 128, true, EPILOGUE_BIAS};

static const char *contents(const char *name) {
    static char text[4096];
    FILE *file = fopen(in_folder(name), "r");
    text[file ? fread(text, 1, sizeof text - 1, file) : 0] = 0;
    if (file) fclose(file);
    return text;
}

static void write_file(const char *name, const char *text) {
    FILE *file = fopen(in_folder(name), "w");
    fputs(text, file);
    fclose(file);
}

static int count_lines(const char *text, const char *part) {
    int count = 0;
    for (const char *at = text; (at = strstr(at, part)); at++) count++;
    return count;
}

static void test_each_miss_is_written_once(void **state) {
    (void)state;
    struct misses misses = {.count = 0}, back;
    struct problem other = problem;
    struct error error;
    int added;
    other.m = 1;
    assert_int_equal(misses_note(&misses, &problem, CHOICE_ABOVE, &error), 0);
    assert_int_equal(misses_note(&misses, &problem, CHOICE_NO_ROW, &error), 0);
    assert_int_equal(misses_note(&misses, &other, CHOICE_ROW, &error), 0); /* a hit */
    assert_int_equal(misses.count, 1);
    assert_int_equal(misses_append(in_folder("m"), &misses, &added, &error), 0);
    assert_int_equal(added, 1);
    assert_int_equal(misses_note(&misses, &other, CHOICE_REFUSED, &error), 0);
    assert_int_equal(misses_append(in_folder("m"), &misses, &added, &error), 0);
    assert_int_equal(added, 1);
    assert_int_equal(misses_append(in_folder("m"), &misses, &added, &error), 0);
    assert_int_equal(added, 0);
    misses_free(&misses);
    if (misses_read(in_folder("m"), &back, &error)) fail_msg("%s", error.text);
    assert_int_equal(back.count, 2);
    assert_true(problem_equal(&back.list[0].problem, &problem) && problem_equal(&back.list[1].problem, &other));
    assert_int_equal(back.list[0].how, CHOICE_ABOVE);
    assert_int_equal(back.list[1].how, CHOICE_REFUSED);
    misses_free(&back);
    /* No miss makes no file. */
    assert_int_equal(misses_append(in_folder("none"), &misses, &added, &error), 0);
    assert_int_not_equal(access(in_folder("none"), F_OK), 0);
}

static void expect_refused(const char *text, const char *expected) {
    struct misses misses;
    struct error error;
    write_file("bad", text);
    assert_int_equal(misses_read(in_folder("bad"), &misses, &error), -1);
    if (!strstr(error.text, expected)) fail_msg("'%s' lacks '%s'", error.text, expected);
    assert_int_equal(misses_append(in_folder("bad"), &misses, &(int){0}, &error), -1); /* not someone else's file */
    assert_string_equal(contents("bad"), text);
}

#define FIRST "# tilebook misses 1\n"

static void test_refuses_what_is_no_miss(void **state) {
    (void)state;
    expect_refused("a,b\n", ":1: not a list of misses");
    expect_refused(FIRST "marlin_gemm 256 512 128 1 bias 37\n", ":2: a miss has: op k n g zeros epilogue m why");
    expect_refused(FIRST "\ngemm 256 512 128 1 bias 37 above\n", ":3: unknown op 'gemm'");
    expect_refused(FIRST "marlin_gemm 256 512 128 1 gelu 37 above\n", "gelu");
    expect_refused(FIRST "marlin_gemm 256 512 128 1 bias 37 hit\n", "'hit' is not one of above");
    expect_refused(FIRST "marlin_gemm 250 512 128 1 bias 37 above\n", ":2: ");
    expect_refused(FIRST "marlin_gemm 256 512 128 1 bias 37 above more\n", ":2: a miss has");
}

#define MODEL "tests/fixtures/tiny-qwen2-awq"
#define DECODE                                                                                                         \
    "decode --model " MODEL " --quantization awq_marlin --device cpu --table @/t.txt --misses @/misses "               \
    "--prompt-ids 1,2,3,4,5 --max-tokens 2"
#define MEND "tune --from-misses @/misses --device cpu --trials 1 --out @/t.txt"

static void test_decoder_to_table(void **state) {
    (void)state;
    struct tile_table before, table;
    char message[TILES_MESSAGE];
    expect(0, "tune --coarse --model " MODEL " --device cpu --op marlin_gemm --m 1,2 --trials 1 --out @/t.txt",
           "8 problems");
    assert_int_equal(tiles_read(in_folder("t.txt"), &before, message), 0);
    expect(0, DECODE, "5 of the shapes and M are not in a table, 5 new ones|the last row, for m up to 2|no row in the");
    assert_int_equal(count_lines(contents("misses"), " 5    above\n"), 4);
    assert_int_equal(count_lines(contents("misses"), "no-row"), 1);
    expect(0, DECODE, "5 of the shapes and M are not in a table, 0 new ones");
    expect(0, MEND, "8 of 8 rows are tried first|5 problems, ");
    if (tiles_read(in_folder("t.txt"), &table, message)) fail_msg("%s", message);
    assert_int_equal(table.count, before.count + 5);
    const struct tile_row *row = tiles_find(&table, "marlin_gemm", 256, 512, 128, 5);
    assert_true(row->m_low == before.rows[0].m_low + 2 && row->m_high == 5);
    assert_non_null(tiles_find(&table, "fp16_gemm", 256, 1152, 0, 1));
    tiles_free(&before);
    tiles_free(&table);
    assert_int_equal(remove(in_folder("misses")), 0);
    expect(0, DECODE, "tuned");
    assert_null(strstr(output, "not in a table"));
    assert_int_not_equal(access(in_folder("misses"), F_OK), 0);
    expect(0, "table lint @/t.txt", "0 findings");
    expect(0, "decode --model " MODEL " --device cpu --misses @/misses --prompt-ids 1 --max-tokens 1", "new ones in");
    assert_true(count_lines(contents("misses"), "no-table\n") > 0);
}

#define SWEEP "sweep --device cpu --op marlin_gemm --shapes 128x128 --table @/t.txt --benchmark_min_time=0.01 "

/* A row that cannot run is replaced up to the m that was missed; what lies above stays. */
static void test_sweep_to_table(void **state) {
    (void)state;
    struct tile_table table;
    char message[TILES_MESSAGE];
    expect(0, "tune --coarse --shapes 128x128 --device cpu --op marlin_gemm --m 1,8 --trials 1 --out @/t.txt",
           "2 problems");
    assert_int_equal(tiles_read(in_folder("t.txt"), &table, message), 0);
    strcpy(table.rows[table.count - 1].configuration, "no_such=1");
    assert_int_equal(tiles_write(in_folder("t.txt"), &table, message), 0);
    tiles_free(&table);
    expect(2, SWEEP "--m 1,6,8 --config table --misses @/misses", "no_such");
    write_file("misses", FIRST "marlin_gemm 128 128 128 1 none 6 refused\nmarlin_gemm 128 128 128 0 none 6 refused\n"
                               "marlin_gemm 128 128 128 1 none 3 refused\n");
    expect(0, MEND, "2 problems, 2 trials");
    if (tiles_read(in_folder("t.txt"), &table, message)) fail_msg("%s", message);
    const struct tile_row *row = tiles_find(&table, "marlin_gemm", 128, 128, 128, 2);
    assert_int_equal(row->m_low, 2);
    assert_int_equal(tiles_find(&table, "marlin_gemm", 128, 128, 128, 6)->m_high, 6);
    row = tiles_find(&table, "marlin_gemm", 128, 128, 128, 7);
    assert_true(row->m_low == 7 && row->m_high == 8 && !strcmp(row->configuration, "no_such=1"));
    tiles_free(&table);
    remove(in_folder("misses"));
    expect(0, SWEEP "--m 1,6,9 --config default --misses @/misses",
           "1 of the shapes and M are not in the table, 1 new");
    assert_int_equal(count_lines(contents("misses"), "refused"), 1);
    assert_int_equal(count_lines(contents("misses"), " 9    refused"), 1);
    expect(2, "sweep --device cpu --misses @/misses", "--misses needs a tile table");
    expect(2, "tune --from-misses @/misses --m 1", "--from-misses says what to tune");
    expect(2, "tune --from-misses @/t.txt", "not a list of misses");
    expect(1, "tune --from-misses @/misses --device cpu --out @/t.txt --store @/missing/s", "unable to open");
    expect_shell(0, "sed -i 's/^regime .*/regime    cold, graph, cupti/' @/t.txt", "");
    expect(
        1, MEND,
        "was measured in the regime 'cold, graph, cupti' and cannot be mended in 'cold, calls'; give --regime graph");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_each_miss_is_written_once),
        TEST(test_refuses_what_is_no_miss),
        TEST(test_decoder_to_table),
        TEST(test_sweep_to_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
