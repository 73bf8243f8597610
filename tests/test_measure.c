#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#include "bench/cupti.h"
#include "bench/measure.h"
#include "bench/progress.h"

/* --- the interval of the median --- */

static void check_interval(int count, int expected_low, int expected_high) {
    int low, high;
    assert_int_equal(median_interval(count, &low, &high), 0);
    assert_int_equal(low + 1, expected_low);
    assert_int_equal(high + 1, expected_high);
}

/* Ranks from 1, as statistical tables print them. */
static void known_intervals(void **state) {
    (void)state;
    check_interval(6, 1, 6);
    check_interval(8, 1, 8);
    check_interval(9, 2, 8);
    check_interval(10, 2, 9);
    check_interval(20, 6, 15);
    check_interval(30, 10, 21);
    check_interval(50, 18, 33);
    check_interval(100, 40, 61);
    check_interval(1000, 469, 532);
}

static void no_interval(void **state) {
    (void)state;
    for (int count = 1; count < 6; count++) {
        int low, high;
        assert_int_equal(median_interval(count, &low, &high), -1);
        assert_int_equal(low, 0);
        assert_int_equal(high, count - 1);
    }
}

/* --- the stopping rule, with samples made here --- */

static const struct measure_options options = {
    .min_samples = 10, .max_samples = 600, .interval = 0.01, .max_seconds = 1e9};

struct source {
    const float *cycle;
    int length, next, fail_at;
};

static int take(void *context, int count, struct measure_sample *samples, struct error *error) {
    struct source *source = context;
    for (int i = 0; i < count; i++) {
        if (source->fail_at && source->next == source->fail_at) return error_set(error, "failed on purpose");
        float us = source->cycle[source->next++ % source->length];
        samples[i] = (struct measure_sample){us, us + 1, us + 2, us + 3};
    }
    return 0;
}

static struct measurement run(const struct measure_options *with, const float *cycle, int length) {
    struct source source = {.cycle = cycle, .length = length};
    struct measurement m;
    struct error error = {""};
    if (measure_with(take, &source, 1, with, &m, &error)) fail_msg("%s", error.text);
    return m;
}

static void stops_by_interval(void **state) {
    (void)state;
    struct measurement m = run(&options, (float[]){100, 100.2f, 99.9f, 100.1f}, 4);
    assert_string_equal(m.stop, "interval");
    assert_in_range(m.samples, 10, 600);
    assert_true(m.low_us <= m.median_us && m.median_us <= m.high_us);
    assert_true(m.high_us - m.low_us <= 0.01 * m.median_us);
    measurement_free(&m);
}

static void stops_by_samples(void **state) {
    (void)state;
    struct measure_options few = options;
    few.max_samples = 40;
    struct measurement m = run(&few, (float[]){50, 150, 60, 140, 100}, 5);
    assert_string_equal(m.stop, "samples");
    assert_int_equal(m.samples, 40);
    measurement_free(&m);
}

static void stops_by_time(void **state) {
    (void)state;
    struct measure_options hasty = options;
    hasty.max_seconds = 0;
    struct measurement m = run(&hasty, (float[]){50, 150, 60, 140, 100}, 5);
    assert_string_equal(m.stop, "time");
    assert_in_range(m.samples, 6, 600);
    measurement_free(&m);
}

static void stops_by_noise(void **state) {
    (void)state;
    struct measure_options many = options;
    many.max_samples = 100000;
    struct measurement m = run(&many, (float[]){50, 150}, 2);
    assert_string_equal(m.stop, "noise");
    assert_in_range(m.samples, 256, 99999);
    measurement_free(&m);
}

/* As soon as the interval says so; while the clock is unsettled only what is a quarter slower. */
static void stops_when_beaten(void **state) {
    (void)state;
    struct measure_options racing = options;
    racing.min_samples = 500;
    racing.beaten_us = 90;
    struct measurement m = run(&racing, (float[]){99, 101, 100}, 3);
    assert_string_equal(m.stop, "beaten");
    assert_in_range(m.samples, 6, 499);
    assert_true(m.low_us > 90);
    measurement_free(&m);
    racing.beaten_us = 99.5; /* the interval is not above it until many samples are there */
    m = run(&racing, (float[]){99, 101, 100}, 3);
    assert_true(m.samples > 6 && m.low_us > 99.5);
    measurement_free(&m);
    racing.beaten_us = 101;
    m = run(&racing, (float[]){99, 101, 100}, 3);
    assert_string_equal(m.stop, "interval");
    measurement_free(&m);
    racing.beaten_us = 70;
    racing.warmup_seconds = 1e9;
    m = run(&racing, (float[]){99, 101, 100}, 3);
    assert_string_equal(m.stop, "beaten");
    assert_true(m.samples >= 6 && m.samples < 110 && m.sample_us[0] > 98);
    assert_true(m.span_us == m.median_us + 1);
    measurement_free(&m);
}

static void keeps_every_sample(void **state) {
    (void)state;
    struct measure_options ten = options;
    ten.max_samples = 10;
    struct measurement m = run(&ten, (float[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 10);
    bool seen[10] = {false};
    assert_int_equal(m.samples, 10);
    for (int i = 0; i < 10; i++) seen[(int)m.sample_us[i] - 1] = true;
    for (int i = 0; i < 10; i++) assert_true(seen[i]);
    assert_float_equal(m.median_us, 5.5, 1e-6);
    assert_float_equal(m.p20_us, 2, 1e-6);
    assert_float_equal(m.p80_us, 8, 1e-6);
    assert_float_equal(m.min_us, 1, 1e-6);
    assert_float_equal(m.low_us, 2, 1e-6);
    assert_float_equal(m.high_us, 9, 1e-6);
    assert_float_equal(m.span_us, 6.5, 1e-6);
    assert_float_equal(m.batch_us, 7.5, 1e-6);
    assert_float_equal(m.event_us, 8.5, 1e-6);
    measurement_free(&m);
    assert_null(m.sample_us);
}

struct work {
    double all, longest; /* seconds: of all batches, of one */
};

/* Samples that take a millisecond each, or more. */
static int take_slowly(void *context, int count, struct measure_sample *samples, struct error *error) {
    struct work *work = context;
    double start = progress_now();
    (void)error;
    for (int i = 0; i < count; i++) samples[i] = (struct measure_sample){.us = 1000};
    usleep(1000 * (useconds_t)count);
    double took = progress_now() - start;
    work->all += took;
    work->longest = fmax(work->longest, took);
    return 0;
}

/* At a quarter of the time every second of samples is followed by three of rest, but the last batch of each phase. */
static void rests_between_batches(void **state) {
    (void)state;
    struct measure_options paced = options;
    struct measurement m;
    struct error error = {""};
    struct work work = {0, 0};
    double start = progress_now();
    paced.min_seconds = 0.2;
    paced.max_seconds = 0.4;
    paced.pace = 0.25;
    if (measure_with(take_slowly, &work, 1, &paced, &m, &error)) fail_msg("%s", error.text);
    assert_true(progress_now() - start >= work.all + 3 * (work.all - 2 * work.longest));
    assert_true(m.pace == 0.25 && m.samples >= 10);
    measurement_free(&m);
}

static void passes_errors_on(void **state) {
    (void)state;
    for (int fail_at = 1; fail_at < 20; fail_at += 6) {
        struct source source = {.cycle = (float[]){1, 9, 3}, .length = 3, .fail_at = fail_at};
        struct measurement m;
        struct error error = {""};
        assert_int_equal(measure_with(take, &source, 1, &options, &m, &error), -1);
        assert_string_equal(error.text, "failed on purpose");
        assert_null(m.sample_us);
    }
}

/* --- CUPTI's records --- */

/* Two kernels a sample, 3 us and 5 us with 2 us between them. */
static void log_sample(struct cupti_log *log, uint64_t sample, uint32_t correlation, uint64_t start) {
    cupti_log_tag(log, correlation, sample);
    cupti_log_kernel(log, correlation, start, start + 3000, "gemm");
    cupti_log_tag(log, correlation + 1, sample);
    cupti_log_kernel(log, correlation + 1, start + 5000, start + 10000, "reduce");
}

static void sums_and_spans(void **state) {
    (void)state;
    struct cupti_log log = {0};
    struct cupti_sample samples[2];
    struct error error = {""};
    log_sample(&log, 7, 100, 1000000);
    log_sample(&log, 8, 102, 2000000);
    log_sample(&log, 9, 104, 3000000); /* not asked for */
    cupti_log_kernel(&log, 90, 500, 600, "untagged");
    assert_int_equal(cupti_log_samples(&log, 7, 2, samples, &error), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(samples[i].kernels, 2);
        assert_float_equal(samples[i].sum_us, 8, 1e-9);
        assert_float_equal(samples[i].span_us, 10, 1e-9);
        assert_true(samples[i].start == 1000000u * (unsigned)(i + 1) && samples[i].end == samples[i].start + 10000);
    }
    assert_true(samples[0].names == samples[1].names);
    assert_int_equal(log.kernel_count, 0);
    assert_int_equal(log.tag_count, 0);
    cupti_log_free(&log);
}

static void order_does_not_matter(void **state) {
    (void)state;
    struct cupti_log log = {0};
    struct cupti_sample sorted[2], shuffled[2];
    struct error error = {""};
    log_sample(&log, 0, 10, 1000);
    log_sample(&log, 1, 12, 50000);
    assert_int_equal(cupti_log_samples(&log, 0, 2, sorted, &error), 0);
    cupti_log_kernel(&log, 13, 55000, 60000, "reduce");
    cupti_log_kernel(&log, 10, 1000, 4000, "gemm");
    cupti_log_tag(&log, 13, 1);
    cupti_log_tag(&log, 11, 0);
    cupti_log_kernel(&log, 12, 50000, 53000, "gemm");
    cupti_log_tag(&log, 10, 0);
    cupti_log_kernel(&log, 11, 6000, 11000, "reduce");
    cupti_log_tag(&log, 12, 1);
    assert_int_equal(cupti_log_samples(&log, 0, 2, shuffled, &error), 0);
    for (int i = 0; i < 2; i++) {
        assert_float_equal(shuffled[i].sum_us, 8, 1e-9);
        assert_float_equal(shuffled[i].span_us, 10, 1e-9);
        assert_true(shuffled[i].names == sorted[i].names);
    }
    cupti_log_free(&log);
}

static void many_records(void **state) {
    (void)state;
    enum { COUNT = 3000 };
    static struct cupti_sample samples[COUNT];
    struct cupti_log log = {0};
    struct error error = {""};
    for (uint32_t i = 0; i < COUNT; i++) log_sample(&log, i, 2 * (COUNT - i), 1000 + 20000 * i);
    assert_int_equal(cupti_log_samples(&log, 0, COUNT, samples, &error), 0);
    assert_float_equal(samples[COUNT - 1].span_us, 10, 1e-9);
    cupti_log_free(&log);
}

static void check_refused(struct cupti_log *log, int count, const char *message) {
    struct cupti_sample samples[4];
    struct error error = {""};
    assert_int_equal(cupti_log_samples(log, 0, count, samples, &error), -1);
    assert_non_null(strstr(error.text, message));
    log_sample(log, 0, 1, 1000); /* what was refused is gone */
    assert_int_equal(cupti_log_samples(log, 0, 1, samples, &error), 0);
    cupti_log_free(log);
}

static void missing_record(void **state) {
    (void)state;
    struct cupti_log log = {0};
    log_sample(&log, 0, 10, 1000);
    cupti_log_tag(&log, 12, 1);
    check_refused(&log, 2, "sample 2 of 2 has no kernel record");
}

static void missing_tag(void **state) {
    (void)state;
    struct cupti_log log = {0};
    cupti_log_kernel(&log, 10, 1000, 2000, "gemm");
    check_refused(&log, 1, "sample 1 of 1 has no kernel record");
}

static void dropped_records(void **state) {
    (void)state;
    struct cupti_log log = {.lost = 3};
    log_sample(&log, 0, 10, 1000);
    check_refused(&log, 1, "3 records were dropped");
}

static void zero_time(void **state) {
    (void)state;
    static const uint64_t times[][2] = {{0, 0}, {0, 500}, {1000, 0}, {1000, 1000}, {1000, 999}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        struct cupti_log log = {0};
        cupti_log_tag(&log, 10, 0);
        cupti_log_kernel(&log, 10, times[i][0], times[i][1], "gemm");
        check_refused(&log, 1, "has no time");
    }
}

static void other_kernels(void **state) {
    (void)state;
    struct cupti_log log = {0};
    log_sample(&log, 0, 10, 1000);
    cupti_log_tag(&log, 12, 1);
    cupti_log_kernel(&log, 12, 30000, 33000, "gemm");
    check_refused(&log, 2, "other kernels than the first (1 and 2)");
    log_sample(&log, 0, 10, 1000);
    cupti_log_tag(&log, 12, 1);
    cupti_log_kernel(&log, 12, 30000, 33000, "gemm");
    cupti_log_tag(&log, 13, 1);
    cupti_log_kernel(&log, 13, 34000, 35000, "other");
    check_refused(&log, 2, "other kernels than the first (2 and 2)");
}

/* --- regimes --- */

/* `calls` calls of two kernels in one graph: all records have the correlation id of its launch, and each kernel starts
 * 1 us before the one ahead ends. */
static void log_graph(struct cupti_log *log, uint64_t sample, uint32_t correlation, uint64_t start, int calls) {
    cupti_log_tag(log, correlation, sample);
    for (int i = 0; i < 2 * calls; i++, start += 2000)
        cupti_log_kernel(log, correlation, start, start + 3000, i % 2 ? "reduce" : "gemm");
}

static void graphs_are_shared_out(void **state) {
    (void)state;
    enum { CALLS = 20 };
    struct cupti_log log = {0};
    struct cupti_sample graphs[2];
    struct measure_sample share;
    struct error error = {""};
    log_graph(&log, 4, 70, 1000, CALLS);
    log_graph(&log, 5, 71, 900000, CALLS);
    assert_int_equal(cupti_log_samples(&log, 4, 2, graphs, &error), 0);
    cupti_log_free(&log);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(graphs[i].kernels, 2 * CALLS);
        assert_int_equal(measure_share(&graphs[i], CALLS, false, &share, &error), 0);
        assert_float_equal(share.us, 6, 1e-5);
        assert_float_equal(share.span_us, 4.05, 1e-5);
        assert_int_equal(measure_share(&graphs[i], CALLS, true, &share, &error), 0);
        assert_float_equal(share.us, 4.05, 1e-5);
        assert_float_equal(share.span_us, 4.05, 1e-5);
    }
    graphs[0].kernels--;
    assert_int_equal(measure_share(&graphs[0], CALLS, true, &share, &error), -1);
    assert_string_equal(error.text, "cupti: 39 kernel records of a graph of 20 calls: some are missing");
}

static void graphs_that_lack_a_record(void **state) {
    (void)state;
    struct cupti_log log = {0};
    log_graph(&log, 0, 70, 1000, 3);
    log_graph(&log, 1, 71, 90000, 2);
    check_refused(&log, 2, "other kernels than the first (4 and 6)");
}

static void graphs_rotate_over_the_copies(void **state) {
    (void)state;
    for (int copies = 1; copies <= 100; copies++) {
        int calls = measure_graph_calls(copies);
        assert_true(calls >= 20 && calls % copies == 0 && calls - copies < 20);
    }
}

static void regimes_by_name(void **state) {
    (void)state;
    struct error error = {""};
    struct device *device;
    enum regime regime;
    for (enum regime r = REGIME_STREAM; r <= REGIME_PDL; r++) {
        assert_int_equal(regime_parse(regime_name(r), &regime, &error), 0);
        assert_int_equal(regime, r);
    }
    assert_int_equal(regime_parse("streams", &regime, &error), -1);
    assert_string_equal(error.text, "unknown regime 'streams'; accepted: stream, graph, pdl");
    if (device_open("cpu", &device, &error)) fail_msg("%s", error.text);
    assert_int_equal(regime_check(REGIME_STREAM, device, &error), 0);
    assert_int_equal(regime_check(REGIME_PDL, device, &error), -1);
    assert_string_equal(error.text, "device cpu has no graphs: regime pdl needs cuda:N; accepted here: stream");
    device_close(device);
    struct device ada = {.backend = BACKEND_CUDA, .id = "cuda:0", .compute_capability = 89};
    assert_int_equal(regime_check(REGIME_GRAPH, &ada, &error), 0);
    assert_int_equal(regime_check(REGIME_PDL, &ada, &error), -1);
    assert_string_equal(error.text,
                        "regime pdl needs compute capability 9.0; cuda:0 has 8.9; accepted here: stream, graph");
    ada.compute_capability = 90;
    assert_int_equal(regime_check(REGIME_PDL, &ada, &error), 0);
}

/* --- the state of the card --- */

static void reasons_by_name(void **state) {
    (void)state;
    char text[NVML_REASONS];
    assert_string_equal(nvml_reasons(0, text), "none");
    assert_string_equal(nvml_reasons(0x1, text), "idle");
    assert_string_equal(nvml_reasons(0x8c, text), "software power cap, hardware slowdown, power brake");
    assert_string_equal(nvml_reasons(0x162, text),
                        "application clocks, software thermal slowdown, hardware thermal slowdown, display clocks");
    assert_string_equal(nvml_reasons(0x10, text), "sync boost");
    assert_string_equal(nvml_reasons(0x4200, text), "0x4200");
    assert_string_equal(nvml_reasons(0x201, text), "idle, 0x200");
    assert_true(strlen(nvml_reasons(~0ull, text)) < NVML_REASONS - 1);
    assert_non_null(strstr(text, ", 0xfffffffffffffe00"));
}

static void impairments(void **state) {
    (void)state;
    static const unsigned long long healthy[] = {0, 0x1, 0x2, 0x4, 0x10, 0x100, 0x117, 0x200};
    static const unsigned long long impaired[] = {0x8, 0x20, 0x40, 0x80};
    for (size_t i = 0; i < sizeof healthy / sizeof *healthy; i++) assert_true(nvml_impairment(healthy[i]) == 0);
    for (size_t i = 0; i < sizeof impaired / sizeof *impaired; i++)
        assert_true(nvml_impairment(impaired[i] | 0x5) == impaired[i]);
}

static void state_in_words(void **state) {
    (void)state;
    char text[NVML_STATE];
    struct gpu_state card = {1980, 2619, 34, 150.4, 0x8c}, all = {1980, 2619, 34, 150.4, ~0ull}, none = {0};
    assert_string_equal(nvml_state_text(&card, text), "sm 1980 MHz, memory 2619 MHz, 150 W, 34 C, throttle software "
                                                      "power cap, hardware slowdown, power brake");
    assert_true(strlen(nvml_state_text(&all, text)) < NVML_STATE - 1);
    assert_string_equal(nvml_state_text(&none, text), "unknown");
}

static void watch_counts(void **state) {
    (void)state;
    static const unsigned long long reasons[] = {0, 0x4, 0x8c, 0x1, 0x40, 0x8c};
    struct nvml_watch watch = {0};
    for (size_t i = 0; i < 6; i++) assert_int_equal(nvml_watch(&watch, reasons[i]), i == 2);
    assert_int_equal(watch.measured, 6);
    assert_int_equal(watch.impaired, 3);
    assert_true(watch.reasons == 0xc8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_intervals),
        cmocka_unit_test(no_interval),
        cmocka_unit_test(stops_by_interval),
        cmocka_unit_test(stops_by_samples),
        cmocka_unit_test(stops_by_time),
        cmocka_unit_test(stops_by_noise),
        cmocka_unit_test(stops_when_beaten),
        cmocka_unit_test(keeps_every_sample),
        cmocka_unit_test(rests_between_batches),
        cmocka_unit_test(passes_errors_on),
        cmocka_unit_test(sums_and_spans),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(many_records),
        cmocka_unit_test(missing_record),
        cmocka_unit_test(missing_tag),
        cmocka_unit_test(dropped_records),
        cmocka_unit_test(zero_time),
        cmocka_unit_test(other_kernels),
        cmocka_unit_test(reasons_by_name),
        cmocka_unit_test(impairments),
        cmocka_unit_test(state_in_words),
        cmocka_unit_test(watch_counts),
        cmocka_unit_test(graphs_are_shared_out),
        cmocka_unit_test(graphs_that_lack_a_record),
        cmocka_unit_test(graphs_rotate_over_the_copies),
        cmocka_unit_test(regimes_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
