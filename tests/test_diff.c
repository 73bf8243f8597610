/* Tables beside each other: what is the same, a tie, a border, or not the same at all. */
#include "tests/command.h"

#include <math.h>

#include "tuner/diff.h"

/* A row of (op, 128, 256, 128). */
static struct tile_row make_row(const char *op, long low, long high, const char *configuration, double us, int tie) {
    struct tile_row row = {
        .k = 128, .n = 256, .group = 128, .m_low = low, .m_high = high, .us = us, .gbs = 1, .tie = tie};
    snprintf(row.op, sizeof row.op, "%s", op);
    snprintf(row.kernel, sizeof row.kernel, "%s/mma", op);
    snprintf(row.configuration, sizeof row.configuration, "tile_n=%s", configuration);
    row.default_us = us;
    return row;
}

static struct tile_table make_table(struct tile_row *rows, size_t count) {
    return (struct tile_table){.device = "GPU",
                               .architecture = "sm_90a",
                               .multiprocessors = 132,
                               .software = "driver 1",
                               .kernels = "01234567",
                               .regime = "cold, stream",
                               .rows = rows,
                               .count = count};
}

/* "kind low-high ratio" of each part. */
static void expect_parts(struct tile_row *a, size_t a_count, struct tile_row *b, size_t b_count, bool agree,
                         const char *expected) {
    static const char *const kinds[DIFF_KINDS] = {"same", "tie", "border", "other", "only-a", "only-b"};
    const struct tile_table left = make_table(a, a_count), right = make_table(b, b_count);
    struct diff diff;
    char found[512] = "";
    size_t used = 0;
    assert_int_equal(diff_tables(&left, &right, &diff), 0);
    for (int i = 0; i < diff.count; i++) {
        const struct diff_part *part = &diff.parts[i];
        used += (size_t)snprintf(found + used, sizeof found - used, "%s %ld-%ld %.2f\n", kinds[part->kind], part->m_low,
                                 part->m_high, part->ratio);
    }
    assert_string_equal(found, expected);
    assert_int_equal(diff_agree(&diff, 0.02), agree);
    diff_free(&diff);
}

static void test_the_same(void **state) {
    (void)state;
    struct tile_row rows[] = {make_row("marlin_gemm", 1, 8, "64", 10, 0), make_row("marlin_gemm", 9, 64, "128", 20, 2)};
    expect_parts(rows, 2, rows, 2, true, "same 1-8 1.00\nsame 9-64 1.00\n");
    expect_parts(rows, 0, rows, 0, true, "");
}

/* Either side's ties excuse another winner, but not another time. */
static void test_ties(void **state) {
    (void)state;
    struct tile_row a[] = {make_row("marlin_gemm", 1, 8, "64", 10, 0)};
    struct tile_row b[] = {make_row("marlin_gemm", 1, 8, "128", 10.1, 1)};
    expect_parts(a, 1, b, 1, true, "tie 1-8 1.01\n");
    expect_parts(b, 1, a, 1, true, "tie 1-8 0.99\n");
    b[0].tie = 0;
    expect_parts(a, 1, b, 1, false, "other 1-8 1.01\n");
    b[0] = make_row("marlin_gemm", 1, 8, "64", 10.3, 0);
    expect_parts(a, 1, b, 1, false, "same 1-8 1.03\n");
    b[0].us = 9.7;
    expect_parts(a, 1, b, 1, false, "same 1-8 0.97\n");
}

/* Rows are cut where either table has a border; times are those of the upper end, so most parts have none. */
static void test_borders(void **state) {
    (void)state;
    struct tile_row a[] = {make_row("marlin_gemm", 1, 32, "64", 10, 0), make_row("marlin_gemm", 33, 64, "128", 20, 0)};
    struct tile_row b[] = {make_row("marlin_gemm", 1, 36, "64", 11, 0), make_row("marlin_gemm", 37, 64, "128", 20, 0)};
    expect_parts(a, 2, b, 2, true, "same 1-32 0.00\nborder 33-36 0.00\nsame 37-64 1.00\n");
    b[0].m_high = 37, b[1].m_low = 38;
    expect_parts(a, 2, b, 2, false, "same 1-32 0.00\nother 33-37 0.00\nsame 38-64 1.00\n");
}

static void test_what_one_lacks(void **state) {
    (void)state;
    struct tile_row a[] = {make_row("awq_dequant", 1, 1, "64", 5, 0), make_row("marlin_gemm", 1, 64, "64", 10, 0)};
    struct tile_row b[] = {make_row("marlin_gemm", 9, 128, "64", 20, 0)};
    expect_parts(a, 2, b, 1, false, "only-a 1-1 0.00\nonly-a 1-8 0.00\nsame 9-64 0.00\nonly-b 65-128 0.00\n");
    expect_parts(b, 1, a, 2, false, "same 9-64 0.00\nonly-a 65-128 0.00\nonly-b 1-1 0.00\nonly-b 1-8 0.00\n");
    b[0].group = 64;
    expect_parts(a + 1, 1, b, 1, false, "only-a 1-64 0.00\nonly-b 9-128 0.00\n");
}

static void test_summary(void **state) {
    (void)state;
    struct tile_row a[3], b[3];
    const double ratios[] = {1.01, 0.5, 2 / 1.01};
    for (int i = 0; i < 3; i++) {
        a[i] = make_row("marlin_gemm", 10 * i + 1, 10 * i + 10, "64", 10, 0);
        b[i] = a[i];
        b[i].us = 10 * ratios[i];
    }
    const struct tile_table left = make_table(a, 3), right = make_table(b, 3);
    struct diff diff;
    assert_int_equal(diff_tables(&left, &right, &diff), 0);
    assert_int_equal(diff.compared, 3);
    assert_true(fabs(diff.ratio - 1) < 1e-12);
    assert_ptr_equal(diff.most->a, &a[1]); /* half is further than less than twice */
    diff_free(&diff);
}

static void write_table(const char *name, struct tile_row *rows, size_t count, const char *kernels) {
    char message[TILES_MESSAGE];
    struct tile_table table = make_table(rows, count);
    snprintf(table.kernels, sizeof table.kernels, "%s", kernels);
    if (tiles_write(in_folder(name), &table, message)) fail_msg("%s", message);
}

static void test_command(void **state) {
    (void)state;
    struct tile_row a[] = {make_row("marlin_gemm", 1, 8, "64", 10, 0), make_row("marlin_gemm", 9, 64, "64", 20, 0)};
    struct tile_row b[] = {make_row("marlin_gemm", 1, 8, "64", 10.1, 0), make_row("marlin_gemm", 9, 64, "32", 19, 0)};
    write_table("a", a, 2, "01234567");
    expect(0, "table diff @/a @/a", "2 and 2 rows: 2 stretches of m are the same, 0 tie|takes 1.000 of A's");
    assert_null(strstr(output, "A is of"));
    write_table("b", b, 2, "89abcdef");
    expect(1, "table diff @/a @/b",
           "marlin_gemm 128 256 128 m 9-64: other, B takes 0.950 of A's time\n"
           "  A marlin_gemm/mma tile_n=64, 20.00 us at m=64\n  B marlin_gemm/mma tile_n=32, 19.00 us at m=64\n|"
           "kernels 89abcdef|1 other|the furthest 0.950, at marlin_gemm 128 256 128 m 64");
    assert_null(strstr(output, "m 1-8"));
    expect(2, "table diff @/a", "diff takes two tables");
    expect(2, "table diff @/a @/b @/b", "diff takes two tables");
    expect(1, "table diff @/a LICENSE", "LICENSE:1:");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same), cmocka_unit_test(test_ties),
        cmocka_unit_test(test_borders),  cmocka_unit_test(test_what_one_lacks),
        cmocka_unit_test(test_summary),  cmocka_unit_test_setup_teardown(test_command, folder_make, folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
