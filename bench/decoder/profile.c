#include "bench/decoder/profile.h"

#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"

/* FIRST_RUN: CUPTI's sample of it, beyond those of calls. */
enum { WARM_UP = 2, PREFILLS = 3, FIRST_RUN = 1 << 20 };

/* A prefill that takes longer is profiled once. */
static const double long_prefill_s = 1;

/* What is run again and again: a step of all sequences, or the first one's prompt. */
struct subject {
    struct model *model;
    int (*run)(struct subject *subject, struct error *error);
    const int *prompt;
    int count;
    float *logits; /* of the prompt's last token */
    int *next;     /* (batch): what a step runs */
};

static int run_step(struct subject *s, struct error *error) {
    double seconds;
    return model_step(s->model, error) || model_take(s->model, s->next, &seconds, error) ? -1 : 0;
}

static int run_prefill(struct subject *s, struct error *error) {
    return model_forward(s->model, 0, s->prompt, s->count, 0, s->logits, error);
}

/* What a run's ops leave while they are enqueued. */
struct recorder {
    struct model_call *calls;
    double *started; /* (room), us; of the CPU */
    int count, room;
    bool tags; /* CUPTI's samples are the calls */
};

static int enter(void *context, const struct model_call *call, struct error *error) {
    struct recorder *r = context;
    if (r->count == r->room) {
        int room = r->room ? 2 * r->room : 64;
        struct model_call *calls = reallocarray(r->calls, (size_t)room, sizeof *calls);
        if (calls) r->calls = calls;
        double *started = reallocarray(r->started, (size_t)room, sizeof *started);
        if (started) r->started = started;
        if (!calls || !started) return error_set(error, "out of memory");
        r->room = room;
    }
    if (r->tags && r->count && cupti_end(error)) return -1;
    if (r->tags && cupti_begin((uint64_t)r->count, error)) return -1;
    r->calls[r->count] = *call;
    r->started[r->count++] = measure_now() * 1e6;
    return 0;
}

static void free_recorder(struct recorder *r) {
    free(r->calls);
    free(r->started);
}

/* --- parts --- */

double profile_settle(struct profile_part *parts, int count) {
    double ended = count ? parts[0].start_us : 0;
    for (int i = 0; i < count; i++) {
        struct profile_part *part = &parts[i];
        double from = part->start_us > ended ? part->start_us : ended;
        part->gap_us = from - ended;
        part->us = part->end_us > from ? part->end_us - from : 0;
        ended = from + part->us;
    }
    return count ? ended - parts[0].start_us : 0;
}

int profile_match(const struct model_call *calls, const struct cupti_kernel *listed, const struct cupti_kernel *run,
                  size_t count, struct profile_part **result, struct error *error) {
    struct profile_part *parts = *result = malloc(count * sizeof *parts + 1);
    if (!parts) return error_set(error, "out of memory");
    for (size_t i = 0; i < count; i++) {
        if (listed[i].name != run[i].name) {
            free(parts);
            *result = NULL;
            return error_set(error, "kernel %zu of a run is %s, but %s where each op is enqueued by itself", i,
                             run[i].label, listed[i].label);
        }
        parts[i] = (struct profile_part){.call = calls[listed[i].sample],
                                         .kernel = run[i].label,
                                         .start_us = (double)(run[i].start - run[0].start) / 1e3,
                                         .end_us = (double)(run[i].end - run[0].start) / 1e3};
    }
    return 0;
}

struct candidate {
    double span_us;
    int index;
};

static int by_span(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    return (a->span_us > b->span_us) - (a->span_us < b->span_us);
}

/* The run of the median span; the spans. */
static int choose(struct profile_run *run, struct candidate *candidates) {
    qsort(candidates, (size_t)run->runs, sizeof *candidates, by_span);
    run->least_us = candidates[0].span_us;
    run->span_us = candidates[run->runs / 2].span_us;
    run->most_us = candidates[run->runs - 1].span_us;
    return candidates[run->runs / 2].index;
}

/* --- the CPU: an op ends where the next one begins --- */

static struct profile_part *host_parts(const struct recorder *r, double end_us) {
    struct profile_part *parts = malloc((size_t)r->count * sizeof *parts);
    for (int i = 0; parts && i < r->count; i++)
        parts[i] = (struct profile_part){.call = r->calls[i],
                                         .kernel = model_op_name(r->calls[i].op),
                                         .start_us = r->started[i] - r->started[0],
                                         .end_us = (i + 1 < r->count ? r->started[i + 1] : end_us) - r->started[0]};
    return parts;
}

static int take_host(struct subject *subject, struct profile_run *run, struct candidate *candidates,
                     struct profile_part **runs, struct error *error) {
    struct recorder recorder = {.count = 0};
    int status = 0;
    model_trace(subject->model, enter, &recorder);
    for (int i = 0; i < run->runs && !status; i++) {
        recorder.count = 0;
        status = subject->run(subject, error);
        if (status) break;
        runs[i] = host_parts(&recorder, measure_now() * 1e6);
        if (!runs[i]) status = error_set(error, "out of memory");
        run->count = recorder.count;
        candidates[i] = (struct candidate){status ? 0 : profile_settle(runs[i], recorder.count), i};
    }
    model_trace(subject->model, NULL, NULL);
    free_recorder(&recorder);
    return status;
}

/* --- a GPU: CUPTI's records of what runs as ever, and of one run that tells which op each kernel belongs to --- */

static int list_kernels(struct subject *subject, struct recorder *recorder, struct cupti_kernel **kernels,
                        size_t *count, struct error *error) {
    recorder->tags = true;
    model_trace(subject->model, enter, recorder);
    int status = subject->run(subject, error);
    model_trace(subject->model, NULL, NULL);
    struct error ignored;
    if (recorder->count && cupti_end(status ? &ignored : error)) status = -1;
    return status ? -1 : cupti_kernels(0, recorder->count, kernels, count, error);
}

static int run_tagged(struct subject *subject, int index, struct error *error) {
    if (cupti_begin((uint64_t)(FIRST_RUN + index), error)) return -1;
    struct error ignored;
    int status = subject->run(subject, error);
    return cupti_end(status ? &ignored : error) ? -1 : status;
}

static int match_runs(const struct recorder *recorder, const struct cupti_kernel *listed, size_t count,
                      const struct cupti_kernel *kernels, size_t all, struct profile_run *run,
                      struct candidate *candidates, struct profile_part **runs, struct error *error) {
    if (!count || all != count * (size_t)run->runs)
        return error_set(error, "%zu kernel records of %d runs of %zu kernels each: some are missing", all, run->runs,
                         count);
    run->count = (int)count;
    for (int i = 0; i < run->runs; i++) {
        if (profile_match(recorder->calls, listed, kernels + (size_t)i * count, count, &runs[i], error)) return -1;
        candidates[i] = (struct candidate){profile_settle(runs[i], run->count), i};
    }
    return 0;
}

static int take_gpu(struct subject *subject, struct profile_run *run, struct candidate *candidates,
                    struct profile_part **runs, struct error *error) {
    struct recorder recorder = {.count = 0};
    struct cupti_kernel *listed = NULL, *kernels = NULL;
    size_t count = 0, all = 0;
    int status = list_kernels(subject, &recorder, &listed, &count, error);
    for (int i = 0; i < run->runs && !status; i++) status = run_tagged(subject, i, error);
    if (!status) status = cupti_kernels(FIRST_RUN, run->runs, &kernels, &all, error);
    if (!status) status = match_runs(&recorder, listed, count, kernels, all, run, candidates, runs, error);
    free(listed);
    free(kernels);
    free_recorder(&recorder);
    return status;
}

/* --- both --- */

/* Which of the runs it is: *chosen. */
static int take(struct subject *subject, struct profile_run *run, int *chosen, struct error *error) {
    size_t room = (size_t)run->runs;
    struct candidate *candidates = calloc(room, sizeof *candidates);
    struct profile_part **runs = calloc(room, sizeof *runs);
    int status = candidates && runs ? 0 : error_set(error, "out of memory");
    *chosen = -1;
    if (!status) status = (model_on_gpu(subject->model) ? take_gpu : take_host)(subject, run, candidates, runs, error);
    if (!status) run->parts = runs[ *chosen = choose(run, candidates)];
    for (size_t i = 0; runs && i < room; i++)
        if ((int)i != *chosen) free(runs[i]);
    free(runs);
    free(candidates);
    return status;
}

static int prepare(struct model *model, int count, int batch, struct error *error) {
    return model_expect(model, count, error) || model_expect_steps(model, batch, error) ||
                   model_prepare(model, count, error) || model_prepare_steps(model, batch, error)
               ? -1
               : 0;
}

/* The prompts, so that the cache holds them; the last of them is the warm-up. */
static int take_prefill(struct subject *subject, const int *ids, struct profile *profile, struct error *error) {
    double start = 0;
    int chosen;
    for (int i = profile->batch - 1; i >= 0; i--) {
        start = measure_now();
        if (model_forward(subject->model, i, ids + (size_t)i * (size_t)subject->count, subject->count, 0,
                          subject->logits, error))
            return -1;
    }
    profile->prefill.runs = measure_now() - start > long_prefill_s ? 1 : PREFILLS;
    subject->run = run_prefill;
    return take(subject, &profile->prefill, &chosen, error);
}

/* Steps behind the prompts, of which the first only warm up; on a GPU one more lists the kernels. */
static int take_token(struct subject *subject, const int *ids, int steps, struct profile *profile,
                      struct error *error) {
    int before = WARM_UP + model_on_gpu(subject->model), batch = profile->batch, *positions = subject->next + batch;
    int chosen;
    for (int i = 0; i < batch; i++) {
        subject->next[i] = ids[(size_t)(i + 1) * (size_t)subject->count - 1];
        positions[i] = subject->count;
    }
    if (model_begin(subject->model, NULL, subject->next, positions, batch, error)) return -1;
    for (int i = 0; i < WARM_UP; i++)
        if (run_step(subject, error)) return -1;
    profile->token.runs = steps - before;
    subject->run = run_step;
    if (take(subject, &profile->token, &chosen, error)) return -1;
    profile->positions = subject->count + before + 1 + chosen;
    profile->token.positions = (double)batch * profile->positions;
    return 0;
}

int profile_take(struct model *model, const struct model_config *config, const int *ids, int count, int batch,
                 int steps, struct profile *profile, struct error *error) {
    bool gpu = model_on_gpu(model);
    struct subject subject = {.model = model,
                              .prompt = ids,
                              .count = count,
                              .logits = malloc((size_t)config->vocab * sizeof *subject.logits),
                              .next = malloc(2 * (size_t)batch * sizeof *subject.next)};
    *profile = (struct profile){.prompt = count, .batch = batch, .clock = gpu ? "cupti" : "monotonic"};
    int status = subject.logits && subject.next ? 0 : error_set(error, "out of memory");
    if (!status && gpu) status = cupti_open(error);
    if (!status) status = prepare(model, count, batch, error);
    if (!status) status = take_prefill(&subject, ids, profile, error);
    if (!status) status = take_token(&subject, ids, steps, profile, error);
    free(subject.logits);
    free(subject.next);
    return status ? error_prefix(error, "--profile") : 0;
}

void profile_free(struct profile *profile) {
    free(profile->prefill.parts);
    free(profile->token.parts);
    *profile = (struct profile){.batch = 0};
}
