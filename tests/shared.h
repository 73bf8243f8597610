/* A synthetic model that several devices share, beside the same on one, for the suites of both backends. */
#ifndef TILEBOOK_TESTS_SHARED_H
#define TILEBOOK_TESTS_SHARED_H

#include "bench/decoder/synthetic.h"
#include "tests/golden.h"
#include "tests/model_dir.h"

/* With four ranks the last has no id of its own, with two the second has fewer than the first. */
enum { VOCAB = 180, CONTEXT = 96, BATCH = 3, PROMPT = 21, NEW = 12, REQUESTS = 7 };

static const struct model_config shape = {.hidden = 256,
                                          .intermediate = 512,
                                          .layers = 2,
                                          .heads = 8,
                                          .kv_heads = 4,
                                          .head_dim = 64,
                                          .vocab = VOCAB,
                                          .max_position = CONTEXT,
                                          .rms_eps = 1e-6,
                                          .rope_theta = 1e4,
                                          .dtype = "float16",
                                          .temperature = 1,
                                          .top_p = 1,
                                          .repetition_penalty = 1};

static char directory[64];

static inline void make_model(enum quant_method quant, bool tied) {
    struct synthetic_options options = {.config = shape, .seed = 4, .directory = directory};
    struct error error = {""};
    options.config.quant = quant;
    options.config.group = quant == QUANT_NONE ? 0 : 128;
    options.config.symmetric = quant == QUANT_GPTQ;
    options.config.tied = tied;
    model_dir_remove(directory);
    must(synthetic_write(&options, &error), &error);
}

/* A model of the directory, shared by so many. */
struct shared {
    struct communicator *communicator;
    struct model_config config;
    struct checkpoint *checkpoint;
    struct model *model;
};

static inline int open_shared(struct shared *s, const char *device, enum method method, int ranks,
                              struct error *error) {
    struct model_options options = {
        .method = method, .context = CONTEXT, .sequences = BATCH, .samples = golden_samples, .scored = 5, .chunk = 16};
    *s = (struct shared){0};
    must(communicator_open(device, ranks, &s->communicator, error), error);
    must(model_config_read(directory, &s->config, error), error);
    must(checkpoint_open(directory, &s->checkpoint, error), error);
    options.communicator = s->communicator;
    return model_create(s->communicator->devices[0], &s->config, s->checkpoint, &options, &s->model, error);
}

static inline void close_shared(struct shared *s) {
    model_destroy(s->model);
    checkpoint_close(s->checkpoint);
    communicator_close(s->communicator);
}

/* --- tokens --- */

static inline void fill_prompt(int which, int *ids, int count) {
    for (int i = 0; i < count; i++) ids[i] = (i * 37 + which * 59 + 5) % VOCAB;
}

/* Prompts of their own lengths in sequences of another order, then steps, two under way. */
static inline void run_batch(struct model *model, float logits[VOCAB], int tokens[NEW][BATCH]) {
    int prompt[PROMPT], ids[BATCH], positions[BATCH], sequences[BATCH] = {2, 0, 1};
    struct error error = {""};
    double seconds;
    for (int i = 0; i < BATCH; i++) {
        positions[i] = PROMPT - 4 * i;
        fill_prompt(i, prompt, positions[i]);
        must(model_forward(model, sequences[i], prompt, positions[i], 0, i ? NULL : logits, &error), &error);
        ids[i] = i + 7;
    }
    must(model_begin(model, sequences, ids, positions, BATCH, &error), &error);
    must(model_step(model, &error), &error);
    for (int step = 0; step < NEW; step++) {
        if (step + 1 < NEW) must(model_step(model, &error), &error);
        must(model_take(model, tokens[step], &seconds, &error), &error);
        assert_true(seconds > 0);
    }
}

static inline struct requests make_requests(void) {
    struct requests requests = {.path = "made up", .count = REQUESTS};
    requests.list = calloc(REQUESTS, sizeof *requests.list);
    for (int i = 0; i < REQUESTS; i++) {
        struct request *r = &requests.list[i];
        *r = (struct request){.line = i + 1, .prompt_count = 3 + 5 * i % 17, .max_tokens = 2 + 3 * i % 7};
        r->prompt = malloc((size_t)r->prompt_count * sizeof *r->prompt);
        fill_prompt(i, r->prompt, r->prompt_count);
    }
    return requests;
}

/* Requests that join and leave. */
static inline struct requests run_requests(struct shared *s) {
    static const volatile sig_atomic_t never;
    struct requests requests = make_requests();
    struct batch_figures figures;
    struct error error = {""};
    int ended = 0;
    const struct batch_options options = {.sampling = {.top_p = 1, .repetition_penalty = 1},
                                          .context = CONTEXT,
                                          .sequences = BATCH,
                                          .ignore_eos = true,
                                          .interrupted = &never};
    must(batch_run(s->model, &s->config, &options, &requests, golden_ended, &ended, &figures, &error), &error);
    assert_int_equal(figures.done, REQUESTS);
    return requests;
}

struct outcome {
    float logits[VOCAB];
    int tokens[NEW][BATCH];
    struct requests requests;
    double score;
};

static inline struct outcome outcome_of(const char *device, enum method method, int ranks) {
    struct shared s;
    struct outcome outcome;
    struct error error = {""};
    int prompt[PROMPT];
    must(open_shared(&s, device, method, ranks, &error), &error);
    run_batch(s.model, outcome.logits, outcome.tokens);
    fill_prompt(9, prompt, PROMPT);
    must(model_score(s.model, prompt, PROMPT, &outcome.score, &error), &error);
    outcome.requests = run_requests(&s);
    close_shared(&s);
    return outcome;
}

static inline void check_outcomes(const struct outcome *a, const struct outcome *b, const char *what) {
    double off = relative_error(a->logits, b->logits, VOCAB);
    if (!(off <= GOLDEN_TOLERANCE)) fail_msg("%s: logits are off by %g", what, off);
    if (memcmp(a->tokens, b->tokens, sizeof a->tokens)) fail_msg("%s: other tokens in a batch", what);
    if (!(fabs(a->score - b->score) < 0.01)) fail_msg("%s: scores %g and %g", what, a->score, b->score);
    for (int i = 0; i < REQUESTS; i++) {
        const struct request *r = &a->requests.list[i], *other = &b->requests.list[i];
        assert_int_equal(r->count, other->count);
        if (memcmp(r->ids, other->ids, (size_t)r->count * sizeof *r->ids)) fail_msg("%s: request %d differs", what, i);
    }
}

/* With 2, 4 ... up to `most` ranks. */
static inline void check_method(const char *device, enum method method, int most) {
    struct outcome one = outcome_of(device, method, 1);
    for (int ranks = 2; ranks <= most; ranks *= 2) {
        struct outcome shared = outcome_of(device, method, ranks);
        check_outcomes(&one, &shared, method_name(method));
        requests_free(&shared.requests);
    }
    requests_free(&one.requests);
}

#endif
