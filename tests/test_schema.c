/* bench/sweep.schema.json: what sweep writes is what it says, and what it says would be missed. */
#include "tests/command.h"

#include <glob.h>

#include "tests/schema.h"

#define SCHEMA "bench/sweep.schema.json"
#define SWEEP "sweep --device cpu --cache warm --shapes 256x128 --m 1,2 --benchmark_min_time=0.001 "

static json_t *load(const char *path) {
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root) fail_msg("%s, line %d: %s", path, error.line, error.text);
    return root;
}

static void check_valid(const char *path) {
    json_t *rules = load(SCHEMA), *value = load(path);
    struct schema schema = {.root = rules};
    if (!schema_valid(&schema, rules, value, "")) fail_msg("%s does not follow " SCHEMA ": %s", path, schema.why);
    assert_true(json_array_size(json_object_get(value, "benchmarks")) > 0);
    json_decref(value);
    json_decref(rules);
}

static void test_output(void **state) {
    (void)state;
    static const char *const sweeps[] = {
        "",
        "--op marlin_gemm --group all --zeros 0 --epilogue bias --cache cold --seed 0 --pace 0.5",
        "--op marlin_gemm,fp16_gemm --type bf16",
        "--op fp16_gemm --benchmark_repetitions=2",
        "--op fp16_gemm --benchmark_repetitions=2 --m 3 --resume",
    };
    for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++) {
        char line[512];
        snprintf(line, sizeof line, SWEEP "%s --benchmark_out=@/s.json", sweeps[i]);
        expect(0, line, "");
        check_valid(in_folder("s.json"));
    }
}

/* An interrupted sweep has rows of both kinds. */
static void test_interrupted_output(void **state) {
    (void)state;
    expect_shell(130,
                 "$TILEBOOK sweep --device cpu --shapes 1024x1024 --m 1,16 --benchmark_out=@/cut.json "
                 "--benchmark_min_time=0.5 2>&1 >@/stdout & pid=$!; "
                 "for i in $(seq 300); do grep -q '^awq_dequant' @/stdout && break; sleep 0.1; done; "
                 "kill -TERM $pid; wait $pid",
                 "interrupted");
    check_valid(in_folder("cut.json"));
}

/* What GPUs wrote. */
static void test_kept_results(void **state) {
    (void)state;
    static const char *const patterns[] = {"results/*/sweep.json", "results/*/chain.json"};
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        glob_t found;
        assert_int_equal(glob(patterns[p], 0, NULL, &found), 0);
        for (size_t i = 0; i < found.gl_pathc; i++) check_valid(found.gl_pathv[i]);
        globfree(&found);
    }
}

/* A valid file of one row; each change makes it invalid. */
static const char valid[] =
    "{'context': {'date': '2026-01-02T03:04:05+00:00', 'device': 'X', 'uuid': 'GPU-1', 'architecture': 'sm_90a',"
    " 'multiprocessors': '132', 'software': 'driver 1', 'cupti': 'cupti 13.0', 'kernels': '0123abcd', 'launch': "
    "'stream',"
    " 'cache': 'cold', 'data': 'uniform', 'seed': '1', 'read_gbs': '3114.3', 'copy_gbs': '3e3', 'matrix_tflops': '780',"
    " 'state': 'sm 1980 MHz, memory 2619 MHz, 172 W, 58 C, throttle none', 'command': 'tilebook sweep'},"
    " 'benchmarks': [{'name': 'marlin_gemm/mma/qkv/k:8/n:8/g:8/z:1/m:1/a=1/iterations:1/manual_time', 'run_name': 'r',"
    " 'run_type': 'iteration', 'repetitions': 1, 'repetition_index': 0, 'real_time': 5.0, 'time_unit': 'us',"
    " 'label': 'stop=interval clock=cupti regime=stream sm=1980MHz memory=2619MHz power=231W 58C throttle=none',"
    " 'k': 8.0, 'n': 8, 'm': 1, 'us': 5, 'p20_us': 4, 'p80_us': 6, 'min_us': 3, 'low_us': 4, 'high_us': 5,"
    " 'span_us': 5, 'samples': 9.0, 'GB/s': 1, 'TFLOP/s': 1, '%bandwidth': 1, '%matrix': 1, 'error': 0.0001}]}";

static bool is_valid(const char *text) {
    char json[sizeof valid + 64];
    json_t *rules = load(SCHEMA);
    struct schema schema = {.root = rules};
    snprintf(json, sizeof json, "%s", text);
    for (char *c = json; *c; c++)
        if (*c == '\'') *c = '"';
    json_t *value = json_loads(json, 0, NULL);
    assert_non_null(value);
    bool follows = schema_valid(&schema, rules, value, "");
    json_decref(value);
    json_decref(rules);
    return follows;
}

static void test_refusals(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"'uuid': 'GPU-1', ", ""},
        {"'kernels': '0123abcd'", "'kernels': '0123'"},
        {"'multiprocessors': '132'", "'multiprocessors': 132"},
        {"'cache': 'cold'", "'cache': 'tepid'"},
        {"'cupti': 'cupti 13.0'", "'cupti': ''"},
        {" clock=cupti", ""},
        {"clock=cupti", "clock=watch"},
        {"stop=interval", "stop=soon"},
        {"'us': 5, ", ""},
        {"'us': 5, ", "'us': 0, "},
        {"'samples': 9.0", "'samples': 9.5"},
        {"'error': 0.0001", "'error': 0.01"},
        {"'k': 8.0", "'k': '8'"},
        {"'n': 8, ", "'n': 8, 'new': 1, "},
        {"'run_type': 'iteration'", "'run_type': 'other'"},
        {"marlin_gemm/mma/qkv", "gemm/mma/qkv"},
        {"'us': 5, ", "'us': 5, 'error_occurred': true, 'error_message': 'x', "},
        {"{'context'", "{'more': 1, 'context'"},
    };
    assert_true(is_valid(valid));
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char text[sizeof valid + 64];
        const char *found = strstr(valid, changes[i][0]);
        assert_non_null(found);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(found - valid), valid, changes[i][1],
                 found + strlen(changes[i][0]));
        if (is_valid(text)) fail_msg("valid with '%s' in place of '%s'", changes[i][1], changes[i][0]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_interrupted_output),
        cmocka_unit_test(test_kept_results),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
