#include "bench/decoder/batch.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"

/* Steps that may be under way: one runs while it reads the tokens of the one before. */
enum { AHEAD = 2 };

/* A sequence of the model, and what it runs next. */
struct place {
    struct request *request; /* NULL: free */
    int token, position;
    int most; /* tokens of the request: as many as are wanted and the context has room for */
    double since;
};

struct batch {
    struct model *model;
    const struct model_config *config;
    const struct batch_options *options;
    struct requests *requests;
    batch_ended *ended;
    void *ended_context;
    struct batch_figures *figures;
    struct error *error;
    struct place *places;           /* (sequences) */
    int *rows, *tokens, *positions; /* (sequences): the place, token and position of each row of a step */
    int count;                      /* rows */
    int next;                       /* the request that gets a place next */
    bool held;                      /* it was found waiting for pages */
    int under_way;
    bool changed; /* the next step has other rows, or tokens that the device does not know */
};

/* --- joining and leaving --- */

/* Steps under way may still write to its pages: nobody gets them before those have been taken. */
static int leave(struct batch *batch, struct place *place, const char *stop) {
    model_release(batch->model, (int)(place - batch->places));
    place->request->stop = stop;
    place->request = NULL;
    batch->changed = true;
    return batch->ended(batch->ended_context, batch->error);
}

/* New tokens of a request: as many as are wanted and the context has room for. */
static int most_tokens(const struct request *request, int context) {
    int room = context - (request->prompt_count - 1);
    return request->max_tokens < room ? request->max_tokens : room;
}

/* Positions that it runs: the last new token does not. */
static int positions_of(const struct request *request, int context) {
    return request->prompt_count - 1 + most_tokens(request, context);
}

/* All of the prompt but its last token runs at once; that one is the first that a step runs. */
static int join(struct batch *batch, int sequence, struct request *request) {
    struct place *place = &batch->places[sequence];
    int before = request->prompt_count - 1, context = batch->options->context;
    *place = (struct place){.request = request,
                            .token = request->prompt[before],
                            .position = before,
                            .most = most_tokens(request, context),
                            .since = measure_now()};
    batch->figures->prompt_tokens += request->prompt_count;
    if (!place->most) return leave(batch, place, "length");
    request->ids = malloc((size_t)place->most * sizeof *request->ids);
    if (!request->ids) return error_set(batch->error, "out of memory");
    if (!sampling_greedy(&batch->options->sampling) &&
        model_sample(batch->model, sequence, &batch->options->sampling, request->prompt, before + 1, batch->error))
        return -1;
    if (model_reserve(batch->model, sequence, positions_of(request, context), batch->error)) return -1;
    if (before && model_forward(batch->model, sequence, request->prompt, before, 0, NULL, batch->error))
        return error_prefix(batch->error, "line %d", request->line);
    return 0;
}

/* Ends a request that even an empty cache has no room for. */
static int refuse(struct batch *batch, struct request *request) {
    struct error why;
    error_set(&why, "the prompt and its new tokens need %d pages of KV cache; there are %d",
              pages_for(positions_of(request, batch->options->context)), pages_count(model_pages(batch->model)));
    if (request_fail(request, &why, batch->error)) return -1;
    return batch->ended(batch->ended_context, batch->error);
}

/* The next request that waits, if there are pages for it now. */
static int next_request(struct batch *batch, struct request **next) {
    const struct pages *pages = model_pages(batch->model);
    for (*next = NULL; batch->next < batch->requests->count && !*batch->options->interrupted; batch->next++) {
        struct request *request = &batch->requests->list[batch->next];
        if (request->stop) continue;
        int needed = pages_for(positions_of(request, batch->options->context));
        if (needed > pages_count(pages)) {
            if (refuse(batch, request)) return -1;
            continue;
        }
        bool held = needed > pages_free(pages);
        batch->figures->held += held && !batch->held;
        batch->held = held;
        if (held) return 0;
        *next = request;
        batch->next++;
        return 0;
    }
    return 0;
}

/* Gives free places to those that wait; the number of places that are taken is the next step's. */
static int fill(struct batch *batch) {
    batch->count = 0;
    for (int i = 0; i < batch->options->sequences; i++) {
        struct place *place = &batch->places[i];
        for (struct request *request = NULL; !place->request;) {
            if (next_request(batch, &request)) return -1;
            if (!request) break;
            if (join(batch, i, request)) return -1;
        }
        if (!place->request) continue;
        batch->rows[batch->count] = i;
        batch->tokens[batch->count] = place->token;
        batch->positions[batch->count++] = place->position;
    }
    return 0;
}

/* --- steps --- */

/* The sequence's next token; -1: a logit was not finite. */
static int accept(struct batch *batch, struct place *place, int id) {
    struct request *request = place->request;
    if (id < 0) {
        struct error why;
        error_set(&why, "position %d: a logit is not finite", place->position);
        if (request_fail(request, &why, batch->error)) return -1;
        return leave(batch, place, "error");
    }
    if (!request->count) request->first_seconds = measure_now() - place->since;
    request->ids[request->count++] = id;
    batch->figures->tokens++;
    place->token = id;
    place->position++;
    if (!batch->options->ignore_eos && model_config_ends(batch->config, id)) return leave(batch, place, "eos");
    if (request->count < place->most) return 0;
    return leave(batch, place, request->count < request->max_tokens ? "context" : "length");
}

/* Waits for a step; rows that left while it was under way do not count. */
static int take(struct batch *batch) {
    double seconds;
    if (model_take(batch->model, batch->tokens, &seconds, batch->error)) return -1;
    batch->under_way--;
    batch->figures->steps++;
    for (int row = 0; row < batch->count; row++) {
        struct place *place = &batch->places[batch->rows[row]];
        if (!place->request) continue;
        if (accept(batch, place, batch->tokens[row])) return -1;
    }
    return 0;
}

/* Steps until a request will have all its tokens. */
static int steps_left(const struct batch *batch) {
    int left = INT_MAX;
    for (int row = 0; row < batch->count; row++) {
        const struct place *place = &batch->places[batch->rows[row]];
        int more = place->most - place->request->count;
        if (more < left) left = more;
    }
    return left;
}

/* Steps of the same rows until one leaves. */
static int run_rows(struct batch *batch) {
    batch->changed = false;
    if (model_begin(batch->model, batch->rows, batch->tokens, batch->positions, batch->count, batch->error)) return -1;
    while (!batch->changed && !*batch->options->interrupted) {
        for (int left = steps_left(batch); batch->under_way < AHEAD && batch->under_way < left; batch->under_way++)
            if (model_step(batch->model, batch->error)) return -1;
        if (take(batch)) return -1;
    }
    while (batch->under_way)
        if (take(batch)) return -1;
    return 0;
}

static int run(struct batch *batch) {
    do {
        if (fill(batch) || (batch->count && run_rows(batch))) return -1;
    } while (batch->count && !*batch->options->interrupted);
    for (int i = 0; i < batch->options->sequences; i++)
        if (batch->places[i].request && leave(batch, &batch->places[i], "cancelled")) return -1;
    return 0;
}

/* --- around them --- */

static int descending(const void *left, const void *right) {
    int a = *(const int *)left, b = *(const int *)right;
    return (a < b) - (a > b);
}

int batch_pages(const struct requests *requests, int context, int sequences, int *least, struct error *error) {
    int *pages = malloc((size_t)requests->count * sizeof *pages + 1), count = 0, most = 0;
    if (!pages) return error_set(error, "out of memory");
    for (int i = 0; i < requests->count; i++) {
        const struct request *r = &requests->list[i];
        if (!r->stop && r->prompt_count <= context) pages[count++] = pages_for(positions_of(r, context));
    }
    qsort(pages, (size_t)count, sizeof *pages, descending);
    for (int i = 0; i < count && i < sequences; i++) most += pages[i];
    *least = count ? pages[0] : 0;
    free(pages);
    return most;
}

/* model_expect or model_prepare of every prompt. */
static int each_prompt(struct batch *batch, int (*get)(struct model *model, int count, struct error *error)) {
    for (int i = 0; i < batch->requests->count && !*batch->options->interrupted; i++) {
        const struct request *r = &batch->requests->list[i];
        if (!r->stop && r->prompt_count > 1 && get(batch->model, r->prompt_count - 1, batch->error)) return -1;
    }
    return 0;
}

/* Ahead of the clock; again where a later number of rows has moved the kernels' workspace. */
static int prepare(struct batch *batch) {
    int open = requests_open(batch->requests);
    int most = open < batch->options->sequences ? open : batch->options->sequences;
    if (each_prompt(batch, model_expect)) return -1;
    for (int i = 0; i < most && !*batch->options->interrupted; i++)
        if (model_expect_steps(batch->model, i + 1, batch->error)) return -1;
    if (each_prompt(batch, model_prepare)) return -1;
    for (int i = 0; i < 2 * most && !*batch->options->interrupted; i++)
        if (model_prepare_steps(batch->model, i % most + 1, batch->error)) return -1;
    return 0;
}

static int ascending(const void *left, const void *right) {
    float a = *(const float *)left, b = *(const float *)right;
    return a < b ? -1 : a > b;
}

static void sum_up(const struct batch *batch, float *first) {
    struct batch_figures *f = batch->figures;
    int count = 0;
    for (int i = 0; i < batch->requests->count; i++) {
        const struct request *r = &batch->requests->list[i];
        if (r->count) first[count++] = (float)r->first_seconds;
        ++*(!r->stop ? &f->waiting : r->why ? &f->failed : !strcmp(r->stop, "cancelled") ? &f->cancelled : &f->done);
    }
    if (!count) return;
    qsort(first, (size_t)count, sizeof *first, ascending);
    f->first_p50_seconds = measure_median(first, count);
    f->first_p99_seconds = measure_quantile(first, count, 0.99);
}

static int allocate(struct batch *batch) {
    size_t sequences = (size_t)batch->options->sequences;
    batch->places = calloc(sequences, sizeof *batch->places);
    batch->rows = malloc(3 * sequences * sizeof *batch->rows);
    if (!batch->places || !batch->rows) return error_set(batch->error, "out of memory");
    batch->tokens = batch->rows + sequences;
    batch->positions = batch->tokens + sequences;
    return 0;
}

int batch_run(struct model *model, const struct model_config *config, const struct batch_options *options,
              struct requests *requests, batch_ended *ended, void *context, struct batch_figures *figures,
              struct error *error) {
    struct batch batch = {model, config, options, requests, ended, context, figures, error, .next = 0};
    float *first = malloc((size_t)requests->count * sizeof *first + 1);
    *figures = (struct batch_figures){.sequences = options->sequences};
    int status = first ? allocate(&batch) : error_set(error, "out of memory");
    if (!status) status = prepare(&batch);
    for (int i = 0; i < options->sequences; i++) model_release(model, i);
    double start = measure_now();
    if (!status) status = run(&batch);
    figures->seconds = measure_now() - start;
    if (!status) sum_up(&batch, first);
    free(batch.places);
    free(batch.rows);
    free(first);
    return status;
}
