#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>

#include "bench/cbench.h"

static int steady_runs, steady_iterations, filtered_runs, after_skip;
static char output[] = "/tmp/tilebook-cbench-XXXXXX";

static void steady(struct cbench_state *state, void *data) {
    ++*(int *)data;
    while (cbench_keep_running(state)) {
        steady_iterations++;
        cbench_set_iteration_time(state, 0.0125);
        cbench_set_counter(state, "GB/s", 12.5);
        cbench_set_label(state, "a \"label\"");
    }
}

static void skipped(struct cbench_state *state, void *data) {
    (void)data;
    while (cbench_keep_running(state)) {
        cbench_skip_with_error(state, "wrong on purpose");
        after_skip += cbench_keep_running(state);
        break;
    }
}

static void filtered(struct cbench_state *state, void *data) {
    (void)state;
    ++*(int *)data;
}

static void run_all(void **state) {
    (void)state;
    int file = mkstemp(output);
    assert_true(file >= 0);
    close(file);
    char out[64], program[] = "test", filter[] = "--benchmark_filter=^a", repeat[] = "--benchmark_repetitions=2";
    char unknown[] = "--benchmark_unknown=1", other[] = "other";
    snprintf(out, sizeof out, "--benchmark_out=%s", output);
    char *argv[] = {program, out, filter, unknown, repeat, other, NULL};
    int argc = 6;
    char name[] = "a/steady/k:1/x=1,y=2";
    cbench_register(name, steady, &steady_runs);
    name[0] = 'X';
    cbench_register("a/skipped", skipped, NULL);
    cbench_register("b/filtered", filtered, &filtered_runs);
    cbench_add_context("device", "a \"device\"");
    cbench_initialize(&argc, argv);
    assert_int_equal(argc, 3);
    assert_string_equal(argv[1], unknown);
    assert_string_equal(argv[2], other);
    assert_int_equal(cbench_run(), 2);
    assert_int_equal(steady_runs, 2);
    assert_int_equal(steady_iterations, 2);
    assert_int_equal(after_skip, 0);
    assert_int_equal(filtered_runs, 0);
}

/* The first entry whose name begins so. */
static const json_t *find_entry(const json_t *root, const char *name) {
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(root, "benchmarks"), i, entry) {
        if (!strncmp(json_string_value(json_object_get(entry, "name")), name, strlen(name))) return entry;
    }
    fail_msg("no entry %s", name);
    return NULL;
}

static void written_as_json(void **state) {
    (void)state;
    json_error_t error;
    json_t *root = json_load_file(output, 0, &error);
    assert_non_null(root);
    unlink(output);
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "context"), "device")), "a \"device\"");
    const json_t *entry = find_entry(root, "a/steady/k:1/x=1,y=2/iterations:1/manual_time");
    assert_float_equal(json_number_value(json_object_get(entry, "real_time")), 12500, 1e-6);
    assert_float_equal(json_number_value(json_object_get(entry, "GB/s")), 12.5, 0);
    assert_int_equal(json_integer_value(json_object_get(entry, "iterations")), 1);
    assert_string_equal(json_string_value(json_object_get(entry, "time_unit")), "us");
    assert_string_equal(json_string_value(json_object_get(entry, "label")), "a \"label\"");
    entry = find_entry(root, "a/skipped");
    assert_true(json_is_true(json_object_get(entry, "error_occurred")));
    assert_string_equal(json_string_value(json_object_get(entry, "error_message")), "wrong on purpose");
    json_decref(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(run_all), cmocka_unit_test(written_as_json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
