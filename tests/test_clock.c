/* The clocks of a GPU on streams of records that a library in CUPTI's place makes: whole, damaged, or refused to us. */
#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/cbench.h"
#include "bench/rows.h"
#include "bench/samples.h"
#include "bench/states.h"
#include "bench/sweep.h"
#include "tests/fake/fake.h"
#include "tests/fake/load.h"

static struct fake_cupti *cupti;
static struct fake_nvml *nvml;
static useconds_t launch_takes;

/* --- a device without a GPU: launching a graph makes records --- */

static int mark(struct device *device, int which, struct error *error) {
    (void)device, (void)which, (void)error;
    return 0;
}

static int elapsed(struct device *device, int from, int to, double *microseconds, struct error *error) {
    (void)device, (void)from, (void)to, (void)error;
    *microseconds = 40;
    return 0;
}

static int synchronize(struct device *device, struct error *error) {
    (void)device, (void)error;
    return 0;
}

static int graph_launch(struct device *device, const struct device_graph *graph, struct error *error) {
    (void)device, (void)graph, (void)error;
    if (launch_takes) usleep(launch_takes);
    cupti->launch();
    return 0;
}

static const struct device_functions functions = {
    .mark = mark, .elapsed = elapsed, .synchronize = synchronize, .graph_launch = graph_launch};
static struct device device = {.backend = BACKEND_CUDA, .id = "cuda:0", .uuid = "GPU-1", .functions = &functions};

static int run(struct measurement *m, struct error *error) {
    struct measure_options options = {.min_samples = 6, .max_samples = 60, .max_seconds = 10, .interval = 0.001};
    if (launch_takes) options.min_samples = 40;
    static const char graph; /* nobody looks into it */
    return measure_graph(&device, (const struct device_graph *)&graph, REGIME_GRAPH, &options, m, error);
}

/* CUPTI is attached to once a process, so that each case has one of its own. Its exit code must be 0. */
static void in_child(int (*scenario)(void *), void *data) {
    int status;
    if (!cupti || !nvml) skip();
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO); /* a sweep's table */
        _exit(scenario(data));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- streams of records --- */

/* Of a graph the span is its time: 17 us. */
static int whole_stream(void *reversed) {
    struct measurement m;
    struct error error = {""};
    cupti->reversed = reversed != NULL;
    if (run(&m, &error)) return fprintf(stderr, "%s\n", error.text);
    bool exact = m.median_us > 16.999 && m.median_us < 17.001 && m.min_us > 16.999 && m.high_us < 17.001;
    bool cupti_is_clock = !strcmp(m.clock, "cupti") && !strcmp(cupti_version(), "cupti 13.0");
    measurement_free(&m);
    return exact && cupti_is_clock && cupti->subscribed == 1 && cupti->enabled == 4 ? 0 : 1;
}

static void streams_are_timed(void **state) {
    (void)state;
    in_child(whole_stream, NULL);
    in_child(whole_stream, "reversed");
}

struct damage {
    enum fake_fault fault;
    uint64_t drops;
    const char *says;
};

/* An error, and not a smaller or another sample; the next measurement is sound again. */
static int damaged_stream(void *data) {
    const struct damage *damage = data;
    struct measurement m;
    struct error error = {""};
    cupti->fault = damage->fault;
    cupti->drops = damage->drops;
    if (!run(&m, &error)) return 1;
    if (!strstr(error.text, damage->says)) return fprintf(stderr, "'%s' lacks '%s'\n", error.text, damage->says);
    if (m.samples || m.sample_us || m.states) return 2;
    if (run(&m, &error)) return fprintf(stderr, "the next: %s\n", error.text);
    bool sound = !strcmp(m.clock, "cupti") && m.median_us > 16.999 && m.median_us < 17.001;
    measurement_free(&m);
    return sound ? 0 : 3;
}

static void damage_is_an_error(void **state) {
    (void)state;
    static struct damage cases[] = {
        {FAULT_MISSING, 0, "the kernels of a call changed"},
        {FAULT_UNTAGGED, 0, "has no kernel record"},
        {FAULT_ZERO, 0, "a kernel record has no time"},
        {FAULT_OTHER, 0, "the kernels of a call changed"},
        {FAULT_LATE, 0, "has no kernel record"},
        {FAULT_NONE, 7, "7 records were dropped"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) in_child(damaged_stream, &cases[i]);
}

/* --- another tool holds CUPTI --- */

static char folder[] = "/tmp/tilebook-clock-XXXXXX";

static FILE *create(const char *name) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return fopen(path, "w");
}

static void report_measured(struct cbench_state *state, void *data) {
    struct measurement m;
    struct error error;
    while (cbench_keep_running(state)) {
        if (run(&m, &error)) {
            cbench_skip_with_error(state, error.text);
            break;
        }
        sweep_report(state, data, &m, 1e-4);
        measurement_free(&m);
    }
}

/* Three points with the figures of the device above, in every output that a sweep has. */
static int sweep_while_held(void *data) {
    struct sweep_options options = {
        .ops = "fp16_gemm", .shapes = "128x64,64x64,64x128", .m = "1", .group = -1, .seed = 1};
    char out[160], path[128], program[] = "test", format[] = "--benchmark_out_format=json";
    char *argv[] = {program, out, format, NULL};
    int argc = 3;
    struct device *cpu;
    struct sweep *sweep;
    struct error error;
    (void)data;
    cupti->held = true;
    snprintf(out, sizeof out, "--benchmark_out=%s/held.json", folder);
    snprintf(path, sizeof path, "%s/report.csv", folder);
    if (device_open("cpu", &cpu, &error) || sweep_create(cpu, &options, NULL, &sweep, &error)) return 1;
    sweep->ceilings = (struct ceilings){1, 1, 1, {0}};
    sweep->words = stderr;
    sweep->csv = create("rows.csv");
    sweep->samples = create("held.json.samples");
    if (rows_open(path, &sweep->report, &error)) return 2;
    for (int i = 0; i < 3; i++) cbench_register(sweep->points[i].name, report_measured, &sweep->points[i]);
    cbench_initialize(&argc, argv);
    if (cbench_run() != 3 || fclose(sweep->csv) || fclose(sweep->samples) || fclose(sweep->report)) return 3;
    sweep_destroy(sweep);
    device_close(cpu);
    return cupti_open(&error) && strstr(error.text, "cupti: attaching: another tool is attached") ? 0 : 4;
}

/* Lines of a file that have this text. */
static int count_lines(const char *name, const char *text) {
    char path[128], *line = NULL;
    size_t room = 0;
    int count = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (getline(&line, &room, file) > 0) count += strstr(line, text) != NULL;
    free(line);
    fclose(file);
    return count;
}

static void every_row_says_that_events_are_the_clock(void **state) {
    (void)state;
    in_child(sweep_while_held, NULL);
    assert_int_equal(count_lines("held.json", "clock=events"), 3);
    assert_int_equal(count_lines("held.json", "clock="), 3);
    assert_int_equal(count_lines("rows.csv", ",events"), 3);
    assert_int_equal(count_lines("report.csv", " events,fp16_gemm/"), 3);
    assert_int_equal(count_lines("held.json.samples", "/m:1/"), 3);
    assert_int_equal(count_lines("held.json.samples", " events "), 3);
}

/* What was begun when CUPTI turned out not to work is undone: the process is as if nobody had attached. */
static int half_attached(void *kind) {
    struct measurement m;
    struct error error = {""};
    cupti->refuses = (int)(intptr_t)kind;
    if (run(&m, &error)) return fprintf(stderr, "%s\n", error.text);
    bool events = !strcmp(m.clock, "events") && m.median_us == 40;
    measurement_free(&m);
    return events && !cupti->subscribed && !cupti->enabled && !cupti->flushes ? 0 : 1;
}

static void half_an_attachment_is_undone(void **state) {
    (void)state;
    in_child(half_attached, (void *)(intptr_t)10); /* CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL */
}

/* --- the card beside the samples --- */

static bool is_state(const struct measure_state *found, int mhz, unsigned long long throttle) {
    const struct gpu_state *card = &found->card;
    return card->sm_mhz == mhz && card->memory_mhz == 2619 && card->celsius == 58 && card->watts == 351.5 &&
           card->throttle == throttle && found->unix_s > 1.7e9;
}

/* The file of the states holds what the measurement does. */
static bool are_kept(const struct measurement *m) {
    char path[128];
    struct states states;
    struct error error;
    FILE *file = create("states");
    fputs(STATES_HEADER "\n", file);
    states_put(file, "a/point", m);
    states_put(file, "none", &(struct measurement){.samples = 1});
    fclose(file);
    snprintf(path, sizeof path, "%s/states", folder);
    if (states_read(path, &states, &error)) return false;
    bool same = states.count == 1 && states.rows[0].count == m->state_count && !strcmp(states.rows[0].name, "a/point");
    for (int i = 0; same && i < m->state_count; i++) {
        const struct measure_state *kept = &states.rows[0].list[i];
        double apart = kept->unix_s - m->states[i].unix_s;
        same = is_state(kept, m->states[i].card.sm_mhz, m->states[i].card.throttle) && apart < 0.01 && apart > -0.01;
    }
    states_free(&states);
    return same;
}

/* Forty launches of 10 ms: more than three tenths of a second. */
static int watch(void *data) {
    struct measurement m;
    struct error error = {""};
    (void)data;
    launch_takes = 10000;
    nvml->slow_from = 20;
    if (run(&m, &error)) return fprintf(stderr, "%s\n", error.text);
    bool apart = m.state_count >= 3;
    for (int i = 1; i < m.state_count; i++) apart &= m.states[i].unix_s > m.states[i - 1].unix_s + 0.05;
    bool right = apart && is_state(&m.states[0], 1980, 0x4) && is_state(&m.states[m.state_count - 1], 1200, 0x8);
    right &= m.throttle == 0xc && m.sm_mhz == 1200 && are_kept(&m);
    measurement_free(&m);
    return right ? 0 : 1;
}

static void states_are_kept(void **state) {
    (void)state;
    in_child(watch, NULL);
}

static void bad_states_are_refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "the file is empty"},
        {"# other\n", "line 1: it is not '# tilebook states 1"},
        {STATES_HEADER "\na 1 1.5,1,2,3.5,4,8", "line 2: it is cut off"},
        {STATES_HEADER "\na\n", "line 2: expected NAME N"},
        {STATES_HEADER "\na 0 1.5,1,2,3.5,4,8\n", "line 2: expected NAME N"},
        {STATES_HEADER "\na 2 1.5,1,2,3.5,4,8\n", "line 2: it has fewer states"},
        {STATES_HEADER "\na 1 1.5,1,2,3.5,4,8 1.6,1,2,3.5,4,8\n", "line 2: it has more states"},
        {STATES_HEADER "\na 1 1.5,1,2,3.5,4,none\n", "line 2: a state is not SECONDS,SM"},
        {STATES_HEADER "\na 999999999 1.5,1,2,3.5,4,8\n", "line 2: it has fewer states"},
    };
    char path[128];
    snprintf(path, sizeof path, "%s/bad", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct states states;
        struct error error;
        FILE *file = create("bad");
        fputs(cases[i][0], file);
        fclose(file);
        assert_int_equal(states_read(path, &states, &error), -1);
        if (!strstr(error.text, cases[i][1])) fail_msg("'%s' lacks '%s'", error.text, cases[i][1]);
        states_free(&states);
    }
}

static int set_up(void **state) {
    (void)state;
    cupti = fake_load("libcupti.so.13");
    nvml = fake_load("libnvidia-ml.so.1");
    if (!cupti) print_message("skip: built without the CUDA Toolkit\n");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* --- memory that others hold --- */

static int memory_is_told(void *data) {
    struct gpu_use use;
    char text[NVML_USE];
    (void)data;
    if (!nvml_use(&device, &use) || use.used || use.count) return 1;
    nvml->used = 5ull << 29;
    if (!nvml_use(&device, &use) || use.used != (size_t)5 << 29) return 2;
    return strcmp(nvml_use_text(&device, &use, text),
                  "2.50 GiB of cuda:0 are in use: process 4242 (1.50 GiB), process 77")
               ? fprintf(stderr, "%s\n", text)
               : 0;
}

static void who_holds_memory_is_told(void **state) {
    (void)state;
    in_child(memory_is_told, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_are_timed),
        cmocka_unit_test(damage_is_an_error),
        cmocka_unit_test(every_row_says_that_events_are_the_clock),
        cmocka_unit_test(half_an_attachment_is_undone),
        cmocka_unit_test(states_are_kept),
        cmocka_unit_test(bad_states_are_refused),
        cmocka_unit_test(who_holds_memory_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
