/* Opening devices without a GPU: what is accepted, and what the refusals say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/device.h"

static void refuses_unknown_names(void **state) {
    (void)state;
    static const char *const names[] = {"",         "gpu",     "cuda",       "cuda:", "cuda:x",
                                        "cuda:0x1", "cuda:-1", "cuda:12345", "cpu:0", "CPU"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct device *device = (struct device *)state;
        struct error error = {""};
        assert_int_equal(device_open(names[i], &device, &error), -1);
        assert_null(device);
        assert_non_null(strstr(error.text, "cpu, cuda:N"));
        assert_non_null(strstr(error.text, names[i]));
    }
}

static void says_that_the_cpu_works(void **state) {
    (void)state;
    struct device *device;
    struct error error = {""}, why = {""};
    int count = device_cuda_count(&why);
    assert_true(count > 0 || why.text[0]);
    if (!device_open("cuda:999", &device, &error)) fail_msg("there is a cuda:999");
    assert_non_null(strstr(error.text, "cuda:999"));
    assert_non_null(strstr(error.text, "--device cpu"));
    if (count == 0) assert_non_null(strstr(error.text, why.text));
}

static void opens_something_by_itself(void **state) {
    (void)state;
    struct device *device;
    struct error error = {""};
    if (device_open("auto", &device, &error)) fail_msg("%s", error.text);
    if (device_cuda_count(NULL) == 0) assert_string_equal(device->id, "cpu");
    device_close(device);
}

static void moves_bytes(void **state) {
    (void)state;
    struct device *device;
    struct error error = {""};
    unsigned char from[100], to[100];
    for (int i = 0; i < 100; i++) from[i] = (unsigned char)i;
    if (device_open("cpu", &device, &error)) fail_msg("%s", error.text);
    unsigned char *a = device_alloc(device, 100, &error), *b = device_alloc(device, 100, &error);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal((uintptr_t)a % 256 + (uintptr_t)b % 256, 0);
    assert_int_equal(device_write(device, a, from, 100, &error), 0);
    assert_int_equal(device_fill(device, b, 0xee, 100, &error), 0);
    assert_int_equal(device_copy(device, b + 10, a, 50, &error), 0);
    assert_int_equal(device_read(device, to, b, 100, &error), 0);
    assert_int_equal(device_synchronize(device, &error), 0);
    for (int i = 0; i < 100; i++) assert_int_equal(to[i], i >= 10 && i < 60 ? i - 10 : 0xee);
    assert_true(device_memory_free(device) > 0);
    unsigned char *host = device_alloc_host(device, 100, &error);
    assert_non_null(host);
    assert_int_equal((uintptr_t)host % 256, 0);
    assert_int_equal(device_copy(device, host, a, 100, &error), 0);
    assert_memory_equal(host, from, 100);
    device_free_host(device, host);
    device_free_host(device, NULL);
    device_free(device, a);
    device_free(device, b);
    device_free(device, NULL);
    device_close(device);
}

static int enqueue_nothing(void *context, struct error *error) {
    (void)context, (void)error;
    fail_msg("nothing can be recorded here");
    return -1;
}

static void cpu_records_no_graphs(void **state) {
    struct device *device;
    struct device_graph *graph = (struct device_graph *)state;
    struct error error = {""};
    if (device_open("cpu", &device, &error)) fail_msg("%s", error.text);
    assert_int_equal(device_graph_record(device, enqueue_nothing, NULL, &graph, &error), -1);
    assert_null(graph);
    assert_string_equal(error.text, "device cpu records no graphs; they need cuda:N");
    device_graph_destroy(device, graph);
    device_close(device);
}

static void cpu_runs_no_device_code(void **state) {
    (void)state;
    struct device *device;
    struct device_function *function;
    struct error error = {""};
    double microseconds;
    if (device_open("cpu", &device, &error)) fail_msg("%s", error.text);
    assert_int_equal(device_function(device, "cuda/reference.cu", "f", "", 0, &function, &error), -1);
    assert_non_null(strstr(error.text, "device cpu runs no device code"));
    assert_int_equal(device_mark(device, 0, &error), -1);
    assert_int_equal(device_marked(device, &microseconds, &error), -1);
    device_close(device);
    device_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_unknown_names),     cmocka_unit_test(says_that_the_cpu_works),
        cmocka_unit_test(opens_something_by_itself), cmocka_unit_test(moves_bytes),
        cmocka_unit_test(cpu_runs_no_device_code),   cmocka_unit_test(cpu_records_no_graphs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
