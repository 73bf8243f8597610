#include "bench/measure.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/nvtx.h"

const struct measure_options measure_thorough = {.warmup_seconds = 0.1,
                                                 .min_seconds = 0.3,
                                                 .max_seconds = 3,
                                                 .min_samples = 30,
                                                 .max_samples = 20000,
                                                 .interval = 0.01};
const struct measure_options measure_quick = {.warmup_seconds = 0.02,
                                              .min_seconds = 0.02,
                                              .max_seconds = 0.3,
                                              .min_samples = 10,
                                              .max_samples = 2000,
                                              .interval = 0.02};

enum {
    LEAST_SAMPLES = 6, /* fewer give no interval */
    MOST_IN_BATCH = 500,
    NOISE_SAMPLES = 64, /* from here on each doubling must narrow the interval */
    GRAPH_CALLS = 20,   /* in a graph, at least: the first and last one differ from those between */
};
static const double batch_seconds = 0.01;    /* of calls, between two looks at the interval */
static const double settled = 0.02;          /* medians of two batches in a row differ by less */
static const double warmup_patience = 5;     /* times the least warm-up */
static const double unsettled_slack = 1.25;  /* of beaten_us, before the clock has settled */
static const double noise_shrink = 0.95;     /* independent samples would give 0.71 */
static const double monotonic_least_us = 20; /* a sample covers at least this much: the clock's own cost is 0.05 */
static const double events_least_us = 200;   /* the same for events, whose resolution is 0.5 */
static const double states_apart = 0.1;      /* seconds; NVML's own figures are hardly newer */

double measure_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* --- regimes --- */

static const char *const regimes[] = {[REGIME_STREAM] = "stream", [REGIME_GRAPH] = "graph", [REGIME_PDL] = "pdl"};

const char *regime_name(enum regime regime) {
    return regimes[regime];
}

int regime_parse(const char *text, enum regime *regime, struct error *error) {
    for (size_t i = 0; i < sizeof regimes / sizeof *regimes; i++)
        if (!strcmp(text, regimes[i])) {
            *regime = (enum regime)i;
            return 0;
        }
    return error_set(error, "unknown regime '%s'; accepted: stream, graph, pdl", text);
}

int regime_check(enum regime regime, const struct device *device, struct error *error) {
    if (regime == REGIME_STREAM) return 0;
    if (device->backend != BACKEND_CUDA)
        return error_set(error, "device %s has no graphs: regime %s needs cuda:N; accepted here: stream", device->id,
                         regime_name(regime));
    if (regime == REGIME_GRAPH || device->compute_capability >= 90) return 0;
    return error_set(error, "regime %s needs compute capability 9.0; %s has %d.%d; accepted here: stream, graph",
                     regime_name(regime), device->id, device->compute_capability / 10, device->compute_capability % 10);
}

int measure_graph_calls(int copies) {
    return (GRAPH_CALLS + copies - 1) / copies * copies;
}

int measure_share(const struct cupti_sample *records, int calls, bool by_span, struct measure_sample *sample,
                  struct error *error) {
    if (records->kernels % calls)
        return error_set(error, "cupti: %d kernel records of a graph of %d calls: some are missing", records->kernels,
                         calls);
    double us = by_span ? records->span_us : records->sum_us;
    *sample = (struct measure_sample){.us = (float)(us / calls), .span_us = (float)(records->span_us / calls)};
    return 0;
}

/* --- order statistics --- */

int median_interval(int count, int *low, int *high) {
    double below = 0; /* P(Binomial(count, 1/2) <= rank) */
    *low = 0;
    *high = count - 1;
    for (int rank = 0; rank < count; rank++) {
        below += exp(lgamma(count + 1.0) - lgamma(rank + 1.0) - lgamma(count - rank + 1.0) - count * log(2));
        if (below > 0.025) return rank ? 0 : -1;
        *low = rank;
        *high = count - 1 - rank;
    }
    return -1;
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void measure_sort(float *values, int count) {
    qsort(values, (size_t)count, sizeof *values, compare_floats);
}

double measure_median(const float *sorted, int count) {
    return (sorted[(count - 1) / 2] + (double)sorted[count / 2]) / 2;
}

double measure_quantile(const float *sorted, int count, double share) {
    int rank = (int)ceil(share * count) - 1;
    return sorted[rank < 0 ? 0 : rank];
}

enum column { COLUMN_US, COLUMN_SPAN, COLUMN_BATCH, COLUMN_EVENT };

/* One figure of all samples, sorted, into `sorted`. */
static void sort_column(const struct measure_sample *samples, int count, enum column column, float *sorted) {
    for (int i = 0; i < count; i++) {
        const struct measure_sample *s = &samples[i];
        const float columns[] = {[COLUMN_US] = s->us,
                                 [COLUMN_SPAN] = s->span_us,
                                 [COLUMN_BATCH] = s->batch_us,
                                 [COLUMN_EVENT] = s->event_us};
        sorted[i] = columns[column];
    }
    measure_sort(sorted, count);
}

static double median_of(const struct measure_sample *samples, int count, enum column column, float *sorted) {
    sort_column(samples, count, column, sorted);
    return measure_median(sorted, count);
}

static void summarize(const struct measure_sample *samples, int count, float *sorted, struct measurement *m) {
    int low, high;
    sort_column(samples, count, COLUMN_US, sorted);
    median_interval(count, &low, &high);
    m->median_us = measure_median(sorted, count);
    m->p20_us = measure_quantile(sorted, count, 0.2);
    m->p80_us = measure_quantile(sorted, count, 0.8);
    m->min_us = sorted[0];
    m->low_us = sorted[low];
    m->high_us = sorted[high];
    m->samples = count;
}

/* --- the procedure --- */

/* After `worked` seconds of samples. */
static void rest(const struct measure_options *options, double worked) {
    double seconds = options->pace > 0 ? worked * (1 / options->pace - 1) : 0;
    struct timespec time = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    while (seconds > 0 && nanosleep(&time, &time) && errno == EINTR) continue;
}

/* What is beaten by more than its clock may account for needs no other samples. */
static bool beaten_in_warm_up(const struct measure_options *options, const struct measure_sample *samples, int count,
                              float *sorted, struct measurement *m) {
    if (!(options->beaten_us > 0) || count < LEAST_SAMPLES) return false;
    summarize(samples, count, sorted, m);
    return m->low_us > unsettled_slack * options->beaten_us;
}

/* Runs batches until the clock has settled; finds the batch whose calls last about batch_seconds: what is spent on
 * collecting records and looking at the card is no reason for a smaller one. */
static int warm_up(measure_sampler *take, void *context, int calls, const struct measure_options *options,
                   struct measure_sample *samples, float *sorted, int *batch, struct measurement *m,
                   struct error *error) {
    double start = measure_now(), previous = 0;
    int most = options->max_samples < MOST_IN_BATCH ? options->max_samples : MOST_IN_BATCH;
    *batch = 1;
    for (;;) {
        double before = measure_now();
        if (take(context, *batch, samples, error)) return -1;
        double after = measure_now();
        double current = median_of(samples, *batch, COLUMN_US, sorted);
        bool steady = fabs(current - previous) <= settled * current;
        previous = current;
        if (beaten_in_warm_up(options, samples, *batch, sorted, m)) {
            m->stop = "beaten";
            return 0;
        }
        if (after - start >= warmup_patience * options->warmup_seconds) return 0;
        if (after - start >= options->warmup_seconds && steady) return 0;
        double call_s = fmax(calls * current, 1e-3) / 1e6;
        if (*batch * call_s < batch_seconds / 2) *batch = (int)fmin(most, ceil(batch_seconds / call_s));
        rest(options, after - before);
    }
}

/* What the stopping rule remembers: the width when the samples had last doubled, and how often in a row
 * doubling them did not narrow it. Once may be bad luck. */
struct progress {
    int samples, stuck;
    double width;
};

/* NULL to go on. */
static const char *reason_to_stop(const struct measure_options *options, const struct measurement *m, double seconds,
                                  struct progress *last) {
    double width = (m->high_us - m->low_us) / m->median_us;
    bool enough = m->samples >= options->min_samples && m->samples >= LEAST_SAMPLES && seconds >= options->min_seconds;
    if (enough && width <= options->interval) return "interval";
    if (options->beaten_us > 0 && m->samples >= LEAST_SAMPLES && m->low_us > options->beaten_us) return "beaten";
    if (m->samples >= options->max_samples) return "samples";
    if (seconds >= options->max_seconds && m->samples >= LEAST_SAMPLES) return "time";
    if (m->samples < NOISE_SAMPLES || m->samples < 2 * last->samples) return NULL;
    int stuck = last->samples && width > noise_shrink * last->width ? last->stuck + 1 : 0;
    *last = (struct progress){m->samples, stuck, width};
    return enough && stuck >= 2 ? "noise" : NULL;
}

static int sample(measure_sampler *take, void *context, const struct measure_options *options, int batch,
                  struct measure_sample *samples, float *sorted, struct measurement *m, struct error *error) {
    struct progress last = {0, 0, 0};
    double start = measure_now();
    for (int count = 0; !m->stop;) {
        int next = options->max_samples - count < batch ? options->max_samples - count : batch;
        double before = measure_now();
        if (take(context, next, samples + count, error)) return -1;
        double worked = measure_now() - before;
        count += next;
        summarize(samples, count, sorted, m);
        m->stop = reason_to_stop(options, m, measure_now() - start, &last);
        if (!m->stop) rest(options, worked);
    }
    m->span_us = median_of(samples, m->samples, COLUMN_SPAN, sorted);
    m->batch_us = median_of(samples, m->samples, COLUMN_BATCH, sorted);
    m->event_us = median_of(samples, m->samples, COLUMN_EVENT, sorted);
    for (int i = 0; i < m->samples; i++) m->sample_us[i] = samples[i].us;
    return 0;
}

int measure_with(measure_sampler *take, void *context, int calls, const struct measure_options *options,
                 struct measurement *measurement, struct error *error) {
    size_t room = (size_t)options->max_samples;
    struct measure_sample *samples = calloc(room, sizeof *samples);
    float *sorted = calloc(room, sizeof *sorted);
    int batch, result = -1;
    *measurement =
        (struct measurement){.sample_us = calloc(room, sizeof *measurement->sample_us), .pace = options->pace};
    if (!samples || !sorted || !measurement->sample_us)
        error_set(error, "out of memory");
    else if (!warm_up(take, context, calls, options, samples, sorted, &batch, measurement, error))
        result = sample(take, context, options, batch, samples, sorted, measurement, error);
    if (result) measurement_free(measurement);
    free(samples);
    free(sorted);
    return result;
}

void measurement_free(struct measurement *measurement) {
    free(measurement->sample_us);
    free(measurement->states);
    *measurement = (struct measurement){.samples = 0};
}

/* --- the clocks --- */

struct timer {
    struct device *device;
    struct instance *instance; /* as the plan, none where a graph is given */
    const struct plan *plan;
    const struct device_graph *graph; /* of `calls` calls; NULL in the stream */
    bool by_span;                     /* that is a call's time, not the sum of its kernels' */
    long next;                        /* call; chooses the copy */
    int calls;                        /* in a sample */
    int kernels;                      /* CUPTI: of the first sample; 0 before */
    uint64_t names;                   /* and their names */
    unsigned long long throttle;
    struct measure_state *states;
    int state_count;
    double next_state; /* on the clock of measure_now() */
};

/* Memory that is not there costs a state and no measurement. */
static void keep_state(struct timer *timer, const struct gpu_state *card) {
    int count = timer->state_count;
    struct timespec time;
    if (!(count & (count - 1))) {
        struct measure_state *more = reallocarray(timer->states, count ? 2 * (size_t)count : 1, sizeof *timer->states);
        if (!more) return;
        timer->states = more;
    }
    clock_gettime(CLOCK_REALTIME, &time);
    timer->states[timer->state_count++] =
        (struct measure_state){(double)time.tv_sec + (double)time.tv_nsec / 1e9, *card};
}

/* Looks at the card between two batches. */
static void look(struct timer *timer) {
    struct gpu_state card = nvml_state(timer->device);
    timer->throttle |= card.throttle;
    if (!card.sm_mhz || measure_now() < timer->next_state) return;
    timer->next_state = measure_now() + states_apart;
    keep_state(timer, &card);
}

static int call(struct timer *timer, struct error *error) {
    struct instance *instance = timer->instance;
    return plan_run(timer->plan, &instance->copies[timer->next++ % instance->count], error);
}

static int enqueue_calls(void *context, struct error *error) {
    struct timer *timer = context;
    for (int c = 0; c < timer->calls; c++)
        if (call(timer, error)) return -1;
    return 0;
}

/* What a sample covers. */
static int enqueue_sample(struct timer *timer, struct error *error) {
    if (timer->graph) return device_graph_launch(timer->device, timer->graph, error);
    return enqueue_calls(timer, error);
}

static int take_monotonic(void *context, int count, struct measure_sample *samples, struct error *error) {
    struct timer *timer = context;
    for (int i = 0; i < count; i++) {
        double start = measure_now();
        if (enqueue_sample(timer, error)) return -1;
        float us = (float)((measure_now() - start) * 1e6 / timer->calls);
        samples[i] = (struct measure_sample){.us = us, .span_us = us};
    }
    return 0;
}

/* A sample between two events. */
static int take_event(struct timer *timer, double *microseconds, struct error *error) {
    struct device *device = timer->device;
    if (device_mark(device, 0, error) || enqueue_sample(timer, error)) return -1;
    return device_mark(device, 1, error) ? -1 : device_marked(device, microseconds, error);
}

static int take_events(void *context, int count, struct measure_sample *samples, struct error *error) {
    struct timer *timer = context;
    for (int i = 0; i < count; i++) {
        double microseconds;
        if (take_event(timer, &microseconds, error)) return -1;
        float us = (float)(microseconds / timer->calls);
        samples[i] = (struct measure_sample){.us = us, .span_us = us, .event_us = us};
    }
    look(timer);
    return 0;
}

/* Enqueues samples `first` ... between two events. */
static int enqueue_tagged(struct timer *timer, uint64_t first, int count, double *microseconds, struct error *error) {
    struct device *device = timer->device;
    if (device_mark(device, 0, error)) return -1;
    for (int i = 0; i < count; i++) {
        if (cupti_begin(first + (uint64_t)i, error)) return -1;
        int failed = enqueue_sample(timer, error);
        if (cupti_end(failed ? NULL : error) || failed) return -1;
    }
    if (device_mark(device, 1, error) || device_marked(device, microseconds, error)) return -1;
    return device_synchronize(device, error);
}

/* Kernels that change between batches are as wrong as ones that change within. */
static int check_names(struct timer *timer, const struct cupti_sample *sample, struct error *error) {
    if (timer->kernels && (timer->kernels != sample->kernels || timer->names != sample->names))
        return error_set(error, "cupti: the kernels of a call changed while it was measured");
    timer->kernels = sample->kernels;
    timer->names = sample->names;
    return 0;
}

static int take_cupti(void *context, int count, struct measure_sample *samples, struct error *error) {
    static uint64_t next_sample; /* never repeats, so that a late record is not taken for a new one */
    struct timer *timer = context;
    double microseconds;
    struct cupti_sample *records = calloc((size_t)count, sizeof *records);
    if (!records) return error_set(error, "out of memory");
    uint64_t first = next_sample;
    next_sample += (uint64_t)count;
    int result = enqueue_tagged(timer, first, count, &microseconds, error);
    if (!result) result = cupti_collect(first, count, records, error);
    if (!result) result = check_names(timer, &records[0], error);
    int calls = count * timer->calls;
    double batch_us = (double)(records[count - 1].end - records[0].start) / 1e3;
    for (int i = 0; !result && i < count; i++) {
        result = measure_share(&records[i], timer->calls, timer->by_span, &samples[i], error);
        samples[i].batch_us = (float)(batch_us / calls);
        samples[i].event_us = (float)(microseconds / calls);
    }
    look(timer);
    free(records);
    return result;
}

static measure_sampler *choose_clock(const struct device *device, const char **name) {
    if (device->backend == BACKEND_CPU) {
        *name = "monotonic";
        return take_monotonic;
    }
    bool attached = !cupti_open(NULL);
    *name = attached ? "cupti" : "events";
    return attached ? take_cupti : take_events;
}

/* Two calls tell how many a sample of a coarse clock must cover. */
static int find_calls(struct timer *timer, struct error *error) {
    struct measure_sample first[2];
    const char *name;
    measure_sampler *take = choose_clock(timer->device, &name);
    timer->calls = 1;
    if (take == take_cupti) return 0;
    if (take(timer, 2, first, error)) return -1;
    double least = take == take_events ? events_least_us : monotonic_least_us;
    if (first[1].us < least) timer->calls = (int)ceil(least / fmax(first[1].us, least / 1000));
    return 0;
}

/* Samples, and what the clock and the card say beside them. */
static int measure_timer(struct timer *timer, enum regime regime, const struct measure_options *options,
                         struct measurement *measurement, struct error *error) {
    const char *clock;
    if (measure_with(choose_clock(timer->device, &clock), timer, timer->calls, options, measurement, error)) {
        free(timer->states);
        return -1;
    }
    struct gpu_state state = nvml_state(timer->device);
    measurement->states = timer->states;
    measurement->state_count = timer->state_count;
    measurement->clock = clock;
    measurement->calls = timer->calls;
    measurement->regime = regime;
    measurement->sm_mhz = state.sm_mhz;
    measurement->memory_mhz = state.memory_mhz;
    measurement->celsius = state.celsius;
    measurement->watts = state.watts;
    measurement->throttle = timer->throttle | state.throttle;
    return 0;
}

int measure_graph(struct device *device, const struct device_graph *graph, enum regime regime,
                  const struct measure_options *options, struct measurement *measurement, struct error *error) {
    struct timer timer = {.device = device, .graph = graph, .calls = 1, .by_span = true};
    *measurement = (struct measurement){.samples = 0};
    return measure_timer(&timer, regime, options, measurement, error);
}

/* Records as many calls as a graph has, times it and lets it go. */
static int measure_recorded(struct timer *timer, const struct measure_options *options, struct measurement *measurement,
                            struct error *error) {
    struct device *device = timer->device;
    struct device_graph *graph;
    timer->calls = measure_graph_calls(timer->instance->count);
    timer->by_span = options->regime == REGIME_PDL;
    device_overlap(device, options->regime == REGIME_PDL ? OVERLAP_WEIGHTS : OVERLAP_NOTHING);
    int result = device_graph_record(device, enqueue_calls, timer, &graph, error);
    device_overlap(device, OVERLAP_NOTHING);
    if (result) return error_prefix(error, "a graph of %d calls", timer->calls);
    timer->graph = graph;
    result = measure_timer(timer, options->regime, options, measurement, error);
    device_graph_destroy(device, graph);
    return result;
}

static void range_push(const struct plan *plan) {
    char problem[128], kernel[64], config[MAX_CONFIG_TEXT], text[sizeof problem + sizeof kernel + sizeof config];
    snprintf(text, sizeof text, "%s %s %s", problem_text(&plan->problem, problem),
             kernel_full_name(plan->kernel, kernel), config_text(plan->kernel, &plan->config, config));
    nvtx_push(text);
}

int measure(struct instance *instance, const struct plan *plan, const struct measure_options *options,
            struct measurement *measurement, struct error *error) {
    struct timer timer = {.device = instance->device, .instance = instance, .plan = plan};
    *measurement = (struct measurement){.samples = 0};
    if (regime_check(options->regime, instance->device, error) || instance_fit(instance, plan, error)) return -1;
    range_push(plan);
    int result;
    if (options->regime != REGIME_STREAM)
        result = measure_recorded(&timer, options, measurement, error);
    else if (!(result = find_calls(&timer, error)))
        result = measure_timer(&timer, REGIME_STREAM, options, measurement, error);
    nvtx_pop();
    return result;
}
