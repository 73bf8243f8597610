/* tilebook decode: the end-to-end benchmark, and the way to see that tables and kernels give text. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/decoder/against.h"
#include "bench/decoder/batch.h"
#include "bench/decoder/generate.h"
#include "bench/decoder/options.h"
#include "bench/decoder/perplexity.h"
#include "bench/decoder/profile.h"
#include "bench/decoder/prompt.h"
#include "bench/decoder/report.h"
#include "bench/decoder/runs.h"
#include "bench/commands.h"
#include "bench/measure.h"
#include "bench/misses.h"

/* Everything that a run opens. */
struct session {
    const struct decode_options *options;
    struct model_config config;
    enum method method;
    struct communicator *communicator; /* --tp devices */
    struct device *device;             /* the first of them */
    struct checkpoint *checkpoint;
    struct tokenizer *tokenizer;
    struct tile_table table, old; /* old: of --against */
    bool has_table, has_old;
    struct model *model;
    int *prompt, prompt_count;
    struct requests requests; /* of --prompts */
    int written;              /* of them, replies */
    int context, sequences;
    int pages, least_pages;   /* of --prompts; 0 otherwise */
    struct ceilings ceilings; /* of --bench */
    struct generation generation;
    struct perplexity perplexity;
    struct profile profile;
    struct batch_figures batch;
    struct stream stream;
    FILE *logits;
};

/* --- the prompt --- */

/* Ids spread over the vocabulary, the same for every run, for each sequence. */
static int make_ids(struct session *s, int count, struct error *error) {
    size_t all = (size_t)s->options->batch * (size_t)count;
    s->prompt = malloc(all * sizeof *s->prompt);
    if (!s->prompt) return error_set(error, "out of memory");
    for (size_t i = 0; i < all; i++) s->prompt[i] = (int)((i * 7919 + 13) % (size_t)s->config.vocab);
    s->prompt_count = count;
    return 0;
}

static int read_text(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (!s->tokenizer)
        return error_set(error, "%s has no tokenizer.json, so a text cannot become tokens; give --prompt-ids 1,2,3",
                         o->model);
    size_t bytes = o->prompt ? strlen(o->prompt) : 0;
    char *file = o->prompt ? NULL : prompt_read(o->perplexity ? o->perplexity : o->prompt_file, &bytes, error);
    if (!o->prompt && !file) return -1;
    int status =
        prompt_encode(s->tokenizer, o->prompt ? o->prompt : file, bytes, o->chat, &s->prompt, &s->prompt_count, error);
    free(file);
    return status;
}

static int check_context(const struct session *s, struct error *error) {
    if (s->options->ctx <= s->config.max_position) return 0;
    return error_set(error, "--ctx %d: this model takes at most %d (config.json: max_position_embeddings)",
                     s->options->ctx, s->config.max_position);
}

/* --ctx, or as much as this run can use. */
static int choose_context(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    int most = s->config.max_position, wanted = o->ctx;
    if (!wanted) wanted = decode_options_made_up(o) ? BENCH_CONTEXT : o->perplexity ? PERPLEXITY_CONTEXT : 0;
    if (check_context(s, error)) return -1;
    s->context = wanted ? wanted : most;
    if (s->context > most) s->context = most;
    if (decode_options_made_up(o) || o->perplexity) return 0;
    if (s->prompt_count < 1) return error_set(error, "the prompt is empty; at least one token is needed");
    if (s->prompt_count > s->context)
        return error_set(error, "the prompt has %d tokens, more than %s %d", s->prompt_count,
                         o->ctx ? "--ctx" : "the model's max_position_embeddings (config.json),", s->context);
    if (!o->ctx && o->max_tokens < most - s->prompt_count) s->context = s->prompt_count + o->max_tokens;
    return 0;
}

/* --- many prompts --- */

static int write_reply(struct session *s, struct error *error) {
    const struct request *request = &s->requests.list[s->written++];
    if (!request->stop) return 0;
    if (request->why)
        fprintf(stderr, "tilebook decode: %s, line %d: %s\n", s->requests.path, request->line, request->why);
    return request_print(request, s->tokenizer, stdout, error);
}

/* Those whose turn it is: in the order of the file. */
static int write_replies(void *context, struct error *error) {
    struct session *s = context;
    while (s->written < s->requests.count && s->requests.list[s->written].stop)
        if (write_reply(s, error)) return -1;
    return 0;
}

/* The others that have ended, when no more will. */
static int write_rest(struct session *s, struct error *error) {
    while (s->written < s->requests.count)
        if (write_reply(s, error)) return -1;
    return 0;
}

/* What the longest needs, or --ctx; no more sequences than there are prompts. */
static int make_prompts(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    const struct requests_rules rules = {s->tokenizer, o->chat, s->config.vocab, o->max_tokens};
    int most = s->config.max_position, batch = o->batches.count ? o->batch : PROMPTS_BATCH;
    if (requests_read(o->prompts, &rules, &s->requests, error)) return error_prefix(error, "--prompts");
    int wanted = requests_context(&s->requests, most);
    s->context = o->ctx ? o->ctx : wanted ? wanted : most;
    if (check_context(s, error) || requests_fit(&s->requests, s->context, most, error)) return -1;
    int open = requests_open(&s->requests);
    s->sequences = open < batch ? open : batch;
    if (!open) return write_rest(s, error) ? -1 : error_set(error, "%s: no prompt can run; each says why", o->prompts);
    s->pages = batch_pages(&s->requests, s->context, s->sequences, &s->least_pages, error);
    return s->pages < 0 ? -1 : 0;
}

static int make_prompt(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (o->prompts) return make_prompts(s, error);
    s->sequences = o->batch;
    if (o->prompt_ids ? prompt_ids(o->prompt_ids, s->config.vocab, &s->prompt, &s->prompt_count, error)
                      : !decode_options_made_up(o) && read_text(s, error))
        return -1;
    if (choose_context(s, error)) return -1;
    if (!decode_options_made_up(o)) return 0;
    int least = o->profile ? PROFILE_LEAST : 2;
    if (o->max_tokens < least || o->max_tokens >= s->context)
        return error_set(error, "--%s: --max-tokens %d must be from %d to less than the context, %d",
                         o->profile ? "profile" : "bench", o->max_tokens, least, s->context);
    return make_ids(s, s->context - o->max_tokens, error);
}

/* --- opening --- */

static int open_table(struct session *s, const char *path, struct tile_table *table, bool *open, struct error *error) {
    const struct decode_options *o = s->options;
    const struct device *device = s->device;
    char message[TILES_MESSAGE];
    if (tiles_read(path, table, message)) return error_set(error, "%s", message);
    *open = true;
    if (!tiles_match(table, device->name, device->architecture, device->multiprocessors, device->kernels, message))
        return 0;
    return error_set(error,
                     "%s was not made for this: %.500s\nNext: tilebook tune --model %s --device %s, or --untuned", path,
                     message, o->model, device->id);
}

static int open_tables(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (o->table && !o->untuned && open_table(s, o->table, &s->table, &s->has_table, error)) return -1;
    if (!o->against || !strcmp(o->against, "untuned")) return 0;
    return open_table(s, o->against, &s->old, &s->has_old, error);
}

static int open_files(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer.json", o->model);
    if (!o->in_memory && checkpoint_open(o->model, &s->checkpoint, error)) return -1;
    if (access(path, F_OK)) return 0;
    return tokenizer_open(o->model, &s->tokenizer, error);
}

/* Ids that a tokenizer has a token for, and the model a logit. */
static int choices(const struct session *s) {
    int size = s->tokenizer ? tokenizer_size(s->tokenizer) : s->config.vocab;
    return size < s->config.vocab ? size : s->config.vocab;
}

static double given(double option, double otherwise) {
    return option >= 0 ? option : otherwise;
}

/* Greedy decoding takes nothing from generation_config.json: that speaks of sampling. A bench is greedy unless told
 * otherwise. */
static struct sampling choose_sampling(const struct session *s) {
    const struct decode_options *o = s->options;
    const struct model_config *c = &s->config;
    double temperature = given(o->temperature, c->do_sample && !o->bench ? c->temperature : 0);
    return (struct sampling){
        .temperature = temperature,
        .top_p = given(o->top_p, c->top_p),
        .top_k = o->top_k >= 0 ? o->top_k : c->top_k,
        .repetition_penalty = given(o->repetition_penalty, temperature > 0 ? c->repetition_penalty : 1),
        .seed = o->seed,
    };
}

static int open_devices(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (communicator_open(o->device, o->tp, &s->communicator, error))
        return o->tp > 1 ? error_prefix(error, "--tp %d", o->tp) : -1;
    s->device = s->communicator->devices[0];
    return 0;
}

static int open_session(struct session *s, struct error *error) {
    if (decode_options_config(s->options, s->options->method, &s->config, &s->method, error) ||
        open_devices(s, error) || open_tables(s, error) || open_files(s, error) || make_prompt(s, error))
        return -1;
    if (s->options->bench && measure_bandwidth(s->device, &s->ceilings, error)) return -1;
    const struct sampling sampling = choose_sampling(s);
    struct model_options options = {
        .method = s->method,
        .context = s->context,
        .kv = s->options->kv,
        .sequences = s->sequences,
        .pages = s->pages,
        .least_pages = s->least_pages,
        .kv_limit = (size_t)(s->options->kv_memory * (1 << 30)),
        .choices = choices(s),
        .samples = !s->options->profile && !s->options->perplexity && !sampling_greedy(&sampling),
        .scored = s->options->perplexity ? PERPLEXITY_ROWS : 0,
        .chunk = MODEL_CHUNK,
        .table = s->has_table ? &s->table : NULL,
        .communicator = s->communicator,
        .synthetic = s->options->in_memory,
        .seed = s->options->seed,
    };
    return model_create(s->device, &s->config, s->checkpoint, &options, &s->model, error);
}

static void close_session(struct session *s) {
    generation_free(&s->generation);
    profile_free(&s->profile);
    stream_free(&s->stream);
    if (s->logits) fclose(s->logits);
    model_destroy(s->model);
    if (s->has_table) tiles_free(&s->table);
    if (s->has_old) tiles_free(&s->old);
    free(s->prompt);
    requests_free(&s->requests);
    tokenizer_close(s->tokenizer);
    checkpoint_close(s->checkpoint);
    communicator_close(s->communicator);
}

/* --- running --- */

/* Before the work, so that a name that cannot be written costs none. */
static int open_logits(struct session *s, struct error *error) {
    const char *path = s->options->logits;
    if (path && !(s->logits = fopen(path, "wb"))) return error_set(error, "--logits %s: %s", path, strerror(errno));
    return 0;
}

static int write_logits(const struct session *s, struct error *error) {
    if (!s->logits) return 0;
    size_t count = (size_t)s->config.vocab;
    bool written = fwrite(s->generation.logits, sizeof(float), count, s->logits) == count && !fflush(s->logits);
    return written ? 0 : error_set(error, "--logits %s: %s", s->options->logits, strerror(errno));
}

static int report(const struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    struct report report = {
        .model = s->model,
        .config = &s->config,
        .device = s->device,
        .tp = o->tp,
        .method = s->method,
        .synthetic = o->in_memory || s->config.synthetic,
        .context = s->context,
        .regime = s->has_table ? s->table.regime : NULL,
        .table = s->has_table ? o->table
                 : o->untuned ? "built-in defaults (--untuned)"
                              : "built-in defaults (no table given)",
        .tuned = s->has_table,
        .ceiling_gbs = s->ceilings.read_gbs,
        .prompt = s->prompt,
        .prompt_count = s->prompt_count,
        .batch = s->sequences,
        .perplexity = o->perplexity ? &s->perplexity : NULL,
        .profile = o->profile ? &s->profile : NULL,
        .prompts = o->prompts ? &s->batch : NULL,
        .generation = &s->generation,
        .text = s->stream.text ? s->stream.text : "",
        .text_bytes = s->stream.length,
    };
    if (!o->json) report_print(&report, decode_options_made_up(o) || o->perplexity ? stdout : stderr);
    return o->json ? report_print_json(&report, stdout, error) : 0;
}

static int append_misses(const struct session *s, struct error *error) {
    struct misses misses = {.count = 0};
    int added = 0;
    if (!s->options->misses) return 0;
    int status = model_misses(s->model, &misses, error) || misses_append(s->options->misses, &misses, &added, error);
    if (!status && misses.count)
        fprintf(stderr, "tilebook decode: %d of the shapes and M are not in a table, %d new ones in %s\n", misses.count,
                added, s->options->misses);
    misses_free(&misses);
    return status ? error_prefix(error, "--misses") : 0;
}

static int run_perplexity(struct session *s, struct error *error) {
    if (perplexity_measure(s->model, s->prompt, s->prompt_count, s->context, &s->perplexity, error))
        return error_prefix(error, "--perplexity %s", s->options->perplexity);
    return append_misses(s, error) || report(s, error) ? -1 : 0;
}

static int run_profile(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (o->tp > 1) cupti_watch(s->device);
    if (profile_take(s->model, &s->config, s->prompt, s->prompt_count, o->batch, o->max_tokens, &s->profile, error))
        return -1;
    return append_misses(s, error) || report(s, error) ? -1 : 0;
}

static struct generate_options choose_generation(const struct session *s) {
    const struct decode_options *o = s->options;
    return (struct generate_options){
        .sampling = choose_sampling(s),
        .max_tokens = o->max_tokens,
        .context = s->context,
        .batch = o->batch,
        .ignore_eos = o->ignore_eos || o->bench,
        .bench = o->bench,
    };
}

/* 1 where the table is slower. */
static int run_against(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    struct generate_options options = choose_generation(s);
    struct against against = {
        .table = &s->table,
        .old = s->has_old ? &s->old : NULL,
        .name = o->table,
        .old_name = s->has_old ? o->against : "built-in defaults",
        .device = s->device->name,
        .method = method_name(s->method),
        .kv = o->kv,
        .batch = o->batch,
        .prompt_count = s->prompt_count,
    };
    if (against_run(&against, s->model, &s->config, s->prompt, &options, error)) return -1;
    if (!o->json) against_print(&against, stdout);
    if (o->json && against_print_json(&against, stdout, error)) return -1;
    return against.decode.verdict == VERDICT_SLOWER || against.prefill.verdict == VERDICT_SLOWER;
}

static int run_generation(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (open_logits(s, error)) return -1;
    struct generate_options options = choose_generation(s);
    s->stream.out = o->json || o->bench ? NULL : stdout;
    if (generate(s->model, &s->config, o->bench ? NULL : s->tokenizer, s->prompt, s->prompt_count, &options, &s->stream,
                 &s->generation, error))
        return -1;
    if (s->stream.out && isatty(STDOUT_FILENO)) putchar('\n');
    if (fflush(stdout)) return error_set(error, "stdout: %s", strerror(errno));
    return write_logits(s, error) || append_misses(s, error) || report(s, error) ? -1 : 0;
}

/* 130 when it was interrupted. */
static int run_prompts(struct session *s, struct error *error) {
    struct batch_options options = {
        .sampling = choose_sampling(s),
        .context = s->context,
        .sequences = s->sequences,
        .ignore_eos = s->options->ignore_eos,
        .interrupted = catch_interrupt(),
    };
    bool failed = write_replies(s, error) ||
                  batch_run(s->model, &s->config, &options, &s->requests, write_replies, s, &s->batch, error);
    if (write_rest(s, failed ? NULL : error) || failed || append_misses(s, error) || report(s, error)) return -1;
    if (*options.interrupted) {
        fprintf(stderr, "tilebook decode: interrupted; %d prompts were cut, %d have not begun\n", s->batch.cancelled,
                s->batch.waiting);
        return 130;
    }
    if (!s->batch.failed) return 0;
    return error_set(error, "%s: %d of %d prompts failed; each says why", s->requests.path, s->batch.failed,
                     s->requests.count);
}

/* -1, or the exit code. */
static int run_once(const struct decode_options *options, struct error *error) {
    struct session session = {.options = options};
    int status = open_session(&session, error);
    if (!status)
        status = options->perplexity ? run_perplexity(&session, error)
                 : options->profile  ? run_profile(&session, error)
                 : options->prompts  ? run_prompts(&session, error)
                 : options->against  ? run_against(&session, error)
                                     : run_generation(&session, error);
    close_session(&session);
    return status;
}

int cmd_decode(int argc, char **argv) {
    struct decode_options options;
    struct error error = {""};
    decode_options_parse(argc, argv, &options);
    int status = decode_options_table(&options) ? runs_table(&options, &error) : run_once(&options, &error);
    if (status < 0) fprintf(stderr, "tilebook decode: %s\n", error.text);
    decode_options_free(&options);
    return status < 0 ? 1 : status;
}
