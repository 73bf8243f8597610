/* Tile tables: reading, checking, looking up, writing. */
#include "tests/command.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "kernels/tiles.h"

#define HEAD                                                                                                           \
    "# tilebook table 1\n"                                                                                             \
    "device    NVIDIA H100 80GB HBM3, sm_90a, 132 SMs\n"                                                               \
    "software  driver 580.159, cuda 13.0, kernels 5f2c91aa\n"                                                          \
    "regime    cold, stream\n"
#define ROW "marlin_gemm 5120 7168 128 "
#define END " marlin_gemm/mma tile_n=64 stages=6 8.0 2361 2 12.9\n"

static char message[TILES_MESSAGE];

static int parse(const char *text, struct tile_table *table) {
    message[0] = 0;
    return tiles_parse(text, strlen(text), "t.txt", table, message);
}

static void test_reads_every_field(void **state) {
    (void)state;
    struct tile_table table;
    assert_int_equal(
        parse(HEAD "# a comment\n\n  \n" ROW "1-8" END ROW "9 \tmarlin_gemm/other - 123456.25 0.5 0 0", &table), 0);
    assert_string_equal(table.device, "NVIDIA H100 80GB HBM3");
    assert_string_equal(table.architecture, "sm_90a");
    assert_int_equal(table.multiprocessors, 132);
    assert_string_equal(table.software, "driver 580.159, cuda 13.0");
    assert_string_equal(table.kernels, "5f2c91aa");
    assert_string_equal(table.regime, "cold, stream");
    assert_int_equal(table.count, 2);
    const struct tile_row *row = table.rows;
    assert_string_equal(row->op, "marlin_gemm");
    assert_true(row->k == 5120 && row->n == 7168 && row->group == 128 && row->m_low == 1 && row->m_high == 8);
    assert_string_equal(row->kernel, "marlin_gemm/mma");
    assert_string_equal(row->configuration, "tile_n=64 stages=6");
    assert_true(row->us == 8.0 && row->gbs == 2361 && row->tie == 2 && row->default_us == 12.9);
    assert_true(row[1].m_low == 9 && row[1].m_high == 9 && row[1].us == 123456.25);
    assert_string_equal(row[1].configuration, "-");
    tiles_free(&table);
}

static void test_odd_but_well_formed(void **state) {
    (void)state;
    struct tile_table table;
    assert_int_equal(
        parse("# tilebook table 1\r\nregime cold\r\ndevice A, B, C, avx2, 2 cores\r\nsoftware x, kernels 1\r\n",
              &table),
        0);
    assert_string_equal(table.device, "A, B, C");
    assert_string_equal(table.regime, "cold");
    assert_int_equal(table.count, 0);
    assert_null(tiles_find(&table, "marlin_gemm", 1, 1, 0, 1));
    tiles_free(&table);
}

static const struct {
    const char *text, *expected;
} bad_tables[] = {
    {"", "t.txt: the file is empty"},
    {"hello\n", "t.txt:1: 'hello' is not the first line"},
    {"# tilebook table 2\n", "version 2, this program reads version 1"},
    {"# tilebook table 1x\n", "t.txt:1:"},
    {"# tilebook table 1\n", "without a 'device' line"},
    {"# tilebook table 1\ndevice a, b, 1 SMs\nregime c\n", "t.txt:3: the table ends without a 'software' line"},
    {"# tilebook table 1\ndevice a, b\n", "t.txt:2: device is 'a, b'; accepted: NAME, ARCHITECTURE, COUNT SMs"},
    {"# tilebook table 1\ndevice a, b, x SMs\n", "t.txt:2: device is"},
    {"# tilebook table 1\ndevice a, a_very_long_architecture, 1 SMs\n", "at most 15 are accepted"},
    {"# tilebook table 1\nsoftware driver 1\n", "accepted: TEXT, kernels HASH"},
    {"# tilebook table 1\nregime\n", "regime is empty"},
    {HEAD "regime again\n", "t.txt:5: a second 'regime' line; the first is line 4"},
    {HEAD ROW "1-8 marlin_gemm/mma 8.0 2361 2 12.9\n", "t.txt:5: 10 fields; a row has:"},
    {HEAD "short\n", "t.txt:5: 1 fields"},
    {HEAD "marlin_gemm_that_is_far_too_long 1 1 1 1" END, "op 'marlin_gemm_that_is_far_too_long...'"},
    {HEAD "marlin_gemm x 7168 128 1-8" END, "k is 'x'"},
    {HEAD "marlin_gemm 0 7168 128 1-8" END, "k is '0'; accepted: a whole number from 1"},
    {HEAD "marlin_gemm 5120 99999999999 128 1-8" END, "n is '99999999999'"},
    {HEAD "marlin_gemm 5120 2147483648 128 1-8" END, "n is '2147483648'"},
    {HEAD "marlin_gemm 5120 7168 -1 1-8" END, "g is '-1'"},
    {HEAD ROW "8-1" END, "m is '8-1'"},
    {HEAD ROW "0-1" END, "m is '0-1'"},
    {HEAD ROW "-8" END, "m is '-8'"},
    {HEAD ROW "8-" END, "m is '8-'"},
    {HEAD ROW "1-2-3" END, "m is '1-2-3'"},
    {HEAD ROW "1-8 k tile_n 1 1 1 1\n", "configuration has 'tile_n'"},
    {HEAD ROW "1-8 k =3 1 1 1 1\n", "configuration has '=3'"},
    {HEAD ROW "1-8 k a= 1 1 1 1\n", "configuration has 'a='"},
    {HEAD ROW "1-8 k a=1=2 1 1 1 1\n", "configuration has 'a=1=2'"},
    {HEAD ROW "1-8 k - a=1 1 1 1 1\n", "configuration has '-'"},
    {HEAD ROW "1-8 k - -1 1 1 1\n", "us is '-1'"},
    {HEAD ROW "1-8 k - 1e3 1 1 1\n", "us is '1e3'"},
    {HEAD ROW "1-8 k - 1 nan 1 1\n", "GB/s is 'nan'"},
    {HEAD ROW "1-8 k - 1 1 1.5 1\n", "tie is '1.5'"},
    {HEAD ROW "1-8 k - 1 1 1 .\n", "default_us is '.'"},
    {HEAD ROW "1-8 k - 1 1 1 1.2.3\n", "default_us is '1.2.3'"},
    {HEAD ROW "1-8 k - 1 1 1 1234567890123456\n", "at most 15 digits"},
    {HEAD ROW "1-8 k - 100000000001 1 1 1\n", "up to 1e11"},
    {HEAD ROW "1-8" END ROW "10-16" END,
     "t.txt:6: m 10-16 of marlin_gemm 5120 7168 128 leaves a gap behind m 1-8; the next range must start at 9"},
    {HEAD ROW "1-8" END ROW "8-16" END, "t.txt:6: m 8-16 of marlin_gemm 5120 7168 128 overlaps m 1-8"},
    {HEAD ROW "1-8" END ROW "1-8" END, "overlaps"},
    {HEAD ROW "1" END "fp16_gemm 5120 7168 0 1" END,
     "t.txt:6: fp16_gemm 5120 7168 0 comes after marlin_gemm 5120 7168 128"},
    {HEAD "a\033[31m 1 1 1 1" END, "t.txt:5: byte 0x1b in column 2"},
};

static void test_refuses(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_tables / sizeof *bad_tables; i++) {
        struct tile_table table;
        int status = parse(bad_tables[i].text, &table);
        if (status != -1 || !strstr(message, bad_tables[i].expected))
            fail_msg("table %zu: status %d, message '%s', expected '%s'", i, status, message, bad_tables[i].expected);
        assert_null(table.rows);
        assert_int_equal(table.count, 0);
    }
}

/* All prefixes, and every byte of a table replaced: no crash, and an error leaves nothing behind. */
static void test_hostile_bytes(void **state) {
    (void)state;
    static const char good[] = HEAD ROW "1-8" END ROW "9-16" END;
    static const unsigned char bytes[] = {0, '\n', ' ', '=', '-', '9', ',', 0xff};
    struct tile_table table;
    for (size_t length = 0; length < sizeof good; length++) {
        char *copy = malloc(length + !length);
        memcpy(copy, good, length);
        if (tiles_parse(copy, length, "t.txt", &table, message)) assert_null(table.rows);
        tiles_free(&table);
        for (size_t b = 0; length && b < sizeof bytes; b++) {
            char changed[sizeof good];
            memcpy(changed, good, sizeof good);
            changed[length - 1] = (char)bytes[b];
            if (tiles_parse(changed, sizeof good - 1, "t.txt", &table, message)) assert_null(table.rows);
            tiles_free(&table);
        }
        free(copy);
    }
    assert_int_equal(tiles_parse("# tilebook table 1\0\n", 20, "t.txt", &table, message), -1);
    assert_non_null(strstr(message, "byte 0x00 in column 19"));
}

static void test_long_lines(void **state) {
    (void)state;
    enum { LONG = 1 << 20 };
    static const char fillers[] = {'a', ' ', '1', '=', '-', ','};
    static const char *const starts[] = {"", "# ", "device ", "software x, kernels ", ROW, ROW "1-8 kernel a=1 "};
    char *text = malloc(LONG + sizeof HEAD);
    struct tile_table table;
    for (size_t s = 0; s < 6; s++)
        for (size_t f = 0; f < sizeof fillers; f++) {
            int used = sprintf(text, "# tilebook table 1\n%s", starts[s]);
            memset(text + used, fillers[f], (size_t)(LONG - used));
            assert_int_equal(tiles_parse(text, LONG, "t.txt", &table, message), -1);
            assert_true(strlen(message) < TILES_MESSAGE);
        }
    int used = sprintf(text, HEAD ROW "1-8 kernel");
    for (int i = 0; i < 1000; i++) used += sprintf(text + used, " a=1");
    assert_int_equal(tiles_parse(text, (size_t)used, "t.txt", &table, message), -1);
    assert_non_null(strstr(message, "more than 64 fields"));
    free(text);
}

static struct tile_row row(const char *op, long k, long group, long low, long high, const char *configuration) {
    struct tile_row made = {
        .k = k, .n = 64, .group = group, .m_low = low, .m_high = high, .us = 1.5, .gbs = 10, .default_us = 2};
    strcpy(made.op, op);
    strcpy(made.kernel, "x/y");
    strcpy(made.configuration, configuration);
    return made;
}

static struct tile_table sample(struct tile_row *rows, size_t count) {
    struct tile_table table = {.multiprocessors = 2, .rows = rows, .count = count};
    strcpy(table.device, "Some CPU, 3 GHz");
    strcpy(table.architecture, "avx2");
    strcpy(table.software, "gcc 12.2");
    strcpy(table.kernels, "0123abcd");
    strcpy(table.regime, "cold, calls, monotonic");
    return table;
}

static void test_round_trip_sorts(void **state) {
    (void)state;
    struct tile_row rows[] = {row("b", 128, 0, 9, 64, "a=1 bb=22"), row("b", 128, 0, 1, 8, "-"),
                              row("b", 64, 0, 1, 1, "-"), row("a", 4096, 128, 1, 16, "a=3"),
                              row("b", 128, 128, 5, 6, "c=-4")};
    static const int order[] = {3, 2, 1, 0, 4};
    struct tile_row original[5];
    memcpy(original, rows, sizeof rows);
    struct tile_table table = sample(rows, 5), back;
    char path[128];
    snprintf(path, sizeof path, "%s/round.txt", folder);
    assert_int_equal(tiles_write(path, &table, message), 0);
    assert_int_equal(tiles_read(path, &back, message), 0);
    assert_string_equal(back.device, table.device);
    assert_string_equal(back.architecture, table.architecture);
    assert_string_equal(back.software, table.software);
    assert_string_equal(back.kernels, table.kernels);
    assert_string_equal(back.regime, table.regime);
    assert_int_equal(back.multiprocessors, 2);
    assert_int_equal(back.count, 5);
    for (int i = 0; i < 5; i++) {
        const struct tile_row *a = &back.rows[i], *b = &original[order[i]];
        assert_string_equal(a->op, b->op);
        assert_string_equal(a->configuration, b->configuration);
        assert_true(a->k == b->k && a->group == b->group && a->m_low == b->m_low && a->m_high == b->m_high);
        assert_true(a->us == b->us && a->gbs == b->gbs && a->default_us == b->default_us);
    }
    tiles_free(&back);
}

static void test_find(void **state) {
    (void)state;
    struct tile_row rows[] = {row("a", 64, 0, 3, 4, "-"), row("b", 64, 0, 1, 8, "-"), row("b", 64, 0, 9, 16, "-"),
                              row("b", 64, 32, 1, 1, "-"), row("b", 128, 0, 1, 1, "-")};
    struct tile_table table = sample(rows, 5);
    assert_ptr_equal(tiles_find(&table, "b", 64, 64, 0, 1), &rows[1]);
    assert_ptr_equal(tiles_find(&table, "b", 64, 64, 0, 8), &rows[1]);
    assert_ptr_equal(tiles_find(&table, "b", 64, 64, 0, 9), &rows[2]);
    assert_ptr_equal(tiles_find(&table, "b", 64, 64, 0, 100000), &rows[2]);
    assert_ptr_equal(tiles_find(&table, "b", 64, 64, 32, 7), &rows[3]);
    assert_ptr_equal(tiles_find(&table, "b", 128, 64, 0, 1), &rows[4]);
    assert_ptr_equal(tiles_find(&table, "a", 64, 64, 0, 3), &rows[0]);
    assert_null(tiles_find(&table, "a", 64, 64, 0, 2));
    assert_null(tiles_find(&table, "b", 64, 64, 0, 0));
    assert_null(tiles_find(&table, "b", 64, 65, 0, 1));
    assert_null(tiles_find(&table, "c", 64, 64, 0, 1));
    assert_null(tiles_find(&table, "", 64, 64, 0, 1));
}

static void test_match_names_every_difference(void **state) {
    (void)state;
    struct tile_table table = sample(NULL, 0);
    assert_int_equal(tiles_match(&table, "Some CPU, 3 GHz", "avx2", 2, "0123abcd", message), 0);
    assert_int_equal(tiles_match(&table, "Some CPU, 3 GHz", "avx2", 2, "ffffffff", message), -1);
    assert_non_null(strstr(message, "kernels 0123abcd, here ffffffff"));
    assert_null(strstr(message, "device"));
    assert_int_equal(tiles_match(&table, "Other", "avx512f", 4, "ffffffff", message), -1);
    assert_non_null(strstr(message, "device 'Some CPU, 3 GHz', here 'Other'"));
    assert_non_null(strstr(message, "architecture avx2, here avx512f"));
    assert_non_null(strstr(message, "2 multiprocessors, here 4"));
    assert_non_null(strstr(message, "tilebook tune"));
}

static long file_size(const char *path) {
    struct stat status;
    return stat(path, &status) ? -1 : (long)status.st_size;
}

static void test_write_refuses_what_cannot_be_read(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/bad.txt", folder);
    struct tile_row gap[] = {row("b", 128, 0, 1, 8, "-"), row("b", 128, 0, 10, 16, "-")};
    struct tile_table table = sample(gap, 2);
    assert_int_equal(tiles_write(path, &table, message), -1);
    assert_non_null(strstr(message, "leaves a gap"));
    struct tile_row text[] = {row("b", 128, 0, 1, 8, "no equals sign")};
    table = sample(text, 1);
    assert_int_equal(tiles_write(path, &table, message), -1);
    struct tile_row number[] = {row("b", 128, 0, 1, 8, "-")};
    number[0].us = 0.0 / (double)(number[0].tie);
    table = sample(number, 1);
    assert_int_equal(tiles_write(path, &table, message), -1);
    number[0].us = 1;
    strcpy(table.regime, "cold\nx");
    assert_int_equal(tiles_write(path, &table, message), -1);
    assert_int_equal(file_size(path), -1);
}

static void test_write_to_impossible_places(void **state) {
    (void)state;
    struct tile_row rows[] = {row("b", 128, 0, 1, 8, "-")};
    struct tile_table table = sample(rows, 1), back;
    char path[128];
    snprintf(path, sizeof path, "%s/missing/tiles.txt", folder);
    assert_int_equal(tiles_write(path, &table, message), -1);
    assert_non_null(strstr(message, "No such file"));
    assert_int_equal(tiles_write(folder, &table, message), -1);
    assert_non_null(strstr(message, "not a regular file"));
    assert_int_equal(tiles_write("/dev/full", &table, message), -1);
    assert_int_equal(tiles_read(folder, &back, message), -1);
    assert_non_null(strstr(message, folder));
    assert_int_equal(tiles_read(path, &back, message), -1);
}

/* A limit on the file's size stands for a full disk: write fails halfway. */
static int write_on_full_disk(const char *path, struct tile_table *table) {
    pid_t child = fork();
    if (!child) {
        struct rlimit limit = {100, 100};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        int status = tiles_write(path, table, message);
        _exit(status == -1 && strstr(message, "cannot write") ? 7 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_full_disk_keeps_the_old_file(void **state) {
    (void)state;
    struct tile_row rows[] = {row("b", 128, 0, 1, 8, "a=1"), row("b", 128, 0, 9, 16, "a=2")};
    struct tile_table table = sample(rows, 2), back;
    char path[128], command[192];
    snprintf(path, sizeof path, "%s/full.txt", folder);
    assert_int_equal(tiles_write(path, &table, message), 0);
    long size = file_size(path);
    table.count = 1;
    assert_int_equal(write_on_full_disk(path, &table), 7);
    assert_int_equal(file_size(path), size);
    assert_int_equal(tiles_read(path, &back, message), 0);
    assert_int_equal(back.count, 2);
    tiles_free(&back);
    snprintf(command, sizeof command, "! ls %s | grep -q 'full.txt.*tmp'", folder);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_every_field),
        cmocka_unit_test(test_odd_but_well_formed),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_hostile_bytes),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_round_trip_sorts),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_match_names_every_difference),
        cmocka_unit_test(test_write_refuses_what_cannot_be_read),
        cmocka_unit_test(test_write_to_impossible_places),
        cmocka_unit_test(test_full_disk_keeps_the_old_file),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
