#include "bench/decoder/generate.h"

#include <stdlib.h>
#include <string.h>

#include "bench/measure.h"

/* Steps that may be under way: one runs while the host reads the token of the one before. */
enum { AHEAD = 2 };

/* A bench prefills no more once it has done so for this long. */
static const double prefill_limit_s = 1;

struct run {
    struct model *model;
    const struct model_config *config;
    const struct tokenizer *tokenizer;
    const struct generate_options *options;
    const int *prompt;
    int prompt_count;
    struct stream *stream;
    struct generation *out;
    struct error *error;
    int *tokens, *positions; /* (batch): what runs next */
    int under_way;
};

/* Whether all tokens are there. */
static int check_tokens(const struct run *run, int count, int position) {
    for (int i = 0; i < count; i++)
        if (run->tokens[i] < 0) return error_set(run->error, "position %d: a logit is not finite", position);
    return 0;
}

/* The token behind a sequence's prompt, whose logits are there. */
static int choose_first(struct run *run, int sequence, const int *prompt) {
    const struct sampling *sampling = &run->options->sampling;
    int position = run->prompt_count - 1;
    if (!sampling_greedy(sampling) &&
        model_sample(run->model, sequence, sampling, prompt, run->prompt_count, run->error))
        return -1;
    return model_choose(run->model, sequence, position, &run->tokens[sequence], run->error);
}

/* The first sequence comes last, so that its logits stay. */
static int prefill_once(struct run *run) {
    int count = run->prompt_count;
    for (int i = run->options->batch - 1; i >= 0; i--) {
        const int *prompt = run->prompt + (size_t)i * (size_t)count;
        if (run->options->max_tokens < 1
                ? model_forward(run->model, i, prompt, count, 0, run->out->logits, run->error)
                : model_prefill(run->model, i, prompt, count, 0, run->error) || choose_first(run, i, prompt))
            return -1;
        run->positions[i] = count;
    }
    return check_tokens(run, run->options->batch, count - 1);
}

static int prefill(struct run *run) {
    struct generation *out = run->out;
    double start = measure_now(), before = start;
    do {
        if (prefill_once(run)) return -1;
        double after = measure_now();
        out->prefill_seconds[out->prefills++] = after - before;
        before = after;
    } while (run->options->bench && out->prefills < GENERATE_PREFILLS && before - start < prefill_limit_s);
    if (run->options->max_tokens > 0) out->ids[out->count++] = run->tokens[0];
    return 0;
}

/* Steps that are still to come unless the text ends: as many as tokens are wanted and the context has room for. */
static int steps_left(const struct run *run) {
    int wanted = run->options->max_tokens - run->out->count;
    int room = run->options->context - run->prompt_count - run->out->count + 1;
    return wanted < room ? wanted : room;
}

/* Takes the tokens of a step, of which more are under way. */
static int next(struct run *run) {
    struct generation *out = run->out;
    int batch = run->options->batch;
    if (out->count == 1 && model_begin(run->model, NULL, run->tokens, run->positions, batch, run->error)) return -1;
    for (; run->under_way < AHEAD && run->under_way < steps_left(run); run->under_way++)
        if (model_step(run->model, run->error)) return -1;
    if (model_take(run->model, run->tokens, &out->step_seconds[out->count - 1], run->error)) return -1;
    run->under_way--;
    if (check_tokens(run, batch, run->prompt_count + out->count - 1)) return -1;
    out->ids[out->count++] = run->tokens[0];
    return 0;
}

/* The logits from which the last token was chosen; steps that ran beyond it have left others, then it runs again. */
static int last_logits(struct run *run) {
    struct generation *out = run->out;
    int position = run->prompt_count + out->count - 2, ignored;
    double seconds;
    if (!out->count) return 0; /* no token was chosen; the prompt's logits are read */
    if (run->under_way &&
        (model_begin(run->model, NULL, &out->ids[out->count - 2], &position, 1, run->error) ||
         model_step(run->model, run->error) || model_take(run->model, &ignored, &seconds, run->error)))
        return -1;
    return model_logits(run->model, 0, out->logits, run->error);
}

static void show(struct run *run, int id) {
    size_t bytes = 0;
    if (!run->tokenizer || tokenizer_special(run->tokenizer, id)) return;
    const char *text = tokenizer_token(run->tokenizer, id, &bytes);
    if (text) stream_write(run->stream, text, bytes);
}

/* The last id is never run: nothing would follow from it. */
static int decode(struct run *run) {
    struct generation *out = run->out;
    if (prefill(run)) return -1;
    while (out->count) {
        int last = out->ids[out->count - 1];
        out->stop = "eos";
        if (!run->options->ignore_eos && model_config_ends(run->config, last)) break;
        show(run, last);
        out->stop = "length";
        if (out->count == run->options->max_tokens) break;
        out->stop = "context";
        if (run->prompt_count + out->count - 1 == run->options->context) break;
        if (next(run)) return -1;
    }
    if (last_logits(run)) return -1;
    if (run->tokenizer) stream_end(run->stream);
    if (!run->stream->failed) return 0;
    return error_set(run->error, "the text could not be written: %s", strerror(run->stream->failed));
}

/* One chunk and a few steps; what they leave in the cache is overwritten. */
static int warm_up(struct run *run) {
    int count = run->prompt_count < MODEL_CHUNK ? run->prompt_count : MODEL_CHUNK, batch = run->options->batch;
    double seconds;
    if (model_forward(run->model, 0, run->prompt, count, 0, run->out->logits, run->error)) return -1;
    if (model_begin(run->model, NULL, run->tokens, run->positions, batch, run->error)) return -1;
    for (int i = 0; i < 2; i++)
        if (model_step(run->model, run->error) || model_take(run->model, run->tokens, &seconds, run->error)) return -1;
    return 0;
}

static int allocate(struct run *run) {
    struct generation *out = run->out;
    int room = run->options->context - run->prompt_count + 1;
    int most = run->options->max_tokens < room ? run->options->max_tokens : room;
    size_t batch = (size_t)run->options->batch;
    run->tokens = calloc(batch, sizeof *run->tokens);
    run->positions = calloc(batch, sizeof *run->positions);
    out->ids = malloc((size_t)(most + 1) * sizeof *out->ids);
    out->step_seconds = malloc((size_t)(most + 1) * sizeof *out->step_seconds);
    out->logits = malloc((size_t)run->config->vocab * sizeof *out->logits);
    if (run->tokens && run->positions && out->ids && out->step_seconds && out->logits) return 0;
    return error_set(run->error, "out of memory");
}

static int prepare(struct run *run) {
    if (allocate(run)) return -1;
    if (model_expect(run->model, run->prompt_count, run->error) ||
        model_expect_steps(run->model, run->options->batch, run->error) ||
        model_prepare(run->model, run->prompt_count, run->error) ||
        model_prepare_steps(run->model, run->options->batch, run->error))
        return -1;
    return run->options->bench ? warm_up(run) : 0;
}

int generate(struct model *model, const struct model_config *config, const struct tokenizer *tokenizer,
             const int *prompt, int prompt_count, const struct generate_options *options, struct stream *stream,
             struct generation *generation, struct error *error) {
    struct run run = {model,        config, tokenizer,  options, prompt,
                      prompt_count, stream, generation, error,   .under_way = 0};
    const char *clock = model_on_gpu(model) ? "GPU events" : "host clock";
    *generation = (struct generation){.stop = "length", .batch = options->batch, .clock = clock};
    int status = prepare(&run) || decode(&run) ? -1 : 0;
    free(run.tokens);
    free(run.positions);
    if (status) generation_free(generation);
    return status;
}

void generation_free(struct generation *generation) {
    free(generation->ids);
    free(generation->step_seconds);
    free(generation->logits);
    *generation = (struct generation){0};
}

uint64_t generation_hash(const struct generation *generation, int vocab) {
    const unsigned char *bytes = (const unsigned char *)generation->logits;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < (size_t)vocab * sizeof *generation->logits; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}
