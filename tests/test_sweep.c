#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>

#include "bench/cbench.h"
#include "bench/markdown.h"
#include "bench/rows.h"
#include "bench/sweep.h"

/* Small enough to be quick under the sanitizers; the figures themselves mean nothing here. */
#define QUICK "sweep --device cpu --cache warm --benchmark_min_time=0.001 "

static char directory[] = "/tmp/tilebook-sweep-XXXXXX";

/* --- running the program --- */

struct output {
    int code;
    char *out, *err;
};

static char *read_text(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, file) < (1 << 20) - 1);
    fclose(file);
    return text;
}

static struct output run(const char *arguments) {
    char command[2048];
    const char *program = getenv("TILEBOOK");
    if (!program) fail_msg("TILEBOOK must name the program");
    snprintf(command, sizeof command, "%s %s >%s/out 2>%s/err </dev/null", program, arguments, directory, directory);
    int status = system(command);
    assert_true(WIFEXITED(status));
    return (struct output){WEXITSTATUS(status), read_text("out"), read_text("err")};
}

static void release(struct output *output) {
    free(output->out);
    free(output->err);
}

static void check_fails(const char *arguments, int code, const char *message) {
    struct output output = run(arguments);
    if (output.code != code || !strstr(output.err, message))
        fail_msg("%s: exit %d, stderr: %s(expected exit %d and '%s')", arguments, output.code, output.err, code,
                 message);
    if (output.out[0]) fail_msg("%s: stdout: %s", arguments, output.out);
    release(&output);
}

static int count_lines(const char *text) {
    int lines = 0;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}

/* --- tests --- */

static json_t *parse(const char *text) {
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);
    if (!root) fail_msg("JSON, line %d: %s", error.line, error.text);
    return root;
}

/* Zeros are left out of repeated runs. */
static void check_entry(const json_t *entry, bool zeros) {
    static const char *const counters[] = {
        "k",          "n",       "g",       "z",         "m",        "us",         "p20_us",      "p80_us",
        "min_us",     "low_us",  "high_us", "span_us",   "batch_us", "event_us", "samples",    "GB/s",        "TFLOP/s",
        "%bandwidth", "%matrix", "error",   "real_time", "cpu_time", "iterations", "repetitions", "repetition_index",
        "threads"};
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        if (zeros && !json_is_number(json_object_get(entry, counters[i]))) fail_msg("%s is not there", counters[i]);
    assert_true(json_number_value(json_object_get(entry, "us")) > 0);
    assert_true(json_number_value(json_object_get(entry, "%bandwidth")) > 0);
    assert_true(json_number_value(json_object_get(entry, "%matrix")) > 0);
    assert_true(json_number_value(json_object_get(entry, "error")) <= 1e-3);
    assert_string_equal(json_string_value(json_object_get(entry, "time_unit")), "us");
    assert_string_equal(json_string_value(json_object_get(entry, "run_type")), "iteration");
    const char *label = json_string_value(json_object_get(entry, "label"));
    assert_non_null(strstr(label, "stop="));
    assert_non_null(strstr(label, "clock=monotonic"));
}

static void json_of_all_ops(void **state) {
    (void)state;
    static const char *const keys[] = {
        "device", "uuid", "architecture", "multiprocessors", "software", "cupti",         "kernels", "launch",
        "cache",  "data", "seed",         "read_gbs",        "copy_gbs", "matrix_tflops", "command", "state"};
    static const char *const names[] = {
        "awq_dequant/cpu/256x128/k:256/n:128/g:64/z:1/m:1/", "marlin_gemm/cpu/256x128/k:256/n:128/g:64/z:1/m:1/",
        "marlin_gemm/cpu/256x128/k:256/n:128/g:64/z:1/m:3/", "fp16_gemm/cpu/256x128/k:256/n:128/g:0/z:0/m:1/",
        "fp16_gemm/cpu/256x128/k:256/n:128/g:0/z:0/m:3/"};
    struct output output = run(QUICK "--shapes 256x128 --m 3,1 --group 64 --benchmark_format=json");
    assert_int_equal(output.code, 0);
    json_t *root = parse(output.out);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_is_string(json_object_get(json_object_get(root, "context"), keys[i]))) fail_msg("no key %s", keys[i]);
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "context"), "cache")), "warm");
    const json_t *list = json_object_get(root, "benchmarks");
    assert_int_equal(json_array_size(list), 5);
    for (size_t i = 0; i < 5; i++) {
        const char *name = json_string_value(json_object_get(json_array_get(list, i), "name"));
        assert_memory_equal(name, names[i], strlen(names[i]));
        assert_non_null(strchr(name + strlen(names[i]), '='));
        check_entry(json_array_get(list, i), true);
    }
    json_decref(root);
    release(&output);
}

static void cold_symmetric_repeated(void **state) {
    (void)state;
    struct output output =
        run("sweep --device cpu --op marlin_gemm --shapes 256x128 --m 2 --group all --zeros 0 --seed 7 "
            "--benchmark_min_time=0.001 --benchmark_repetitions=2 --benchmark_format=json");
    assert_int_equal(output.code, 0);
    json_t *root = parse(output.out);
    const json_t *context = json_object_get(root, "context"), *list = json_object_get(root, "benchmarks");
    assert_string_equal(json_string_value(json_object_get(context, "cache")), "cold");
    assert_string_equal(json_string_value(json_object_get(context, "seed")), "7");
    assert_true(json_array_size(list) > 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *entry = json_array_get(list, i);
        assert_non_null(strstr(json_string_value(json_object_get(entry, "name")), "/g:256/z:0/m:2/"));
        assert_int_equal(json_integer_value(json_object_get(entry, "repetition_index")), i);
        check_entry(entry, false);
    }
    json_decref(root);
    release(&output);
}

static void model_shapes_are_listed(void **state) {
    (void)state;
    struct output output = run("sweep --device cpu --shapes qwen2.5-14b --m 1,16 --benchmark_list_tests");
    assert_int_equal(output.code, 0);
    assert_int_equal(count_lines(output.out), 4 * 1 + 4 * 2 + 5 * 2);
    assert_non_null(strstr(output.out, "marlin_gemm/cpu/gate_up/k:5120/n:27648/g:128/z:1/m:16/"));
    assert_non_null(strstr(output.out, "fp16_gemm/cpu/lm_head/k:5120/n:152064/g:0/z:0/m:1/"));
    assert_null(strstr(output.out, "marlin_gemm/cpu/lm_head"));
    release(&output);
}

/* Zipped: each shape at the M of its own, the others at all. */
static void shapes_with_their_own_m(void **state) {
    (void)state;
    struct output output =
        run("sweep --device cpu --shapes qkv=256x128@4,256x64@1,256x64@8 --m 1,2 --benchmark_list_tests");
    assert_int_equal(output.code, 0);
    assert_int_equal(count_lines(output.out), 2 + 3 * 2);
    assert_non_null(strstr(output.out, "marlin_gemm/cpu/qkv/k:256/n:128/g:128/z:1/m:4/"));
    assert_non_null(strstr(output.out, "fp16_gemm/cpu/256x64/k:256/n:64/g:0/z:0/m:8/"));
    assert_null(strstr(output.out, "/m:2/"));
    release(&output);
    check_fails("tune --device cpu --shapes 256x64@4 --out /tmp/none", 2, "256x64 has an M of its own (@4)");
}

static void epilogues_are_listed(void **state) {
    (void)state;
    struct output output = run("sweep --device cpu --shapes qwen2.5-14b --m 1 --epilogue model --benchmark_list_tests");
    assert_int_equal(output.code, 0);
    assert_non_null(strstr(output.out, "marlin_gemm/cpu/qkv/k:5120/n:7168/g:128/z:1/m:1/e:bias/"));
    assert_non_null(strstr(output.out, "fp16_gemm/cpu/o/k:5120/n:5120/g:0/z:0/m:1/e:residual/"));
    assert_non_null(strstr(output.out, "/gate_up/k:5120/n:27648/g:128/z:1/m:1/e:silu_mul/"));
    assert_non_null(strstr(output.out, "awq_dequant/cpu/gate_up/k:5120/n:27648/g:128/z:1/m:1/tile_n"));
    assert_non_null(strstr(output.out, "fp16_gemm/cpu/lm_head/k:5120/n:152064/g:0/z:0/m:1/tile_m"));
    release(&output);
}

/* Of the kernels here none can. */
static void a_norm_takes_kernels_that_can(void **state) {
    (void)state;
    check_fails("sweep --device cpu --shapes 256x64 --m 1 --norm", 2,
                "no kernel of all on cpu takes these shapes with a norm of x");
    check_fails("sweep --device cpu --chain 2 --norm", 2, "--norm");
}

static void epilogues_are_measured(void **state) {
    (void)state;
    char command[256];
    for (int e = EPILOGUE_BIAS; e < EPILOGUE_COUNT; e++) {
        const char *name = epilogue_name((enum epilogue)e);
        snprintf(command, sizeof command,
                 QUICK "--op fp16_gemm --shapes 128x64 --m 3 --epilogue %s --csv %s/epilogue.csv", name, directory);
        struct output output = run(command);
        assert_int_equal(output.code, 0);
        char *text = read_text("epilogue.csv"), expected[64];
        snprintf(expected, sizeof expected, "\nfp16_gemm,fp16_gemm/cpu,128x64,128,64,0,0,3,%s,tile_m", name);
        if (!strstr(text, expected) || !strstr(text, ",ok,")) fail_msg("'%s' lacks '%s'", text, expected);
        free(text);
        release(&output);
    }
    check_fails(QUICK "--epilogue relu", 2, "'relu'; there are none, bias, residual, silu_mul, model");
}

static void types_are_measured(void **state) {
    (void)state;
    char command[256];
    snprintf(command, sizeof command,
             QUICK "--op marlin_gemm,fp16_gemm --shapes 128x128 --m 3 --epilogue bias --type bf16 "
                   "--markdown %s/bf16.md",
             directory);
    struct output output = run(command);
    assert_int_equal(output.code, 0);
    char *text = read_text("bf16.md");
    assert_non_null(strstr(text, "| marlin_gemm/cpu | 128x128, group 128, zeros, bias, bf16 | 3 |"));
    assert_non_null(strstr(text, "| fp16_gemm/cpu | 128x128, bias, bf16 | 3 |"));
    assert_null(strstr(text, "failed"));
    free(text);
    release(&output);
    output = run("sweep --device cpu --shapes 128x128 --m 1 --type bf16 --benchmark_list_tests");
    assert_non_null(strstr(output.out, "fp16_gemm/cpu/128x128/k:128/n:128/g:0/z:0/m:1/t:bf16/tile_m"));
    assert_non_null(strstr(output.out, "awq_dequant/cpu/128x128/k:128/n:128/g:128/z:1/m:1/tile_n"));
    release(&output);
    check_fails(QUICK "--type fp8", 2, "--type fp8: accepted are bf16 and fp16");
    check_fails(QUICK "--type bf16 --csv /dev/null", 2, "do not say the type");
}

static void all_configurations(void **state) {
    (void)state;
    struct output output = run("sweep --device cpu --op awq_dequant --group 32 --shapes 256x128 --config all "
                               "--benchmark_list_tests");
    const struct kernel *kernel = kernel_find("awq_dequant/cpu");
    struct problem problem = {.op = OP_AWQ_DEQUANT, .m = 1, .n = 128, .k = 256, .group = 32, .zeros = true};
    struct device *device;
    struct error error;
    int legal = 0;
    assert_int_equal(device_open("cpu", &device, &error), 0);
    for (long i = 0; i < config_space(kernel); i++) {
        struct config config = config_at(kernel, i);
        legal += !config_legal(device, kernel, &problem, &config, NULL);
    }
    device_close(device);
    assert_int_equal(output.code, 0);
    assert_in_range(legal, 2, config_space(kernel) - 1);
    assert_int_equal(count_lines(output.out), legal);
    release(&output);
}

/* Many points, no time for any: each still has the samples that an interval needs. */
static void a_budget_ends_the_sampling(void **state) {
    (void)state;
    struct output output = run("sweep --device cpu --op fp16_gemm --shapes 128x64 --m 1:16:x2 --budget 0.001s "
                               "--benchmark_format=json");
    assert_int_equal(output.code, 0);
    json_t *root = parse(output.out);
    const json_t *list = json_object_get(root, "benchmarks");
    assert_int_equal(json_array_size(list), 5);
    for (size_t i = 0; i < 5; i++) {
        const json_t *entry = json_array_get(list, i);
        assert_non_null(strstr(json_string_value(json_object_get(entry, "label")), "stop="));
        assert_null(strstr(json_string_value(json_object_get(entry, "label")), "stop=samples"));
        assert_true(json_number_value(json_object_get(entry, "samples")) >= 6);
        assert_true(json_number_value(json_object_get(entry, "samples")) < 2000);
    }
    json_decref(root);
    release(&output);
}

static void paced_rows_say_so(void **state) {
    (void)state;
    char command[512];
    snprintf(command, sizeof command,
             QUICK "--op fp16_gemm --shapes 128x64 --m 1 --pace 0.25 --benchmark_format=json --report %s/paced.csv",
             directory);
    struct output output = run(command);
    assert_int_equal(output.code, 0);
    json_t *root = parse(output.out);
    const json_t *row = json_array_get(json_object_get(root, "benchmarks"), 0);
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "context"), "pace")), "0.25");
    assert_non_null(strstr(json_string_value(json_object_get(row, "label")), " regime=stream pace=0.25"));
    char *text = read_text("paced.csv");
    assert_non_null(strstr(text, ",warm call monotonic pace=0.25,"));
    free(text);
    json_decref(root);
    release(&output);
    check_fails(QUICK "--pace 0", 2, "--pace 0: not a number from 0.01 to 1");
}

static void csv_rows(void **state) {
    (void)state;
    char command[512];
    snprintf(command, sizeof command, QUICK "--op fp16_gemm --shapes 128x64 --m 1,2 --csv %s/rows.csv", directory);
    struct output output = run(command);
    char *text = read_text("rows.csv");
    assert_int_equal(output.code, 0);
    assert_int_equal(count_lines(text), 3);
    int commas = 0;
    char *end = strchr(text, '\n');
    for (char *c = text; c < end; c++) commas += *c == ',';
    for (char *c = end + 1; *c && *c != '\n'; c++) commas -= *c == ',';
    assert_int_equal(commas, 0);
    assert_non_null(strstr(text, "\nfp16_gemm,fp16_gemm/cpu,128x64,128,64,0,0,2,none,tile_m="));
    assert_non_null(strstr(text, ",ok,"));
    free(text);
    release(&output);
}

/* Two sweeps into one report: one header, both rows; nothing beside them on the CPU. */
static void report_is_appended_to(void **state) {
    (void)state;
    char command[512];
    snprintf(command, sizeof command, QUICK "--op fp16_gemm --shapes 128x64 --m 3 --report %s/report.csv", directory);
    for (int i = 0; i < 2; i++) {
        struct output output = run(command);
        assert_int_equal(output.code, 0);
        release(&output);
    }
    char *text = read_text("report.csv"), *second = strchr(text, '\n') + 1;
    static const char start[] = "fp16_gemm,128x64,128,64,0,0,3,none,warm call monotonic,fp16_gemm/cpu,tile_m=";
    assert_int_equal(count_lines(text), 3);
    assert_memory_equal(text, ROWS_HEADER "\n", sizeof ROWS_HEADER);
    for (int i = 0; i < 2; i++, second = strchr(second, '\n') + 1) {
        double us, p20, p80;
        assert_memory_equal(second, start, strlen(start));
        const char *figures = strchr(second + strlen(start), ',');
        assert_int_equal(sscanf(figures, ",%lf,%lf,%lf,,\n", &us, &p20, &p80), 3);
        assert_true(p20 > 0 && p20 <= us && us <= p80);
        assert_null(memchr(figures, ' ', (size_t)(strchr(figures, '\n') - figures)));
    }
    free(text);
}

static void rows_hold_what_is_beside_them(void **state) {
    (void)state;
    const struct problem problem = {OP_MARLIN_GEMM, 8, 5120, 13824, 128, true, EPILOGUE_RESIDUAL};
    const struct row row = {
        "down", "cold stream cupti", "marlin_gemm/x", "a=1 b=2", &problem, 14.25, 14, 15.5, 12.96, 52.125, false};
    char path[128];
    FILE *file;
    struct error error;
    snprintf(path, sizeof path, "%s/rows", directory);
    if (rows_open(path, &file, &error) || rows_put(file, &row, &error)) fail_msg("%s", error.text);
    fclose(file);
    char *text = read_text("rows");
    assert_string_equal(text, "op,layer,k,n,group,zeros,m,epilogue,regime,kernel,config,us,p20,p80,floor_us,cublas_us\n"
                              "marlin_gemm,down,13824,5120,128,1,8,residual,cold stream cupti,marlin_gemm/x,a=1 b=2,"
                              "14.2500,14.0000,15.5000,12.9600,52.1250\n");
    free(text);
    assert_int_equal(rows_open("/dev/full", &file, &error), -1);
    assert_non_null(strstr(error.text, "/dev/full"));
}

static void markdown_of_a_sweep(void **state) {
    (void)state;
    char command[512];
    snprintf(command, sizeof command,
             QUICK "--op fp16_gemm --shapes 128x64 --m 1,2 --epilogue bias --markdown %s/table.md", directory);
    struct output output = run(command);
    assert_int_equal(output.code, 0);
    char *text = read_text("table.md");
    assert_int_equal(count_lines(text), 6);
    assert_non_null(strstr(text, ", clock monotonic; ceilings measured here: "));
    assert_non_null(strstr(text, "\n| fp16_gemm/cpu | 128x64, bias | 2 | tile_m="));
    assert_null(strstr(text, "read floor"));
    free(text);
    release(&output);
    snprintf(command, sizeof command, QUICK "--op fp16_gemm --shapes 128x64 --m 1 --markdown %s/no/table.md",
             directory);
    check_fails(command, 1, "no/table.md");
}

static void markdown_holds_what_is_beside(void **state) {
    (void)state;
    const struct problem problem = {OP_MARLIN_GEMM, 8, 5120, 13824, 128, true, EPILOGUE_RESIDUAL};
    const struct ceilings ceilings = {3000, 3000, 800, {0}};
    struct context context = {.count = 1};
    struct row row = {"down", "", "marlin_gemm/x", "a=1 b=2", &problem, 16, 15, 17.5, 12.8, 50, true};
    char path[128];
    snprintf(path, sizeof path, "%s/beside.md", directory);
    context.entries[0].key = "cupti";
    strcpy(context.entries[0].value, "not attached");
    FILE *file = fopen(path, "w");
    markdown_begin(file, &context, true);
    markdown_put(file, &row, &ceilings, true);
    row.floor_us = row.cublas_us = row.throttled = 0;
    markdown_put(file, &row, &ceilings, true);
    row.us = 0;
    markdown_put(file, &row, &ceilings, true);
    fclose(file);
    char *text = read_text("beside.md"), *line = strstr(text, "| kernel");
    assert_non_null(strstr(text, ", clock events; "));
    for (int columns, rows = 0; line && *line; line = strchr(line, '\n') + 1, rows++) {
        columns = 0;
        for (char *c = line; *c != '\n'; c++) columns += *c == '|';
        assert_int_equal(columns, 13);
        assert_true(rows < 5);
    }
    assert_non_null(strstr(text, "| marlin_gemm/x | down 13824x5120, group 128, zeros, residual | 8 | a=1 b=2 | 16.00 "
                                 "(throttled) | 15.00..17.50 | "));
    assert_non_null(strstr(text, " % | 1.25 | 3.12 |\n"));
    assert_non_null(strstr(text, " % | | |\n"));
    assert_non_null(strstr(text, "| failed | | | | | | | |\n"));
    free(text);
}

/* Refused before anything is measured, and left as they were. */
static void other_files_are_no_report(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"op,layer,k,n\n", "not a report of this program: its first line is not 'op,layer,k,n,group,"},
        {ROWS_HEADER ",more\n", "not a report"},
        {ROWS_HEADER "\nfp16_gemm,qkv", "ends in the middle of a row"},
        {ROWS_HEADER, "not a report"},
        {"\n", "not a report"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[128], command[512];
        snprintf(path, sizeof path, "%s/other.csv", directory);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(cases[i][0], file);
        fclose(file);
        snprintf(command, sizeof command, QUICK "--op fp16_gemm --shapes 128x64 --m 1 --report %s", path);
        check_fails(command, 1, cases[i][1]);
        char *text = read_text("other.csv");
        assert_string_equal(text, cases[i][0]);
        free(text);
    }
}

static void wrong_usage(void **state) {
    (void)state;
    static const struct {
        const char *arguments, *message;
    } cases[] = {
        {"sweep --device tpu", "unknown device 'tpu'"},
        {QUICK "--op gemm", "unknown op 'gemm'"},
        {QUICK "--kernel marlin_gemm/none", "unknown kernel 'marlin_gemm/none'"},
        {QUICK "--kernel marlin_gemm/mma", "marlin_gemm/mma does not run on cpu"},
        {QUICK "--kernel marlin_gemm/cpu --op fp16_gemm", "no kernel of fp16_gemm"},
        {QUICK "--shapes 7b", "'7b' is not a model (qwen2.5-0.5b to -72b"},
        {QUICK "--shapes /nonexistent/model", "/nonexistent/model"},
        {QUICK "--shapes 64x64", "awq_dequant takes K divisible by 128"},
        {QUICK "--shapes 128x100 --op marlin_gemm", "N divisible by 64; found K=128, N=100"},
        {QUICK "--m 0", "'0' is not a list of positive numbers"},
        {QUICK "--op marlin_gemm --config table", "--config table needs a tile table"},
        {QUICK "--op marlin_gemm --config tile_q=1", "marlin_gemm/cpu has no parameter 'tile_q'"},
        {QUICK "--op awq_dequant --config tile_n=8", "the configuration lacks 'tile_k'"},
        {QUICK "--op awq_dequant --config tile_n=9,tile_k=64,unroll=1,threads=1", "tile_n=9 is not one of"},
        {QUICK "--op awq_dequant --group 32 --config tile_n=8,tile_k=64,unroll=4,threads=1",
         "not legal for awq_dequant/cpu, awq_dequant m=1 n=1024 k=1024 group=32 zeros=1: unroll=4 converts"},
        {QUICK "--group 100", "--group 100: accepted are 32, 64, 128 and all"},
        {QUICK "--zeros 2", "--zeros 2: accepted are 1 and 0"},
        {QUICK "--cache hot", "--cache hot: accepted are cold and warm"},
        {QUICK "--budget soon", "--budget soon: not a time like 90s, 10m or 1h"},
        {QUICK "--budget 0s", "--budget 0s: not a time"},
        {QUICK "--seed -1", "--seed -1: not a whole number from 0"},
        {QUICK "--tile 3", "unrecognized option"},
        {QUICK "extra", "Too many arguments"},
        {QUICK "--benchmark_nonsense=1", "--benchmark_nonsense=1"},
        {"sweep --device cpu --benchmark_min_time=soon", "--benchmark_min_time=soon"},
        {"kernels gemm", "unknown op 'gemm'"},
        {"kernels --shapes 128x64", "needs --device"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_fails(cases[i].arguments, 2, cases[i].message);
}

static void failures(void **state) {
    (void)state;
    check_fails("sweep --device cuda:99", 1, "--device cpu");
    check_fails("kernels --device cuda:99", 1, "--device cpu");
    check_fails(QUICK "--table /nonexistent/tiles.txt", 1, "/nonexistent/tiles.txt");
    check_fails(QUICK "--csv /nonexistent/rows.csv", 1, "/nonexistent/rows.csv");
    check_fails(QUICK "--report /nonexistent/report.csv", 1, "/nonexistent/report.csv");
}

static void empty_filter(void **state) {
    (void)state;
    struct output output = run(QUICK "--op fp16_gemm --shapes 128x64 --m 1 --benchmark_filter=nothing");
    assert_int_equal(output.code, 2);
    assert_non_null(strstr(output.err, "no point matches the filter"));
    release(&output);
}

/* A table with one row, for this processor or for another. */
static void write_table(const char *path, const char *architecture, const char *configuration) {
    struct device *device;
    struct error error;
    char message[TILES_MESSAGE];
    struct tile_row row = {.op = "fp16_gemm", .k = 128, .n = 64, .m_low = 1, .m_high = 8, .us = 1, .gbs = 1};
    struct tile_table table = {.regime = "cold, call", .rows = &row, .count = 1};
    assert_int_equal(device_open("cpu", &device, &error), 0);
    snprintf(row.kernel, sizeof row.kernel, "fp16_gemm/cpu");
    snprintf(row.configuration, sizeof row.configuration, "%s", configuration);
    row.default_us = 1;
    snprintf(table.device, sizeof table.device, "%s", device->name);
    snprintf(table.architecture, sizeof table.architecture, "%s", architecture ? architecture : device->architecture);
    snprintf(table.software, sizeof table.software, "%s", device->software);
    snprintf(table.kernels, sizeof table.kernels, "%s", device->kernels);
    table.multiprocessors = device->multiprocessors;
    device_close(device);
    if (tiles_write(path, &table, message)) fail_msg("%s", message);
}

static void table_configurations(void **state) {
    (void)state;
    static const char *const choices[] = {"tile_m=1 tile_n=64 tile_k=4096 unroll=2 threads=1",
                                          "tile_m=2 tile_n=16 tile_k=1024 unroll=1 threads=1"};
    for (int i = 0; i < 2; i++) {
        char path[128], command[512], name[160];
        snprintf(path, sizeof path, "%s/tiles.txt", directory);
        snprintf(command, sizeof command,
                 "sweep --device cpu --op fp16_gemm --shapes 128x64 --m 4 --table %s --benchmark_list_tests", path);
        snprintf(name, sizeof name, "/m:4/%s/", choices[i]);
        for (char *c = name; *c; c++)
            if (*c == ' ') *c = ',';
        write_table(path, NULL, choices[i]);
        struct output output = run(command);
        assert_int_equal(output.code, 0);
        assert_int_equal(count_lines(output.out), 1);
        assert_non_null(strstr(output.out, name));
        release(&output);
        write_table(path, "other", choices[i]);
        check_fails(command, 1, "other");
        /* Of the other ops it names no kernel. */
        write_table(path, NULL, choices[i]);
        snprintf(command, sizeof command,
                 "sweep --device cpu --shapes 128x64 --m 4 --table %s --config table --benchmark_list_tests", path);
        output = run(command);
        assert_int_equal(output.code, 0);
        assert_int_equal(count_lines(output.out), 1);
        assert_non_null(strstr(output.out, name));
        release(&output);
    }
}

static void words(void **state) {
    (void)state;
    struct output output = run("sweep --help");
    assert_int_equal(output.code, 0);
    assert_non_null(strstr(output.out, "--benchmark_out=FILE"));
    assert_non_null(strstr(output.out, "--shapes"));
    release(&output);
    output = run("devices");
    assert_int_equal(output.code, 0);
    assert_memory_equal(output.out, "cpu ", 4);
    release(&output);
    output = run("kernels marlin_gemm --device cpu --shapes 256x64 --m 1");
    assert_int_equal(output.code, 0);
    assert_non_null(strstr(output.out, "marlin_gemm/cpu"));
    assert_non_null(strstr(output.out, "legal for marlin_gemm m=1 n=64 k=256 group=128 zeros=1: "));
    assert_null(strstr(output.out, "fp16_gemm"));
    release(&output);
}

/* --- a kernel that is wrong --- */

static int leaves_y_alone(const struct plan *plan, const struct operands *operands, struct error *error) {
    (void)plan, (void)operands, (void)error;
    return 0;
}

static int writes_zeros(const struct plan *plan, const struct operands *operands, struct error *error) {
    return device_fill(plan->device, operands->y, 0, problem_outputs(&plan->problem) * 2, error);
}

/* Three points of one kernel: unwritten, wrong, right. */
static void wrong_kernels_get_no_time(void **state) {
    (void)state;
    struct sweep_options options = {
        .ops = "fp16_gemm", .shapes = "128x64,64x64,64x128", .m = "1", .group = -1, .seed = 1};
    char path[128], out[160], program[] = "test", format[] = "--benchmark_out_format=json";
    snprintf(path, sizeof path, "%s/wrong.csv", directory);
    snprintf(out, sizeof out, "--benchmark_out=%s/wrong.json", directory);
    char *argv[] = {program, out, format, NULL};
    int argc = 3;
    struct device *device;
    struct sweep *sweep;
    struct error error;
    assert_int_equal(device_open("cpu", &device, &error), 0);
    if (sweep_create(device, &options, NULL, &sweep, &error)) fail_msg("%s", error.text);
    assert_int_equal(sweep->count, 3);
    struct kernel unwritten = *sweep->points[0].kernel, zeros = unwritten;
    unwritten.run = leaves_y_alone;
    zeros.run = writes_zeros;
    sweep->points[0].kernel = &unwritten;
    sweep->points[1].kernel = &zeros;
    sweep->measuring = (struct measure_options){.min_samples = 6, .max_samples = 10, .interval = 1};
    sweep->ceilings = (struct ceilings){1, 1, 1, {0}};
    sweep->csv = fopen(path, "w");
    sweep_register(sweep);
    cbench_initialize(&argc, argv);
    assert_int_equal(cbench_run(), 3);
    assert_int_equal(sweep->failures, 2);
    fclose(sweep->csv);
    sweep_destroy(sweep);
    device_close(device);
    char *csv = read_text("wrong.csv"), *json = read_text("wrong.json");
    assert_int_equal(count_lines(csv), 4);
    json_t *root = parse(json);
    const json_t *list = json_object_get(root, "benchmarks");
    const char *first = json_string_value(json_object_get(json_array_get(list, 0), "error_message"));
    const char *second = json_string_value(json_object_get(json_array_get(list, 1), "error_message"));
    assert_non_null(strstr(first, "64 of 64 outputs are NaN"));
    assert_non_null(strstr(second, "relative error 1, at most 0.001"));
    assert_null(json_object_get(json_array_get(list, 1), "us"));
    check_entry(json_array_get(list, 2), true);
    json_decref(root);
    free(csv);
    free(json);
}

/* --- a card that is not well --- */

static void report_made_up(struct cbench_state *state, void *data) {
    struct sweep_point *point = data;
    static const unsigned long long reasons[] = {0x4, 0x8c, 0x48};
    struct measurement m = {.median_us = 10, .samples = 6, .stop = "interval", .clock = "cupti", .sm_mhz = 1980};
    static const double event_us[] = {30.3, 33, 29.7};
    m.throttle = reasons[point - point->sweep->points];
    m.span_us = 20;
    m.batch_us = 30;
    m.event_us = event_us[point - point->sweep->points];
    while (cbench_keep_running(state)) sweep_report(state, point, &m, 1e-4);
}

static void check_row(const json_t *list, size_t index, const char *reasons, bool throttled) {
    const json_t *row = json_array_get(list, index);
    const char *label = json_string_value(json_object_get(row, "label"));
    if (!strstr(label, reasons)) fail_msg("'%s' is not in %s", reasons, label);
    assert_int_equal(json_number_value(json_object_get(row, "throttled")) == 1, throttled);
    assert_int_equal(json_object_get(row, "throttled") != NULL, throttled);
}

/* In a process of its own: Google Benchmark writes one file a process. */
static int run_made_up(void) {
    struct sweep_options options = {
        .ops = "fp16_gemm", .shapes = "128x64,64x64,64x128", .m = "1", .group = -1, .seed = 1};
    char out[160], words[160], program[] = "test", format[] = "--benchmark_out_format=json";
    char *argv[] = {program, out, format, NULL};
    int argc = 3;
    struct device *device;
    struct sweep *sweep;
    struct error error;
    snprintf(out, sizeof out, "--benchmark_out=%s/throttled.json", directory);
    snprintf(words, sizeof words, "%s/words", directory);
    if (device_open("cpu", &device, &error) || sweep_create(device, &options, NULL, &sweep, &error)) return 1;
    sweep->ceilings = (struct ceilings){1, 1, 1, {0}};
    sweep->words = fopen(words, "w");
    for (int i = 0; i < 3; i++) cbench_register(sweep->points[i].name, report_made_up, &sweep->points[i]);
    cbench_initialize(&argc, argv);
    if (cbench_run() != 3) return 2;
    sweep_summarize(sweep);
    if (fclose(sweep->words)) return 2;
    if (sweep->watch.measured != 3 || sweep->watch.impaired != 2) return 3;
    sweep_destroy(sweep);
    device_close(device);
    return 0;
}

static void throttled_cards_are_named(void **state) {
    (void)state;
    int status;
    pid_t child = fork();
    if (!child) _exit(run_made_up());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    char *words = read_text("words"), *json = read_text("throttled.json");
    assert_int_equal(count_lines(words), 3);
    assert_non_null(strstr(words, "CUPTI and events: within 2 % in 2 of 3 runs over 20 us; 10.0 % apart at most, in "
                                  "fp16_gemm/cpu/64x64/"));
    assert_non_null(
        strstr(words, "2 of 3 runs were measured while the card was throttled (hardware slowdown, hardware"));
    assert_non_null(strstr(words, "cpu is throttled (hardware slowdown, power brake)"));
    json_t *root = parse(json);
    const json_t *list = json_object_get(root, "benchmarks");
    check_row(list, 0, " throttle=software power cap", false);
    check_row(list, 1, " throttle=software power cap, hardware slowdown, power brake", true);
    check_row(list, 2, " throttle=hardware slowdown, hardware thermal slowdown", true);
    json_decref(root);
    free(json);
    free(words);
}

static int set_up(void **state) {
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_of_all_ops),
        cmocka_unit_test(cold_symmetric_repeated),
        cmocka_unit_test(model_shapes_are_listed),
        cmocka_unit_test(shapes_with_their_own_m),
        cmocka_unit_test(epilogues_are_listed),
        cmocka_unit_test(epilogues_are_measured),
        cmocka_unit_test(a_norm_takes_kernels_that_can),
        cmocka_unit_test(types_are_measured),
        cmocka_unit_test(all_configurations),
        cmocka_unit_test(a_budget_ends_the_sampling),
        cmocka_unit_test(paced_rows_say_so),
        cmocka_unit_test(csv_rows),
        cmocka_unit_test(report_is_appended_to),
        cmocka_unit_test(rows_hold_what_is_beside_them),
        cmocka_unit_test(markdown_of_a_sweep),
        cmocka_unit_test(markdown_holds_what_is_beside),
        cmocka_unit_test(other_files_are_no_report),
        cmocka_unit_test(wrong_usage),
        cmocka_unit_test(failures),
        cmocka_unit_test(empty_filter),
        cmocka_unit_test(table_configurations),
        cmocka_unit_test(words),
        cmocka_unit_test(throttled_cards_are_named),
        cmocka_unit_test(wrong_kernels_get_no_time),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
