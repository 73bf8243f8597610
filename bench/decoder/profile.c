#include "bench/decoder/profile.h"

#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"

enum { WARM_UP = 2, FIRST_TOKEN = 1 << 20 }; /* FIRST_TOKEN: CUPTI's sample of it, beyond those of ops */

/* What a step's ops leave while it is enqueued. */
struct recorder {
    struct profile_op *ops;
    double *started; /* (room), us; of the CPU */
    int count, room;
    bool tags; /* CUPTI's samples are the ops */
};

static int enter(void *context, int layer, enum model_op op, struct error *error) {
    struct recorder *r = context;
    if (r->count == r->room) {
        int room = r->room ? 2 * r->room : 64;
        struct profile_op *ops = reallocarray(r->ops, (size_t)room, sizeof *ops);
        if (ops) r->ops = ops;
        double *started = reallocarray(r->started, (size_t)room, sizeof *started);
        if (started) r->started = started;
        if (!ops || !started) return error_set(error, "out of memory");
        r->room = room;
    }
    if (r->tags && r->count && cupti_end(error)) return -1;
    if (r->tags && cupti_begin((uint64_t)r->count, error)) return -1;
    r->ops[r->count] = (struct profile_op){layer, op};
    r->started[r->count++] = measure_now() * 1e6;
    return 0;
}

static void free_recorder(struct recorder *r) {
    free(r->ops);
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

int profile_match(const struct profile_op *ops, const struct cupti_kernel *listed, const struct cupti_kernel *token,
                  size_t count, struct profile_part **result, struct error *error) {
    struct profile_part *parts = *result = malloc(count * sizeof *parts + 1);
    if (!parts) return error_set(error, "out of memory");
    for (size_t i = 0; i < count; i++) {
        if (listed[i].name != token[i].name) {
            free(parts);
            *result = NULL;
            return error_set(error, "kernel %zu of a step is %s, but %s where each op is enqueued by itself", i,
                             token[i].label, listed[i].label);
        }
        const struct profile_op *op = &ops[listed[i].sample];
        parts[i] = (struct profile_part){.layer = op->layer,
                                         .op = op->op,
                                         .kernel = token[i].label,
                                         .start_us = (double)(token[i].start - token[0].start) / 1e3,
                                         .end_us = (double)(token[i].end - token[0].start) / 1e3};
    }
    return 0;
}

struct candidate {
    double span_us;
    int token;
};

static int by_span(const void *left, const void *right) {
    const struct candidate *a = left, *b = right;
    return (a->span_us > b->span_us) - (a->span_us < b->span_us);
}

/* The token of the median span; the profile's spans. */
static int choose(struct profile *profile, struct candidate *candidates) {
    qsort(candidates, (size_t)profile->tokens, sizeof *candidates, by_span);
    profile->least_us = candidates[0].span_us;
    profile->most_us = candidates[profile->tokens - 1].span_us;
    return candidates[profile->tokens / 2].token;
}

/* --- the CPU: an op ends where the next one begins --- */

static struct profile_part *host_parts(const struct recorder *r, double end_us) {
    struct profile_part *parts = malloc((size_t)r->count * sizeof *parts);
    for (int i = 0; parts && i < r->count; i++)
        parts[i] = (struct profile_part){.layer = r->ops[i].layer,
                                         .op = r->ops[i].op,
                                         .kernel = model_op_name(r->ops[i].op),
                                         .start_us = r->started[i] - r->started[0],
                                         .end_us = (i + 1 < r->count ? r->started[i + 1] : end_us) - r->started[0]};
    return parts;
}

static int step(struct model *model, int *ids, struct error *error) {
    double seconds;
    return model_step(model, error) || model_take(model, ids, &seconds, error) ? -1 : 0;
}

static int take_host(struct model *model, int *ids, struct profile *profile, struct candidate *candidates,
                     struct profile_part **tokens, struct error *error) {
    struct recorder recorder = {.count = 0};
    int status = 0;
    model_trace(model, enter, &recorder);
    for (int i = 0; i < profile->tokens && !status; i++) {
        recorder.count = 0;
        status = step(model, ids, error);
        if (status) break;
        tokens[i] = host_parts(&recorder, measure_now() * 1e6);
        if (!tokens[i]) status = error_set(error, "out of memory");
        profile->count = recorder.count;
        candidates[i] = (struct candidate){status ? 0 : profile_settle(tokens[i], recorder.count), i};
    }
    model_trace(model, NULL, NULL);
    free_recorder(&recorder);
    profile->clock = "monotonic";
    return status;
}

/* --- a GPU: CUPTI's records of the graph, and of one step that tells which op each kernel belongs to --- */

static int list_kernels(struct model *model, int *ids, struct recorder *recorder, struct cupti_kernel **kernels,
                        size_t *count, struct error *error) {
    recorder->tags = true;
    model_trace(model, enter, recorder);
    int status = model_step(model, error);
    model_trace(model, NULL, NULL);
    struct error ignored;
    if (recorder->count && cupti_end(status ? &ignored : error)) status = -1;
    double seconds;
    if (status || model_take(model, ids, &seconds, error)) return -1;
    return cupti_kernels(0, recorder->count, kernels, count, error);
}

static int tagged_step(struct model *model, int *ids, int token, struct error *error) {
    if (cupti_begin((uint64_t)(FIRST_TOKEN + token), error)) return -1;
    struct error ignored;
    int status = model_step(model, error);
    if (cupti_end(status ? &ignored : error)) status = -1;
    double seconds;
    return status || model_take(model, ids, &seconds, error) ? -1 : 0;
}

static int match_tokens(const struct recorder *recorder, const struct cupti_kernel *listed, size_t count,
                        const struct cupti_kernel *kernels, size_t all, struct profile *profile,
                        struct candidate *candidates, struct profile_part **tokens, struct error *error) {
    if (!count || all != count * (size_t)profile->tokens)
        return error_set(error, "%zu kernel records of %d tokens of %zu kernels each: some are missing", all,
                         profile->tokens, count);
    profile->count = (int)count;
    for (int i = 0; i < profile->tokens; i++) {
        if (profile_match(recorder->ops, listed, kernels + (size_t)i * count, count, &tokens[i], error)) return -1;
        candidates[i] = (struct candidate){profile_settle(tokens[i], profile->count), i};
    }
    return 0;
}

static int take_gpu(struct model *model, int *ids, struct profile *profile, struct candidate *candidates,
                    struct profile_part **tokens, struct error *error) {
    struct recorder recorder = {.count = 0};
    struct cupti_kernel *listed = NULL, *kernels = NULL;
    size_t count = 0, all = 0;
    int status = list_kernels(model, ids, &recorder, &listed, &count, error);
    for (int i = 0; i < profile->tokens && !status; i++) status = tagged_step(model, ids, i, error);
    if (!status) status = cupti_kernels(FIRST_TOKEN, profile->tokens, &kernels, &all, error);
    if (!status) status = match_tokens(&recorder, listed, count, kernels, all, profile, candidates, tokens, error);
    free(listed);
    free(kernels);
    free_recorder(&recorder);
    profile->clock = "cupti";
    return status;
}

/* --- both --- */

/* The prompts, then steps that only warm up; the steps that follow go on behind them. */
static int warm_up(struct model *model, const int *ids, int count, int batch, int *next, int *positions,
                   struct error *error) {
    for (int i = 0; i < batch; i++) {
        const int *prompt = ids + (size_t)i * (size_t)count;
        if (model_forward(model, i, prompt, count, 0, NULL, error)) return -1;
        next[i] = prompt[count - 1];
        positions[i] = count;
    }
    if (model_prepare_steps(model, batch, error) || model_begin(model, NULL, next, positions, batch, error)) return -1;
    for (int i = 0; i < WARM_UP; i++)
        if (step(model, next, error)) return -1;
    return 0;
}

static int take(struct model *model, int *next, struct profile *profile, struct error *error) {
    size_t room = (size_t)profile->tokens;
    struct candidate *candidates = calloc(room, sizeof *candidates);
    struct profile_part **tokens = calloc(room, sizeof *tokens);
    int status = candidates && tokens ? 0 : error_set(error, "out of memory"), chosen = -1;
    if (!status) status = (model_on_gpu(model) ? take_gpu : take_host)(model, next, profile, candidates, tokens, error);
    if (!status) {
        chosen = choose(profile, candidates);
        profile->parts = tokens[chosen];
        profile->span_us = candidates[profile->tokens / 2].span_us;
        profile->positions += chosen;
    }
    for (size_t i = 0; tokens && i < room; i++)
        if ((int)i != chosen) free(tokens[i]);
    free(tokens);
    free(candidates);
    return status;
}

int profile_take(struct model *model, const int *ids, int count, int batch, int steps, struct profile *profile,
                 struct error *error) {
    bool gpu = model_on_gpu(model);
    int before = WARM_UP + gpu, *next = malloc(2 * (size_t)batch * sizeof *next);
    *profile = (struct profile){.tokens = steps - before, .batch = batch, .positions = count + before + 1};
    if (!next) return error_set(error, "out of memory");
    int status = gpu ? cupti_open(error) : 0;
    if (!status) status = warm_up(model, ids, count, batch, next, next + batch, error);
    if (!status) status = take(model, next, profile, error);
    free(next);
    return status ? error_prefix(error, "--profile") : 0;
}

void profile_free(struct profile *profile) {
    free(profile->parts);
    *profile = (struct profile){.count = 0};
}
