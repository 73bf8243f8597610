#include "bench/decoder/generate.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct run {
    struct model *model;
    const struct model_config *config;
    const struct tokenizer *tokenizer;
    const struct generate_options *options;
    const int *prompt;
    int prompt_count;
    struct sampler *sampler;
    struct stream *stream;
    struct generation *out;
    struct error *error;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* One forward call and the choice that follows; seconds of both. */
static int step(struct run *run, const int *ids, int count, int position, double *seconds) {
    double start = now();
    struct generation *out = run->out;
    if (model_forward(run->model, ids, count, position, out->logits, run->error)) return -1;
    if (run->options->max_tokens > 0) {
        int id = sampler_next(run->sampler, out->logits, run->error);
        if (id < 0) return error_prefix(run->error, "position %d", position + count - 1);
        out->ids[out->count++] = id;
    }
    *seconds = now() - start;
    return 0;
}

static bool ends_text(const struct run *run, int id) {
    for (int i = 0; i < run->config->eos_count; i++)
        if (run->config->eos[i] == id) return !run->options->ignore_eos;
    return false;
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
    if (step(run, run->prompt, run->prompt_count, 0, &out->prefill_seconds)) return -1;
    while (out->count) {
        int *last = &out->ids[out->count - 1], position = run->prompt_count + out->count - 1;
        out->stop = "eos";
        if (ends_text(run, *last)) break;
        show(run, *last);
        out->stop = "length";
        if (out->count == run->options->max_tokens) break;
        out->stop = "context";
        if (position == run->options->context) break;
        if (step(run, last, 1, position, &out->step_seconds[out->count - 1])) return -1;
    }
    if (run->tokenizer) stream_end(run->stream);
    if (!run->stream->failed) return 0;
    return error_set(run->error, "the text could not be written: %s", strerror(run->stream->failed));
}

/* One chunk and a few single tokens; what they leave in the cache is overwritten. */
static int warm_up(struct run *run) {
    int count = run->prompt_count < MODEL_CHUNK ? run->prompt_count : MODEL_CHUNK;
    if (model_forward(run->model, run->prompt, count, 0, run->out->logits, run->error)) return -1;
    for (int i = 0; i < 3; i++)
        if (model_forward(run->model, run->prompt, 1, i % run->prompt_count, run->out->logits, run->error)) return -1;
    return 0;
}

static int prepare(struct run *run) {
    const struct tokenizer *tokenizer = run->tokenizer;
    struct generation *out = run->out;
    int room = run->options->context - run->prompt_count + 1, size = run->config->vocab;
    int most = run->options->max_tokens < room ? run->options->max_tokens : room;
    if (tokenizer && tokenizer_size(tokenizer) < size) size = tokenizer_size(tokenizer);
    run->sampler = sampler_create(&run->options->sampling, size);
    out->ids = malloc((size_t)(most + 1) * sizeof *out->ids);
    out->step_seconds = malloc((size_t)(most + 1) * sizeof *out->step_seconds);
    out->logits = malloc((size_t)run->config->vocab * sizeof *out->logits);
    if (!run->sampler || !out->ids || !out->step_seconds || !out->logits) return error_set(run->error, "out of memory");
    for (int i = 0; i < run->prompt_count; i++) sampler_see(run->sampler, run->prompt[i]);
    if (model_prepare(run->model, run->prompt_count, run->error) || model_prepare(run->model, 1, run->error)) return -1;
    return run->options->warm_up ? warm_up(run) : 0;
}

int generate(struct model *model, const struct model_config *config, const struct tokenizer *tokenizer,
             const int *prompt, int prompt_count, const struct generate_options *options, struct stream *stream,
             struct generation *generation, struct error *error) {
    struct run run = {model, config, tokenizer, options, prompt, prompt_count, NULL, stream, generation, error};
    *generation = (struct generation){.stop = "length"};
    int status = prepare(&run) || decode(&run) ? -1 : 0;
    sampler_destroy(run.sampler);
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
