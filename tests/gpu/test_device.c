/* A GPU as a device: memory, order, device code, events; the reference there and on the host; cuBLASLt. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/half.h"
#include "kernels/reference.h"
#include "tests/gpu/devices.h"

static void describes_itself(void **state) {
    (void)state;
    assert_int_equal(gpu->backend, BACKEND_CUDA);
    assert_string_equal(gpu->id, "cuda:0");
    assert_int_equal(strlen(gpu->uuid), 40);
    assert_memory_equal(gpu->uuid, "GPU-", 4);
    assert_memory_equal(gpu->architecture, "sm_", 3);
    assert_non_null(strstr(gpu->software, "cuda "));
    assert_non_null(strstr(gpu->software, "nvrtc "));
    assert_int_equal(strlen(gpu->kernels), 8);
    assert_true(gpu->name[0] && gpu->compute_capability >= 80 && gpu->multiprocessors > 0);
    assert_true(gpu->cache_bytes && gpu->memory_bytes > gpu->cache_bytes);
    assert_true(gpu->shared_block_bytes >= 99 << 10 && gpu->shared_sm_bytes > gpu->shared_block_bytes);
    assert_true(gpu->memory_gbs > 100 && gpu->matrix_tflops > 10);
    print_message("%s, %s, %s, %.0f GB/s, %.0f TFLOP/s\n", gpu->name, gpu->architecture, gpu->software, gpu->memory_gbs,
                  gpu->matrix_tflops);
}

static void moves_bytes(void **state) {
    (void)state;
    enum { BYTES = 1 << 20 };
    static unsigned char from[BYTES], to[BYTES];
    for (int i = 0; i < BYTES; i++) from[i] = (unsigned char)(i * 7);
    unsigned char *a = get(gpu, BYTES), *b = get(gpu, BYTES);
    assert_int_equal(((uintptr_t)a | (uintptr_t)b) % 256, 0);
    done(device_write(gpu, a, from, BYTES, &error));
    memset(from, 0, sizeof from); /* the bytes were taken */
    done(device_fill(gpu, b, 0xee, BYTES, &error));
    done(device_copy(gpu, b + 10, a, 1000, &error));
    done(device_read(gpu, to, b, BYTES, &error));
    for (int i = 0; i < BYTES; i++) assert_int_equal(to[i], i >= 10 && i < 1010 ? (unsigned char)((i - 10) * 7) : 0xee);
    device_free(gpu, a);
    device_free(gpu, b);
}

static void says_what_was_free(void **state) {
    (void)state;
    assert_null(device_alloc(gpu, (size_t)1 << 50, &error));
    assert_non_null(strstr(error.text, "asked for 1125899906842624 bytes"));
    assert_non_null(strstr(error.text, "are free"));
    assert_in_range(device_memory_free(gpu), 1, gpu->memory_bytes);
}

static void keeps_functions(void **state) {
    (void)state;
    const char *source = "cuda/reference.cu", *entry = "reference_fill_values";
    struct device_function *first, *again, *shared, *none;
    done(device_function(gpu, source, entry, "", 0, &first, &error));
    done(device_function(gpu, source, entry, "", 0, &again, &error));
    done(device_function(gpu, source, entry, "", gpu->shared_block_bytes, &shared, &error));
    assert_ptr_equal(first, again);
    assert_ptr_not_equal(first, shared);
    assert_int_equal(device_function(gpu, source, entry, "", gpu->shared_block_bytes + 1, &none, &error), -1);
    assert_non_null(strstr(error.text, "shared memory"));
    assert_int_equal(device_function(gpu, source, "no_such_entry", "", 0, &none, &error), -1);
    assert_non_null(strstr(error.text, "CUDA_ERROR_NOT_FOUND"));
    assert_int_equal(device_function(gpu, source, entry, "-DTILE=64", 0, &none, &error), -1);
    assert_null(none);
}

static void *ask_for_function(void *result) {
    device_function(gpu, "cuda/reference.cu", "reference_gemm", "-DTHREADED", 0, result, NULL);
    return NULL;
}

static void threads_share_functions(void **state) {
    (void)state;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    struct device_function *functions[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_for_function, &functions[i]), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_non_null(functions[0]);
    for (int i = 1; i < THREADS; i++) assert_ptr_equal(functions[i], functions[0]);
}

static void bad_launches_are_errors(void **state) {
    (void)state;
    struct device_function *function;
    char arguments[256] = {0};
    done(device_function(gpu, "cuda/reference.cu", "reference_fill_values", "", 0, &function, &error));
    assert_int_equal(
        device_launch(gpu, function, &(struct device_grid){.blocks = {1, 1, 1}, .threads = 2048}, arguments, &error),
        -1);
    assert_non_null(strstr(error.text, "CUDA_ERROR_INVALID_VALUE"));
    assert_non_null(strstr(error.text, "2048 threads"));
    assert_int_equal(
        device_launch(gpu, function, &(struct device_grid){.blocks = {0, 1, 1}, .threads = 32}, arguments, &error), -1);
    done(device_launch(gpu, function, &(struct device_grid){.blocks = {1, 1, 1}, .threads = 32}, arguments, &error));
    done(device_synchronize(gpu, &error));
}

static void events_measure(void **state) {
    (void)state;
    size_t bytes = 16 << 20;
    double time = 0;
    void *memory = get(gpu, bytes);
    done(device_mark(gpu, 0, &error));
    done(device_fill(gpu, memory, 1, bytes, &error));
    done(device_mark(gpu, 1, &error));
    done(device_marked(gpu, &time, &error));
    assert_true(time > 0);
    done(device_mark(gpu, DEVICE_MARKS - 1, &error));
    done(device_elapsed(gpu, 0, DEVICE_MARKS - 1, &time, &error));
    assert_true(time > 0);
    device_free(gpu, memory);
}

static void kernels_reach_the_hosts_memory(void **state) {
    (void)state;
    enum { COUNT = 100003 };
    static uint16_t here[COUNT];
    uint16_t *memory = device_alloc_host(gpu, sizeof here, &error);
    assert_non_null(memory);
    done(reference_fill_half(gpu, memory, COUNT, -1, 1, 1, &error));
    done(reference_fill_half(cpu, here, COUNT, -1, 1, 1, &error));
    done(device_synchronize(gpu, &error));
    assert_memory_equal(memory, here, sizeof here);
    device_free_host(gpu, memory);
}

static void fills_are_the_same_bits(void **state) {
    (void)state;
    enum { COUNT = 100003 };
    static uint16_t here[COUNT + 8], there[COUNT + 8];
    static const float ranges[][2] = {{-1, 1}, {0.001f, 0.02f}, {-1e-5f, 1e-5f}, {-70000, 70000}};
    uint16_t *memory = get(gpu, sizeof there);
    for (size_t i = 0; i < 2 * (sizeof ranges / sizeof *ranges); i++) {
        const float low = ranges[i / 2][0], high = ranges[i / 2][1];
        done(device_fill(gpu, memory, 0, sizeof there, &error));
        done((i % 2 ? reference_fill_bf16 : reference_fill_half)(cpu, here, COUNT, low, high, i, &error));
        done((i % 2 ? reference_fill_bf16 : reference_fill_half)(gpu, memory, COUNT, low, high, i, &error));
        done(device_read(gpu, there, memory, sizeof there, &error));
        assert_memory_equal(here, there, sizeof here);
    }
    memset(here, 0, sizeof here);
    done(device_fill(gpu, memory, 0, sizeof there, &error));
    done(reference_fill_bits(cpu, here, COUNT, 11, &error));
    done(reference_fill_bits(gpu, memory, COUNT, 11, &error));
    done(device_read(gpu, there, memory, sizeof there, &error));
    assert_memory_equal(here, there, sizeof here);
    device_free(gpu, memory);
}

/* Operands of a problem on a device, the same everywhere. */
static struct operands make_operands(struct device *device, const struct problem *problem) {
    struct operand_bytes bytes = problem_operand_bytes(problem);
    void *x = get(device, bytes.x), *weights = get(device, bytes.weights), *scales = get(device, bytes.scales),
         *zeros = get(device, bytes.zeros), *y = get(device, bytes.y);
    done(reference_fill_half(device, x, bytes.x / 2, -1, 1, 1, &error));
    if (problem->op == OP_FP16_GEMM)
        done(reference_fill_half(device, weights, bytes.weights / 2, -1, 1, 2, &error));
    else
        done(reference_fill_bits(device, weights, bytes.weights, 2, &error));
    done(reference_fill_half(device, scales, bytes.scales / 2, 0.5f, 1, 3, &error));
    done(reference_fill_bits(device, zeros, bytes.zeros, 4, &error));
    done(device_fill(device, y, 0xff, bytes.y, &error));
    return (struct operands){.x = x, .weights = weights, .scales = scales, .zeros = zeros, .y = y};
}

static void free_operands(struct device *device, const struct operands *o) {
    const void *all[] = {o->x, o->weights, o->scales, o->zeros, o->y, o->workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_free(device, (void *)(uintptr_t)all[i]);
}

static void reference_into(struct device *device, const struct problem *problem, float *host) {
    size_t bytes = problem_outputs(problem) * sizeof *host;
    struct operands operands = make_operands(device, problem);
    float *y = get(device, bytes);
    done(device_fill(device, y, 0xff, bytes, &error));
    done(reference_run(device, problem, &operands, y, &error));
    done(device_read(device, host, y, bytes, &error));
    device_free(device, y);
    free_operands(device, &operands);
}

static void references_agree(void **state) {
    (void)state;
    static const struct problem problems[] = {
        {OP_AWQ_DEQUANT, 1, 192, 384, 128, true, EPILOGUE_NONE},
        {OP_AWQ_DEQUANT, 1, 64, 256, 256, false, EPILOGUE_NONE},
        {OP_MARLIN_GEMM, 1, 192, 384, 128, true, EPILOGUE_NONE},
        {OP_MARLIN_GEMM, 65, 128, 256, 256, false, EPILOGUE_NONE},
        {OP_MARLIN_GEMM, 7, 64, 256, 32, true, EPILOGUE_NONE},
        {OP_MARLIN_GEMM, 64, 64, 128, 128, true, EPILOGUE_NONE},
        {OP_FP16_GEMM, 1, 64, 64, 0, false, EPILOGUE_NONE},
        {OP_FP16_GEMM, 130, 192, 320, 0, false, EPILOGUE_NONE},
    };
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++) {
        size_t count = problem_outputs(&problems[i]);
        float *here = calloc(count, sizeof *here), *there = calloc(count, sizeof *there);
        double difference = 0, norm = 0;
        char text[128];
        assert_true(here && there);
        reference_into(cpu, &problems[i], here);
        reference_into(gpu, &problems[i], there);
        for (size_t j = 0; j < count; j++) {
            difference += (here[j] - there[j]) * (double)(here[j] - there[j]);
            norm += here[j] * (double)here[j];
        }
        if (!(norm > 0) || !(sqrt(difference / norm) <= 1e-6))
            fail_msg("%s: relative difference %g", problem_text(&problems[i], text), sqrt(difference / norm));
        free(here);
        free(there);
    }
}

static void check_comparison(bool bf16) {
    enum { COUNT = 300001 };
    static uint16_t y[COUNT];
    static float reference[COUNT];
    struct comparison here, there;
    done((bf16 ? reference_fill_bf16 : reference_fill_half)(cpu, y, COUNT, -1, 1, 5, &error));
    for (int i = 0; i < COUNT; i++)
        reference[i] = (bf16 ? bf16_to_float(y[i]) : half_to_float(y[i])) + 0.001f * (float)(i % 5);
    uint16_t *gpu_y = get(gpu, sizeof y);
    float *gpu_reference = get(gpu, sizeof reference);
    done(device_write(gpu, gpu_reference, reference, sizeof reference, &error));
    for (int bad = 0; bad < 2; bad++) {
        if (bad) y[COUNT - 1] = bf16 ? 0x7fc0 : 0x7e00, y[123456] = bf16 ? 0xff80 : 0xfc00;
        done(device_write(gpu, gpu_y, y, sizeof y, &error));
        done(reference_compare(cpu, y, bf16, reference, COUNT, &here, &error));
        done(reference_compare(gpu, gpu_y, bf16, gpu_reference, COUNT, &there, &error));
        assert_true(fabs(here.relative_error - there.relative_error) <= 1e-9 * here.relative_error);
        assert_int_equal(here.bad, 2 * bad);
        assert_int_equal(there.bad, 2 * bad);
        if (bad) assert_int_equal(here.first_bad, 123456);
        if (bad) assert_int_equal(there.first_bad, 123456);
    }
    device_free(gpu, gpu_y);
    device_free(gpu, gpu_reference);
}

static void comparisons_agree(void **state) {
    (void)state;
    check_comparison(false);
    check_comparison(true);
}

static void cublaslt_is_right(void **state) {
    (void)state;
    static const int ms[] = {1, 3, 16, 255, 1024};
    const struct kernel *kernel = kernel_find("fp16_gemm/cublaslt");
    struct config config = {{0}};
    assert_non_null(kernel);
    for (size_t i = 0; i < sizeof ms / sizeof *ms; i++) {
        struct problem problem = {.op = OP_FP16_GEMM, .m = ms[i], .n = 1024, .k = 1536};
        struct operands operands = make_operands(gpu, &problem);
        struct comparison c;
        struct plan *plan;
        float *reference = get(gpu, problem_outputs(&problem) * sizeof *reference);
        done(plan_create(gpu, kernel, &problem, &config, &plan, &error));
        operands.workspace = get(gpu, plan->workspace_bytes);
        done(device_fill(gpu, operands.workspace, 0, plan->workspace_bytes, &error));
        done(plan_run(plan, &operands, &error));
        done(reference_run(gpu, &problem, &operands, reference, &error));
        done(reference_compare(gpu, operands.y, false, reference, problem_outputs(&problem), &c, &error));
        assert_int_equal(c.bad, 0);
        assert_true(c.relative_error <= 1e-3);
        plan_destroy(plan);
        device_free(gpu, reference);
        free_operands(gpu, &operands);
    }
}

/* Square GEMMs, each from what the one before wrote, back and forth between x and y. */
struct chain {
    struct plan *plan;
    struct operands operands;
    bool broken; /* asks for something that cannot be recorded */
};

static int enqueue_chain(void *context, struct error *why) {
    const struct chain *chain = context;
    const struct operands *o = &chain->operands;
    struct operands back = *o;
    back.x = o->y;
    back.y = (void *)(uintptr_t)o->x;
    for (int i = 0; i < 4; i++)
        if (plan_run(chain->plan, i % 2 ? &back : o, why)) return -1;
    return chain->broken ? device_synchronize(gpu, why) : 0;
}

static struct chain make_chain(void) {
    const struct kernel *kernel = kernel_find("fp16_gemm/mma");
    const struct problem problem = {.op = OP_FP16_GEMM, .m = 16, .n = 256, .k = 256};
    struct config config;
    struct chain chain = {.operands = make_operands(gpu, &problem)};
    done(config_default(gpu, kernel, &problem, &config, &error));
    done(plan_create(gpu, kernel, &problem, &config, &chain.plan, &error));
    size_t bytes = problem_operand_bytes(&problem).weights;
    done(reference_fill_half(gpu, (void *)(uintptr_t)chain.operands.weights, bytes / 2, -0.1f, 0.1f, 2, &error));
    chain.operands.workspace = get(gpu, chain.plan->workspace_bytes);
    done(device_fill(gpu, chain.operands.workspace, 0, chain.plan->workspace_bytes, &error));
    return chain;
}

/* x of the chain from its start to its end: by a graph, or call by call without one. */
static void run_chain(struct chain *chain, const struct device_graph *graph, uint16_t *result, size_t bytes) {
    void *x = (void *)(uintptr_t)chain->operands.x;
    done(reference_fill_half(gpu, x, bytes / 2, -1, 1, 1, &error));
    done(graph ? device_graph_launch(gpu, graph, &error) : enqueue_chain(chain, &error));
    done(device_read(gpu, result, x, bytes, &error));
}

static void graphs_repeat_calls(void **state) {
    (void)state;
    static uint16_t expected[16 * 256], result[16 * 256], start[16 * 256];
    struct chain chain = make_chain();
    done(reference_fill_half(cpu, start, 16 * 256, -1, 1, 1, &error));
    run_chain(&chain, NULL, expected, sizeof expected);
    assert_memory_not_equal(expected, start, sizeof start);
    for (int overlap = 0; overlap < 2; overlap++) {
        struct device_graph *graph;
        device_overlap(gpu, overlap ? OVERLAP_WEIGHTS : OVERLAP_NOTHING);
        done(device_graph_record(gpu, enqueue_chain, &chain, &graph, &error));
        device_overlap(gpu, OVERLAP_NOTHING);
        for (int launch = 0; launch < 2; launch++) {
            run_chain(&chain, graph, result, sizeof result);
            assert_memory_equal(result, expected, sizeof result);
        }
        device_graph_destroy(gpu, graph);
    }
    plan_destroy(chain.plan);
    free_operands(gpu, &chain.operands);
}

static void broken_recordings_leave_nothing(void **state) {
    (void)state;
    static uint16_t expected[16 * 256], result[16 * 256];
    struct chain chain = make_chain();
    struct device_graph *graph;
    run_chain(&chain, NULL, expected, sizeof expected);
    chain.broken = true;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(device_graph_record(gpu, enqueue_chain, &chain, &graph, &error), -1);
        assert_null(graph);
        assert_string_equal(error.text, "waiting for the GPU: not while a graph is recorded");
    }
    chain.broken = false;
    run_chain(&chain, NULL, result, sizeof result);
    assert_memory_equal(result, expected, sizeof result);
    done(device_graph_record(gpu, enqueue_chain, &chain, &graph, &error));
    device_graph_destroy(gpu, graph);
    plan_destroy(chain.plan);
    free_operands(gpu, &chain.operands);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describes_itself),        cmocka_unit_test(moves_bytes),
        cmocka_unit_test(says_what_was_free),      cmocka_unit_test(keeps_functions),
        cmocka_unit_test(threads_share_functions), cmocka_unit_test(bad_launches_are_errors),
        cmocka_unit_test(events_measure),          cmocka_unit_test(kernels_reach_the_hosts_memory),
        cmocka_unit_test(fills_are_the_same_bits), cmocka_unit_test(references_agree),
        cmocka_unit_test(comparisons_agree),       cmocka_unit_test(cublaslt_is_right),
        cmocka_unit_test(graphs_repeat_calls),     cmocka_unit_test(broken_recordings_leave_nothing),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
