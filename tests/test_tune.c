/* `tilebook tune` and `tilebook table` as they are called, on the CPU with a tiny shape. */
#include "tests/stored.h"

#include <signal.h>
#include <jansson.h>
#include <sqlite3.h>

#include "kernels/tiles.h"
#include "kernels/kernel.h"
#include "tuner/lint.h"
#include "tuner/tune.h"

#define TUNE "tune --coarse --shapes 128x128 --device cpu --m 1,4 --trials 2 --out @/tiles.txt"

static void test_tunes_lints_and_resumes(void **state) {
    (void)state;
    expect(0, TUNE, "no winner is chosen in service: the CPU has no graphs|5 problems, 10 trials, 10 of them new");
    assert_non_null(strstr(output, "[5/5] fp16_gemm m=4"));
    struct tile_table table;
    char message[TILES_MESSAGE];
    if (tiles_read(in_folder("tiles.txt"), &table, message)) fail_msg("%s", message);
    assert_non_null(tiles_find(&table, "awq_dequant", 128, 128, 128, 1));
    assert_non_null(tiles_find(&table, "marlin_gemm", 128, 128, 128, 3));
    const struct tile_row *row = tiles_find(&table, "fp16_gemm", 128, 128, 0, 4);
    assert_non_null(row);
    assert_true(row->us > 0 && row->us <= row->default_us && row->m_high == 4);
    tiles_free(&table);
    expect(0, "table lint @/tiles.txt", "0 findings");
    expect(0, "table lint --device cpu @/tiles.txt", "0 findings");
    long finals = stored("SELECT max(id) FROM finals");
    expect(0, TUNE, "10 trials, 0 of them new");
    assert_int_equal(stored("SELECT max(id) FROM finals"), finals);
    /* At one m there is no winner before it that would change the path. */
    expect(0, "tune --coarse --shapes 128x128 --device cpu --m 1 --trials 3 --out @/tiles.txt",
           "9 trials, 3 of them new");
    expect(0, TUNE " --fresh", "10 trials, 10 of them new");
    expect_shell(0, "sed 's/kernels [0-9a-f]*/kernels 01234567/' @/tiles.txt >@/old.txt", "");
    expect(1, "table lint @/old.txt",
           "the table is for other hardware or sources: kernels 01234567, here |1 finding\n");
    expect_shell(0, "sed 's/^device  *[^,]*/device Another CPU/' @/tiles.txt >@/other.txt", "");
    expect(1, "table lint @/other.txt", "device 'Another CPU', here|run `tilebook tune`|1 finding\n");
}

/* What is left goes to the problems that are left, by the logarithms of their spaces; below a second each less is kept
 * for borders and held-out m. */
static void test_shares(void **state) {
    (void)state;
    struct tune_item items[] = {{.space = 15}, {.space = 4095}, {.space = 1023}, {.space = 63}};
    struct tune tune = {.items = items, .count = 4, .budget_s = 128};
    assert_true(tune_share(&tune) == 16);
    tune.spent_s = 16;
    tune.current = 1;
    assert_true(tune_share(&tune) == 48);
    tune.spent_s = 32; /* less than its share: the others have more */
    tune.current = 2;
    assert_true(tune_share(&tune) == 60);
    tune.spent_s = 130;
    tune.current = 3;
    assert_true(tune_share(&tune) == 0);
    tune = (struct tune){.items = items, .count = 4, .budget_s = 128, .refine = true};
    assert_true(tune_share(&tune) == 12);
    tune.budget_s = 2;
    assert_true(tune_share(&tune) == 2 * (1 - 0.25 / 2) / 8);
    items[0].space = 0; /* nothing is legal */
    assert_true(tune_share(&tune) == 0);
}

static void execute(const char *sql) {
    sqlite3 *database;
    assert_int_equal(sqlite3_open(in_folder("trials.sqlite"), &database), SQLITE_OK);
    assert_int_equal(sqlite3_exec(database, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(database);
}

static const char *regime(void) {
    static char text[sizeof((struct tile_table *)0)->regime];
    struct tile_table table;
    char message[TILES_MESSAGE];
    if (tiles_read(in_folder("tiles.txt"), &table, message)) fail_msg("%s", message);
    snprintf(text, sizeof text, "%s", table.regime);
    tiles_free(&table);
    return text;
}

/* Trials that a throttled card made are known from the store, whichever run measured them. */
static void test_throttled_cards_are_named(void **state) {
    (void)state;
    expect(0, TUNE, "10 of them new");
    assert_null(strstr(output, "throttled"));
    execute("UPDATE trials SET throttle = 5");
    expect(0, TUNE, " 0 of them new");
    assert_null(strstr(output, "throttled"));
    assert_string_equal(regime(), "cold, calls, monotonic");
    execute("UPDATE trials SET throttle = 0x8c WHERE op = 'awq_dequant'");
    expect(0, TUNE, "cpu was, in stored trials, throttled (hardware slowdown, power brake)");
    assert_non_null(strstr(output, "\n2 of 10 trials were measured while the card was throttled (hardware slowdown, "
                                   "power brake)"));
    assert_string_equal(regime(), "cold, calls, monotonic, throttled");
    expect(1, "table lint @/tiles.txt", "measured on a throttled card; tune again");
    /* The rows of other shapes stay, and so does what is said of them. */
    expect(0, "tune --coarse --shapes 128x192 --device cpu --m 1 --op fp16_gemm --trials 1 --out @/tiles.txt",
           " rows in");
    assert_string_equal(regime(), "cold, calls, monotonic, throttled");
    remove(in_folder("tiles.txt"));
    expect(0, TUNE " --fresh", "10 of them new");
    assert_string_equal(regime(), "cold, calls, monotonic");
    expect(0, "table lint @/tiles.txt", "0 findings");
}

/* The configurations of trials.csv, line by line. */
static const char *configurations(void) {
    expect_shell(0, "tail -n +2 @/trials.csv | cut -d, -f7", "");
    return output;
}

#define OWN_1 "tile_m=1 tile_n=16 tile_k=4096 unroll=1 threads=1"
#define OWN_4 "tile_m=4 tile_n=64 tile_k=1024 unroll=2 threads=1"

/* A table of another machine: no time of it counts, but a search begins with its row and those beside it. */
static void test_old_tables_are_tried_first(void **state) {
    (void)state;
    static const char tune[] =
        "tune --coarse --shapes 128x128 --device cpu --op fp16_gemm --m 1,4 --trials 3 --out @/tiles.txt ";
    FILE *file = fopen(in_folder("old.txt"), "w");
    fputs("# tilebook table 1\ndevice Another CPU, avx9, 3 cores\nsoftware cc, kernels 01234567\nregime cold, calls\n"
          "fp16_gemm 128 128 0 1-2 fp16_gemm/cpu " OWN_1 " 0.01 9 0 9\n"
          "fp16_gemm 128 128 0 3-8 fp16_gemm/cpu " OWN_4 " 0.01 9 0 9\n"
          "fp16_gemm 128 128 0 9-16 fp16_gemm/gone tile_m=4 0.01 9 0 9\n"
          "fp16_gemm 256 128 0 1-16 fp16_gemm/cpu " OWN_4 " 0.01 9 0 9\n",
          file);
    fclose(file);
    expect_shell(0, "cp @/old.txt @/tiles.txt", "");
    expect(0, tune, "all of them are replaced|tiles.txt: 2 of 4 rows are tried first|6 trials, 6 of them new");
    const char *first = strchr(configurations(), '\n');
    assert_int_equal(strncmp(first, "\n" OWN_1 "\n" OWN_4 "\n", strlen(OWN_1 OWN_4) + 3), 0);
    assert_non_null(strstr(first + 1, "\n" OWN_4 "\n" OWN_1 "\n"));
    /* The old table is gone and the path is the same: it is stored. */
    expect_shell(0, "cp @/trials.csv @/first.csv", "");
    expect(0, tune, "6 trials, 0 of them new");
    expect_shell(0, "cmp @/trials.csv @/first.csv", "");
    /* The same from a file; its own row also beyond the limits. */
    expect_shell(0, "rm @/tiles.txt @/trials.sqlite", "");
    expect(0,
           "tune --coarse --shapes 128x128 --device cpu --op fp16_gemm --m 1 --trials 1 --out @/tiles.txt "
           "--start @/old.txt",
           "old.txt: 2 of 4 rows are tried first|2 trials, 2 of them new");
    assert_non_null(strstr(configurations(), "\n" OWN_1 "\n"));
    expect(1, "tune --shapes 128x128 --device cpu --out @/tiles.txt --start @/none.txt", "--start: |none.txt");
}

static void test_budget_and_trials_file(void **state) {
    (void)state;
    static const char tune[] =
        "tune --coarse --shapes 128x128 --device cpu --m 1 --budget 1s --op fp16_gemm --out @/tiles.txt";
    expect(0, tune, "1 problem,");
    /* No table of these problems, no end of the search. */
    expect_shell(0, "mv @/tiles.txt @/kept.txt && grep -v ^fp16_gemm @/kept.txt >@/tiles.txt", "");
    expect(0, tune, "1 problem,");
    long trials = stored_trials(),
         ends = stored("SELECT (SELECT total(seconds) FROM trials) + (SELECT total(seconds) FROM finals) >= 0.97");
    expect(0, tune, ends ? "tiles.txt is complete, nothing was measured|--budget is 1.0 s" : " 0 of them new");
    assert_int_equal(stored_trials(), trials);
    expect(0, "tune --coarse --shapes 128x128 --device cpu --m 1 --budget 2s --op fp16_gemm --out @/tiles.txt",
           "1 problem,");
    FILE *file = fopen(in_folder("trials.csv"), "r");
    assert_non_null(file);
    char line[512];
    assert_non_null(fgets(line, sizeof line, file));
    assert_string_equal(line, "op,k,n,group,m,kernel,configuration,order,elapsed_s,status,us,p20_us,p80_us,gbs,tflops,"
                              "is_default\n");
    assert_non_null(fgets(line, sizeof line, file));
    assert_int_equal(strncmp(line, "fp16_gemm,128,128,0,1,fp16_gemm/cpu,", 36), 0);
    assert_string_equal(line + strlen(line) - 3, ",1\n");
    int rows = 1;
    while (fgets(line, sizeof line, file)) rows++;
    fclose(file);
    assert_int_equal(rows, stored_trials());
}

/* What is beaten ends early; all of a space; a quick search. What is stored serves the next strategy. */
static void test_strategies_and_efforts(void **state) {
    (void)state;
#define ONE "tune --coarse --shapes 128x128 --device cpu --m 1 --op awq_dequant --out @/tiles.txt"
    expect(0, ONE " --effort quick", "1 problem, 8 trials, 8 of them new");
    expect(0, ONE " --strategy racing --trials 24", "24 trials, 16 of them new");
    assert_true(stored("SELECT count(*) FROM trials WHERE stop = 'beaten'") > 0);
    assert_int_equal(stored("SELECT count(*) FROM trials WHERE stop = 'beaten' AND \"order\" <= 8"), 0);
    expect(0, ONE " --strategy random --trials 26", "26 trials, 2 of them new");
    expect(0, ONE " --strategy exhaustive --trials 26", "26 trials, 0 of them new");
#undef ONE
    long before = stored_trials();
    expect(0,
           "tune --shapes 128x64 --device cpu --m 1 --op awq_dequant --strategy exhaustive --effort quick "
           "--out @/tiles.txt",
           "1 problem, ");
    assert_true(stored_trials() > before + 16); /* what other strategies stop at */
}

static void test_rows_of_other_shapes_stay(void **state) {
    (void)state;
    expect(0, "tune --coarse --shapes 128x128,256x128 --device cpu --m 1 --trials 1 --op fp16_gemm --out @/tiles.txt",
           "2 rows");
    expect(0, "tune --coarse --shapes 128x128 --device cpu --m 1,8 --trials 1 --op fp16_gemm --out @/tiles.txt",
           "rows in");
    struct tile_table table;
    char message[TILES_MESSAGE];
    assert_int_equal(tiles_read(in_folder("tiles.txt"), &table, message), 0);
    assert_int_equal(tiles_find(&table, "fp16_gemm", 256, 128, 0, 1)->m_high, 1);
    assert_int_equal(tiles_find(&table, "fp16_gemm", 128, 128, 0, 8)->m_high, 8);
    tiles_free(&table);
}

/* Starts a tuning that is too long to reach its end, sends `signal` once a few trials are stored, and returns how the
 * process ended. */
static int tune_and_signal(int signal, const char *m) {
    pid_t child = fork();
    if (!child) {
        char out[128];
        const char *program = getenv("TILEBOOK");
        snprintf(out, sizeof out, "%s", in_folder("tiles.txt"));
        if (!freopen(in_folder("log"), "w", stderr)) _exit(99);
        execl(program ? program : "build/tilebook", "tilebook", "tune", "--shapes", "128x128", "--device", "cpu", "--m",
              m, "--coarse", "--op", "fp16_gemm", "--trials", "1000", "--out", out, (char *)NULL);
        _exit(99);
    }
    int status = 0;
    while (stored_trials() < 2 && !waitpid(child, &status, WNOHANG)) usleep(20000);
    kill(child, signal);
    waitpid(child, &status, 0);
    return status;
}

static void test_kill_then_resume(void **state) {
    (void)state;
    int status = tune_and_signal(SIGKILL, "1,4");
    assert_true(WIFSIGNALED(status));
    long stored = stored_trials(), known = stored < 12 ? stored : 12; /* the others are beyond the second one's limit */
    char expected[96];
    assert_true(stored >= 2);
    assert_int_not_equal(access(in_folder("tiles.txt"), F_OK), 0);
    snprintf(expected, sizeof expected, "24 trials, %ld of them new", 24 - known);
    expect(0, "tune --coarse --shapes 128x128 --device cpu --m 1,4 --op fp16_gemm --trials 12 --out @/tiles.txt",
           expected);
    expect(0, "table lint @/tiles.txt", "0 findings");
}

static void test_interrupt_says_how_to_go_on(void **state) {
    (void)state;
    int status = tune_and_signal(SIGINT, "1,4");
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    assert_int_not_equal(access(in_folder("tiles.txt"), F_OK), 0);
    FILE *file = fopen(in_folder("log"), "r");
    output[fread(output, 1, sizeof output - 1, file)] = 0;
    fclose(file);
    assert_non_null(strstr(output, "the same command resumes"));
    /* In the last problem everything has a row: the table is written. */
    remove(in_folder("trials.sqlite"));
    status = tune_and_signal(SIGINT, "1");
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    expect(0, "table lint @/tiles.txt", "0 findings");
}

/* The second shape is o. */
static void test_tunes_a_share(void **state) {
    (void)state;
    expect(0, "tune --model qwen2.5-0.5b --tp 2 --part 2/5 --op fp16_gemm --device cpu --m 1 --trials 1 --out @/t",
           "[1/1] fp16_gemm m=1 n=896 k=448 epilogue=residual|1 problem");
    expect(2, "tune --model qwen2.5-0.5b --tp 3", "tp3: 14 heads, 2 key-value heads");
    expect(2, "tune --shapes 128x128 --tp 2", "--tp is for --model");
}

static void test_refuses(void **state) {
    (void)state;
    expect(2, "tune", "Give --model qwen2.5-14b or --shapes KxN");
    expect(2, "tune --model qwen9", "qwen9");
    expect(2, "tune --shapes 128x128 --model qwen2.5-14b", "not together");
    expect(2, "tune --shapes 128x128 --budget soon", "--budget soon: not a time");
    expect(2, "tune --shapes 128x128 --budget 0s", "--budget 0s: not a time");
    expect(2, "tune --shapes 128x128 --op marlin_gemm,gemm", "unknown op 'gemm'");
    expect(2, "tune --shapes 128x128 --m 0", "'0'");
    expect(2, "tune --shapes 128x128 --trials none", "--trials none: not a whole number");
    expect(2, "tune --shapes 100x128 --device cpu --out @/t", "found K=100");
    expect(2, "tune --shapes 128x128 --device cpu --group 5 --out @/t", "--group 5: accepted are 32, 64, 128 and all");
    expect(2, "tune --shapes 128x128 --device tpu --out @/t", "unknown device 'tpu'");
    expect(1, "tune --shapes 128x128 --device cpu --out LICENSE/tiles.txt", "Not a directory");
    expect(1, "tune --shapes 128x128 --device cpu --out /proc/tiles.txt", "name another table with --out");
    expect(1, "tune --shapes 128x128 --device cpu --out LICENSE --store @/s", "in the way of the new table");
    expect(1, "tune --shapes 128x128 --device cpu --out @/t --store LICENSE", "no SQLite database");
    expect(2, "tune --shapes 128x128 --strategy genetic", "accepted: guided, racing, random, exhaustive");
    expect(2, "tune --shapes 128x128 --effort none", "not one of quick, normal, thorough");
    expect(2, "tune --shapes 128x128 --limit soon", "--limit soon: not a time");
    expect(2, "worker cpu </dev/null", "not by hand");
    expect(0, "tune --help", "--budget");
    expect(2, "table", "give an action");
    expect(2, "table prove @/t", "unknown action 'prove'");
    expect(2, "table export --format xml @/t", "not one of table, json, csv, c, pack, t4");
    expect(2, "table show --format csv @/t", "belong to export");
    expect(1, "table show @/missing", "No such file");
    expect(1, "table lint LICENSE", "LICENSE:1:");
}

/* --- export and lint of a made-up table --- */

enum { MANY = 60 };

static unsigned seed = 1;

static long roll(long count) {
    seed = seed * 1664525u + 1013904223u;
    return (long)(seed >> 8) % count;
}

/* A table with several ranges for each key and odd text in its header. */
static void make_table(struct tile_table *table) {
    char message[TILES_MESSAGE];
    *table = (struct tile_table){.multiprocessors = 3};
    strcpy(table->device, "A \"quoted\" \\ device?\?/, 3 GHz");
    strcpy(table->architecture, "sm_90a");
    strcpy(table->software, "driver 1");
    strcpy(table->kernels, "01234567");
    strcpy(table->regime, "cold, stream");
    table->rows = calloc(MANY, sizeof *table->rows);
    long low = 1;
    for (int i = 0; i < MANY; i++) {
        struct tile_row *row = &table->rows[table->count++];
        if (i % 4 == 0) low = 1 + roll(2);
        *row = (struct tile_row){.k = 64 * (1 + i / 16),
                                 .n = 64 * (1 + i / 8 % 2),
                                 .group = i / 4 % 2 * 128,
                                 .m_low = low,
                                 .m_high = low + roll(50),
                                 .us = (double)(1 + roll(99999)) / 100,
                                 .gbs = 7.5,
                                 .tie = i,
                                 .default_us = 1000};
        strcpy(row->op, i < MANY / 2 ? "fp16_gemm" : "marlin_gemm");
        snprintf(row->kernel, sizeof row->kernel, "%s/mma", row->op);
        snprintf(row->configuration, sizeof row->configuration, i % 5 ? "tile_m=%d stages=4" : "-", i);
        low = row->m_high + 1;
    }
    assert_int_equal(tiles_write(in_folder("made.txt"), table, message), 0);
}

static void test_export_json(void **state) {
    (void)state;
    struct tile_table table;
    make_table(&table);
    expect(0, "table export --format json --out @/made.json @/made.txt", "");
    json_error_t error;
    json_t *root = json_load_file(in_folder("made.json"), 0, &error);
    if (!root) fail_msg("%s", error.text);
    assert_string_equal(json_string_value(json_object_get(root, "device")), table.device);
    json_t *rows = json_object_get(root, "rows");
    assert_int_equal(json_array_size(rows), MANY);
    for (size_t i = 0; i < MANY; i++) {
        json_t *row = json_array_get(rows, i), *configuration = json_object_get(row, "configuration");
        assert_int_equal(json_integer_value(json_object_get(row, "m_high")), table.rows[i].m_high);
        assert_true(json_real_value(json_object_get(row, "us")) == table.rows[i].us);
        assert_int_equal(json_object_size(configuration), strcmp(table.rows[i].configuration, "-") ? 2 : 0);
        if (json_object_size(configuration))
            assert_int_equal(json_integer_value(json_object_get(configuration, "stages")), 4);
    }
    json_decref(root);
    tiles_free(&table);
}

static void test_export_table_and_csv(void **state) {
    (void)state;
    struct tile_table table;
    char command[256];
    make_table(&table);
    tiles_free(&table);
    expect(0, "table export --out @/copy.txt @/made.txt", "");
    snprintf(command, sizeof command, "cmp %s/copy.txt %s/made.txt", folder, folder);
    assert_int_equal(system(command), 0);
    expect(0, "table show @/made.txt", "# op");
    expect(0, "table export --format csv @/made.txt",
           "op,k,n,group,m_low,m_high,kernel,configuration,us,gbs,tie,default_us\n");
    int lines = 0;
    for (const char *c = output; *c; c++) lines += *c == '\n';
    assert_int_equal(lines, MANY + 1);
    expect(1, "table export --format c --out /dev/full @/made.txt", "cannot write");
    expect(1, "table export --format c --out @/no/where @/made.txt", "cannot write");
}

enum { QUERIES = 10000 };

/* Compiles the header alone and strictly, and asks it the same questions as tiles_find. */
static void test_c_header_looks_up_the_same_rows(void **state) {
    (void)state;
    static const char program[] =
        "#include \"table.h\"\n#include <stdio.h>\n"
        "int main(void) {\n    char op[32];\n    long k, n, g, m;\n"
        "    while (scanf(\"%31s %ld %ld %ld %ld\", op, &k, &n, &g, &m) == 5) {\n"
        "        const struct tilebook_row *row = tilebook_find(op, k, n, g, m);\n"
        "        printf(\"%d %s\\n\", row ? row->tie : -1, row ? row->configuration : \"none\");\n"
        "    }\n    return 0;\n}\n";
    struct tile_table table;
    char command[512];
    make_table(&table);
    expect(0, "table export --format c --out @/table.h @/made.txt", "");
    FILE *file = fopen(in_folder("main.c"), "w");
    fputs(program, file);
    fclose(file);
    snprintf(command, sizeof command,
             "cd %s && cc -std=c11 -Wall -Wextra -pedantic -Werror -fsyntax-only -x c table.h && "
             "cc -std=c11 -Wall -Wextra -pedantic -Werror main.c -o main",
             folder);
    assert_int_equal(system(command), 0);
    static struct tile_row queries[QUERIES];
    file = fopen(in_folder("queries"), "w");
    for (int i = 0; i < QUERIES; i++) {
        struct tile_row *q = &queries[i];
        strcpy(q->op, roll(20) ? roll(2) ? "fp16_gemm" : "marlin_gemm" : "other");
        q->k = 64 * roll(6), q->n = 64 * roll(4), q->group = 128 * roll(2), q->m_low = roll(220);
        fprintf(file, "%s %ld %ld %ld %ld\n", q->op, q->k, q->n, q->group, q->m_low);
    }
    fclose(file);
    snprintf(command, sizeof command, "cd %s && ./main < queries", folder);
    FILE *answers = popen(command, "r");
    int found = 0;
    for (int i = 0; i < QUERIES; i++) {
        char line[256], expected[256];
        const struct tile_row *q = &queries[i], *row = tiles_find(&table, q->op, q->k, q->n, q->group, q->m_low);
        snprintf(expected, sizeof expected, "%d %s\n", row ? row->tie : -1, row ? row->configuration : "none");
        assert_non_null(fgets(line, sizeof line, answers));
        assert_string_equal(line, expected);
        found += row != NULL;
    }
    assert_int_equal(pclose(answers), 0);
    assert_true(found > 1000 && found < 9500);
    tiles_free(&table);
}

static char findings[4096];

static void collect(void *context, const char *line) {
    (void)context;
    assert_null(strchr(line, '\n'));
    strncat(findings, line, sizeof findings - strlen(findings) - 2);
    strcat(findings, "\n");
}

static struct tile_row cpu_row(long k, long low, long high) {
    struct tile_row row = {.op = "fp16_gemm",
                           .k = k,
                           .n = 128,
                           .m_low = low,
                           .m_high = high,
                           .kernel = "fp16_gemm/cpu",
                           .us = 1,
                           .gbs = 1,
                           .default_us = 2};
    struct config config;
    struct problem problem = {OP_FP16_GEMM, (int)high, 128, 128, 0, false, EPILOGUE_NONE};
    struct device device = {
        .backend = BACKEND_CPU, .multiprocessors = 1, .cache_bytes = 1 << 20, .memory_gbs = 1, .matrix_tflops = 1};
    const struct kernel *kernel = kernel_find("fp16_gemm/cpu");
    assert_int_equal(config_default(&device, kernel, &problem, &config, NULL), 0);
    config_text(kernel, &config, row.configuration);
    return row;
}

static const char *lint_regime = "";

static void expect_finding(struct tile_row *rows, size_t count, const char *text) {
    struct tile_table table = {
        .device = "d", .architecture = "avx2", .multiprocessors = 1, .rows = rows, .count = count};
    strcpy(table.regime, lint_regime);
    findings[0] = 0;
    int number = lint_table(&table, NULL, collect, NULL);
    if (!text && number) fail_msg("%d findings: %s", number, findings);
    if (text && (number < 1 || !strstr(findings, text))) fail_msg("'%s' is not among: %s", text, findings);
}

static void test_lint_finds(void **state) {
    (void)state;
    struct tile_row good[] = {cpu_row(128, 1, 8), cpu_row(128, 9, 16), cpu_row(256, 1, 4)}, rows[3];
    memcpy(rows, good, sizeof rows);
    expect_finding(rows, 3, NULL);
    expect_finding(rows, 0, "no rows");
    expect_finding(rows + 1, 1, "fp16_gemm 128 128 0: no row for m 1-8: the default runs there");
    strcpy(rows[0].kernel, "fp16_gemm/none");
    expect_finding(rows, 3, "no kernel 'fp16_gemm/none'");
    strcpy(rows[0].kernel, "marlin_gemm/cpu");
    expect_finding(rows, 3, "no kernel 'marlin_gemm/cpu' for fp16_gemm");
    memcpy(rows, good, sizeof rows);
    strcpy(rows[0].configuration, "tile_x=1");
    expect_finding(rows, 3, "no parameter 'tile_x'");
    memcpy(rows, good, sizeof rows);
    rows[0].us = 3;
    expect_finding(rows, 3, "slower than the default");
    lint_regime = "cold, pdl, cupti, in service"; /* where it need not be the fastest alone */
    expect_finding(rows, 3, NULL);
    rows[1].m_high = 65;
    rows[1].us = 3;
    expect_finding(rows, 3, "m 9-65: 3.00 us is slower than the default");
    lint_regime = "";
    memcpy(rows, good, sizeof rows);
    strcpy(rows[2].op, "gemm");
    expect_finding(rows, 3, "unknown op 'gemm'");
    memcpy(rows, good, sizeof rows);
    rows[2].k = 100;
    expect_finding(rows + 2, 1, "found K=100");
    memcpy(rows, good, sizeof rows);
    rows[0] = good[1], rows[1] = good[0];
    expect_finding(rows, 3, "gives another row");
    memcpy(rows, good, sizeof rows);
    rows[1].m_low = 6;
    expect_finding(rows, 3, "fp16_gemm 128 128 0 m 1-8: a lookup of m 6-8 gives another row");
    rows[1] = rows[0];
    expect_finding(rows, 3, "no lookup ever gives this row; remove it");
    memcpy(rows, good, sizeof rows);
    rows[1].m_low = 11;
    expect_finding(rows, 3, "fp16_gemm 128 128 0 m 1-8: no row for m 9-10: this one runs there");
    memcpy(rows, good, sizeof rows);
    struct device other = {
        .backend = BACKEND_CPU, .id = "cpu", .name = "e", .architecture = "avx2", .multiprocessors = 1};
    struct tile_table table = {.device = "d", .architecture = "avx2", .multiprocessors = 1, .rows = good, .count = 1};
    findings[0] = 0;
    assert_int_not_equal(lint_table(&table, &other, collect, NULL), 0);
    assert_non_null(strstr(findings, "device 'd', here 'e'"));
    strcpy(good[0].kernel, "fp16_gemm/mma");
    assert_int_not_equal(lint_table(&table, &other, collect, NULL), 0);
    assert_non_null(strstr(findings, "fp16_gemm/mma does not run on cpu"));
}

static int legal_somewhere(const struct device *device, const struct problem *problem, const struct config *config,
                           struct error *why) {
    (void)device, (void)config;
    return problem->m == 5 || problem->m > 10 ? error_set(why, "neither 5 nor above 10") : 0;
}

static double estimate_nothing(const struct device *device, const struct problem *problem,
                               const struct config *config) {
    (void)device, (void)problem, (void)config;
    return 1;
}

static int never_run(const struct plan *plan, const struct operands *operands, struct error *error) {
    (void)plan, (void)operands;
    return error_set(error, "not for running");
}

/* Legal at both ends of its range and not between, and not above, where the last row is taken. */
static void test_lint_tries_every_m(void **state) {
    (void)state;
    static const struct kernel picky = {.op = OP_FP16_GEMM,
                                        .backend = BACKEND_CPU,
                                        .name = "picky",
                                        .summary = "for tests",
                                        .legal = legal_somewhere,
                                        .estimate = estimate_nothing,
                                        .run = never_run};
    struct tile_row row = cpu_row(128, 1, 10);
    struct tile_table table = {
        .device = "d", .architecture = "avx2", .multiprocessors = 1, .kernels = "01", .rows = &row, .count = 1};
    struct device device = {.backend = BACKEND_CPU,
                            .id = "cpu",
                            .name = "d",
                            .architecture = "avx2",
                            .kernels = "01",
                            .multiprocessors = 1};
    struct error error;
    assert_int_equal(kernel_register(&picky, &error), 0);
    strcpy(row.kernel, "fp16_gemm/picky");
    strcpy(row.configuration, "-");
    findings[0] = 0;
    assert_int_equal(lint_table(&table, NULL, collect, NULL), 0);
    assert_int_equal(lint_table(&table, &device, collect, NULL), 2);
    assert_non_null(strstr(findings, "fp16_gemm 128 128 0 m 1-10: not legal at m 5 on this device: neither 5 nor"));
    assert_non_null(strstr(findings, "not legal at m 11-8192 on this device"));
    strcpy(device.kernels, "02");
    assert_int_equal(lint_table(&table, &device, collect, NULL), 3);
    assert_non_null(strstr(findings, "kernels 01, here 02"));
    /* What cannot run at all is said once. */
    strcpy(row.configuration, "a=1");
    strcpy(device.kernels, "01");
    assert_int_equal(lint_table(&table, &device, collect, NULL), 1);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(test_tunes_lints_and_resumes),
        TEST(test_shares),
        TEST(test_throttled_cards_are_named),
        TEST(test_old_tables_are_tried_first),
        TEST(test_budget_and_trials_file),
        TEST(test_strategies_and_efforts),
        TEST(test_rows_of_other_shapes_stay),
        TEST(test_kill_then_resume),
        TEST(test_interrupt_says_how_to_go_on),
        TEST(test_tunes_a_share),
        TEST(test_refuses),
        TEST(test_export_json),
        TEST(test_export_table_and_csv),
        TEST(test_c_header_looks_up_the_same_rows),
        TEST(test_lint_finds),
        TEST(test_lint_tries_every_m),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
