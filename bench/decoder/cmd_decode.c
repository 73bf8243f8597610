/* tilebook decode: the end-to-end benchmark, and the way to see that tables and kernels give text. */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/decoder/generate.h"
#include "bench/decoder/prompt.h"
#include "bench/decoder/report.h"
#include "bench/commands.h"
#include "bench/misses.h"

enum { BENCH_CONTEXT = 4096, DEFAULT_TOKENS = 128, MOST_BATCH = 1024, MOST = 1 << 30 };

struct decode_options {
    const char *model, *device, *prompt, *prompt_file, *prompt_ids, *table, *misses, *logits;
    enum method method;
    bool in_memory, chat, ignore_eos, untuned, json, bench;
    int max_tokens, ctx, batch, top_k;             /* -1: not given; ctx 0 */
    double temperature, top_p, repetition_penalty; /* -1: not given */
    unsigned long long seed;
};

/* Everything that a run opens. */
struct session {
    const struct decode_options *options;
    struct model_config config;
    enum method method;
    struct device *device;
    struct checkpoint *checkpoint;
    struct tokenizer *tokenizer;
    struct tile_table table;
    bool has_table;
    struct model *model;
    int *prompt, prompt_count;
    int context;
    struct generation generation;
    struct stream stream;
    FILE *logits;
};

/* --- options --- */

enum {
    OPTION_IN_MEMORY = 256,
    OPTION_PROMPT_FILE,
    OPTION_PROMPT_IDS,
    OPTION_CHAT,
    OPTION_TEMPERATURE,
    OPTION_TOP_P,
    OPTION_TOP_K,
    OPTION_REPETITION_PENALTY,
    OPTION_SEED,
    OPTION_IGNORE_EOS,
    OPTION_TABLE,
    OPTION_UNTUNED,
    OPTION_MISSES,
    OPTION_CTX,
    OPTION_JSON,
    OPTION_LOGITS,
    OPTION_BENCH,
    OPTION_BATCH,
};

static const struct argp_option option_list[] = {
    {0, 0, 0, 0, "The model:", 1},
    {"model", 'm', "DIR|NAME", 0, "A Hugging Face directory; or a known shape (qwen2.5-14b), with --in-memory", 0},
    {"in-memory", OPTION_IN_MEMORY, 0, 0, "Make random weights on the device instead of reading them", 0},
    {"quantization", 'q', "METHOD", 0,
     "auto (default), none, awq, awq_marlin, gptq, gptq_marlin. awq and gptq dequantise before an fp16 GEMM, *_marlin "
     "run the repacked int4 GEMM",
     0},
    {"device", 'd', "auto|cpu|cuda:N", 0, "Where to run (default auto: a GPU if there is one)", 0},
    {"ctx", OPTION_CTX, "N", 0,
     "Tokens of KV cache (default: prompt and --max-tokens, at most the model's; with --bench 4096)", 0},
    {0, 0, 0, 0, "The prompt (one of these, unless --bench):", 2},
    {"prompt", 'p', "TEXT", 0, "The text to continue", 0},
    {"prompt-file", OPTION_PROMPT_FILE, "FILE", 0, "The same, from a file; - is standard input", 0},
    {"prompt-ids", OPTION_PROMPT_IDS, "1,2,3", 0, "Token ids; works without a tokenizer.json", 0},
    {"chat", OPTION_CHAT, 0, 0, "The prompt is a user's turn of a chat", 0},
    {0, 0, 0, 0, "Generating (defaults of sampling are those of generation_config.json):", 3},
    {"max-tokens", 'n', "N", 0, "Most new tokens (default 128)", 0},
    {"temperature", OPTION_TEMPERATURE, "T", 0,
     "0 is greedy: the largest logit, without a repetition penalty unless one is given", 0},
    {"top-k", OPTION_TOP_K, "K", 0, "Choose among the K likeliest; 0 is off", 0},
    {"top-p", OPTION_TOP_P, "P", 0, "Choose among the likeliest that together reach P; 1 is off", 0},
    {"repetition-penalty", OPTION_REPETITION_PENALTY, "R", 0, "Divide the logits of tokens already there; 1 is off", 0},
    {"seed", OPTION_SEED, "N", 0, "Of sampling and of --in-memory weights (0 by default)", 0},
    {"ignore-eos", OPTION_IGNORE_EOS, 0, 0, "Go on after an end-of-text token", 0},
    {0, 0, 0, 0, "Kernels:", 4},
    {"table", 't', "FILE", 0, "Tile table to take configurations from (default: built-in ones)", 0},
    {"untuned", OPTION_UNTUNED, 0, 0, "Built-in configurations, even if --table is given", 0},
    {"misses", OPTION_MISSES, "FILE", 0,
     "Append the shapes and M that the table has no row for; tilebook tune --from-misses tunes them", 0},
    {0, 0, 0, 0, "Output:", 5},
    {"json", OPTION_JSON, 0, 0, "One JSON object on stdout: prompt_ids, ids, text and the figures", 0},
    {"logits", OPTION_LOGITS, "FILE", 0,
     "Write the logits of the last position that ran, raw fp32 (--max-tokens 1: the prompt's last)", 0},
    {"bench", OPTION_BENCH, 0, 0,
     "Time decoding at the end of a full --ctx, with made-up ids and no end of text; the figures go to stdout", 0},
    {"batch", OPTION_BATCH, "N", 0, "With --bench: decode N sequences together, each of --ctx tokens (default 1)", 0},
    {0}};

static void check_options(struct argp_state *state, const struct decode_options *o) {
    int prompts = !!o->prompt + !!o->prompt_file + !!o->prompt_ids;
    if (!o->model) argp_error(state, "--model is missing: a Hugging Face directory, or qwen2.5-14b with --in-memory");
    if (o->bench && (prompts || o->chat)) argp_error(state, "--bench makes its own prompt; give none");
    if (!o->bench && prompts != 1)
        argp_error(state, "%s: give one of --prompt, --prompt-file, --prompt-ids, or --bench",
                   prompts ? "more than one prompt" : "there is no prompt");
    if (o->batch > 1 && !o->bench) argp_error(state, "--batch is for --bench; a prompt is one sequence");
    if (o->chat && o->prompt_ids) argp_error(state, "--chat needs a text, not --prompt-ids");
}

static error_t parse_model_option(int key, char *text, struct argp_state *state) {
    struct decode_options *o = state->input;
    struct error error;
    switch (key) {
    case 'm':
        o->model = text;
        return 0;
    case 'q':
        if (method_parse(text, &o->method, &error)) argp_error(state, "--quantization: %s", error.text);
        return 0;
    case 'd':
        o->device = argument_device(state, text);
        return 0;
    case 't':
        o->table = text;
        return 0;
    case OPTION_IN_MEMORY:
        o->in_memory = true;
        return 0;
    case OPTION_CTX:
        o->ctx = (int)argument_whole(state, "ctx", text, 1, MOST);
        return 0;
    case OPTION_BATCH:
        o->batch = (int)argument_whole(state, "batch", text, 1, MOST_BATCH);
        return 0;
    case OPTION_UNTUNED:
        o->untuned = true;
        return 0;
    case OPTION_MISSES:
        o->misses = text;
        return 0;
    case OPTION_JSON:
        o->json = true;
        return 0;
    case OPTION_LOGITS:
        o->logits = text;
        return 0;
    case OPTION_BENCH:
        o->bench = true;
        return 0;
    case ARGP_KEY_END:
        check_options(state, o);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_option(int key, char *text, struct argp_state *state) {
    struct decode_options *o = state->input;
    switch (key) {
    case 'p':
        o->prompt = text;
        return 0;
    case OPTION_PROMPT_FILE:
        o->prompt_file = text;
        return 0;
    case OPTION_PROMPT_IDS:
        o->prompt_ids = text;
        return 0;
    case OPTION_CHAT:
        o->chat = true;
        return 0;
    case 'n':
        o->max_tokens = (int)argument_whole(state, "max-tokens", text, 0, MOST);
        return 0;
    case OPTION_TEMPERATURE:
        o->temperature = argument_number(state, "temperature", text, 0, 1e3);
        return 0;
    case OPTION_TOP_P:
        o->top_p = argument_number(state, "top-p", text, 0, 1);
        return 0;
    case OPTION_TOP_K:
        o->top_k = (int)argument_whole(state, "top-k", text, 0, MOST);
        return 0;
    case OPTION_REPETITION_PENALTY:
        o->repetition_penalty = argument_number(state, "repetition-penalty", text, 1e-3, 1e3);
        return 0;
    case OPTION_SEED:
        o->seed = (unsigned long long)argument_whole(state, "seed", text, 0, INT64_MAX);
        return 0;
    case OPTION_IGNORE_EOS:
        o->ignore_eos = true;
        return 0;
    default:
        return parse_model_option(key, text, state);
    }
}

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
    char *file = o->prompt ? NULL : prompt_read(o->prompt_file, &bytes, error);
    if (!o->prompt && !file) return -1;
    int status =
        prompt_encode(s->tokenizer, o->prompt ? o->prompt : file, bytes, o->chat, &s->prompt, &s->prompt_count, error);
    free(file);
    return status;
}

/* --ctx, or as much as this run can use. */
static int choose_context(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    int most = s->config.max_position, wanted = o->ctx ? o->ctx : o->bench ? BENCH_CONTEXT : 0;
    if (wanted > most && o->ctx)
        return error_set(error, "--ctx %d: this model takes at most %d (config.json: max_position_embeddings)", o->ctx,
                         most);
    s->context = wanted ? wanted : most;
    if (s->context > most) s->context = most;
    if (o->bench) return 0;
    if (s->prompt_count < 1) return error_set(error, "the prompt is empty; at least one token is needed");
    if (s->prompt_count > s->context)
        return error_set(error, "the prompt has %d tokens, more than %s %d", s->prompt_count,
                         o->ctx ? "--ctx" : "the model's max_position_embeddings (config.json),", s->context);
    if (!o->ctx && o->max_tokens < most - s->prompt_count) s->context = s->prompt_count + o->max_tokens;
    return 0;
}

static int make_prompt(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (o->prompt_ids ? prompt_ids(o->prompt_ids, s->config.vocab, &s->prompt, &s->prompt_count, error)
                      : !o->bench && read_text(s, error))
        return -1;
    if (choose_context(s, error)) return -1;
    if (!o->bench) return 0;
    if (o->max_tokens < 2 || o->max_tokens >= s->context)
        return error_set(error, "--bench: --max-tokens %d must be from 2 to less than the context, %d", o->max_tokens,
                         s->context);
    return make_ids(s, s->context - o->max_tokens, error);
}

/* --- opening --- */

static bool is_directory(const char *path) {
    struct stat status;
    return !stat(path, &status) && S_ISDIR(status.st_mode);
}

/* What --quantization says a model in memory is: no file contradicts it. */
static void assume_quantization(struct model_config *config, enum method method) {
    if (method == METHOD_AUTO) return;
    bool gptq = method == METHOD_GPTQ || method == METHOD_GPTQ_MARLIN;
    config->quant = method == METHOD_NONE ? QUANT_NONE : gptq ? QUANT_GPTQ : QUANT_AWQ;
    if (config->quant != QUANT_NONE && !config->group && !config->group_all) config->group = 128;
    config->symmetric = gptq;
    config->desc_act = false;
}

static int read_config(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (is_directory(o->model)) {
        if (model_config_read(o->model, &s->config, error)) return -1;
    } else {
        if (model_config_named(o->model, &s->config, error)) return -1;
        if (!o->in_memory)
            return error_set(error, "%s is a shape without weights. Next: --in-memory for random ones, or --model DIR",
                             o->model);
    }
    if (o->in_memory) assume_quantization(&s->config, o->method);
    return method_resolve(o->method, &s->config, o->model, &s->method, error);
}

static int open_table(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    const struct device *device = s->device;
    char message[TILES_MESSAGE];
    if (!o->table || o->untuned) return 0;
    if (tiles_read(o->table, &s->table, message)) return error_set(error, "%s", message);
    s->has_table = true;
    if (!tiles_match(&s->table, device->name, device->architecture, device->multiprocessors, device->kernels, message))
        return 0;
    return error_set(error,
                     "%s was not made for this: %.500s\nNext: tilebook tune --model %s --device %s, or --untuned",
                     o->table, message, o->model, device->id);
}

static int open_files(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer.json", o->model);
    if (!o->in_memory && checkpoint_open(o->model, &s->checkpoint, error)) return -1;
    if (access(path, F_OK)) return 0;
    return tokenizer_open(o->model, &s->tokenizer, error);
}

static int open_session(struct session *s, struct error *error) {
    if (read_config(s, error) || device_open(s->options->device, &s->device, error) || open_table(s, error) ||
        open_files(s, error) || make_prompt(s, error))
        return -1;
    struct model_options options = {
        .method = s->method,
        .context = s->context,
        .sequences = s->options->batch,
        .choices = s->tokenizer && tokenizer_size(s->tokenizer) < s->config.vocab ? tokenizer_size(s->tokenizer) : 0,
        .chunk = MODEL_CHUNK,
        .table = s->has_table ? &s->table : NULL,
        .synthetic = s->options->in_memory,
        .seed = s->options->seed,
    };
    return model_create(s->device, &s->config, s->checkpoint, &options, &s->model, error);
}

static void close_session(struct session *s) {
    generation_free(&s->generation);
    stream_free(&s->stream);
    if (s->logits) fclose(s->logits);
    model_destroy(s->model);
    if (s->has_table) tiles_free(&s->table);
    free(s->prompt);
    tokenizer_close(s->tokenizer);
    checkpoint_close(s->checkpoint);
    device_close(s->device);
}

/* --- running --- */

static double given(double option, double otherwise) {
    return option >= 0 ? option : otherwise;
}

/* Greedy decoding takes nothing from generation_config.json: that speaks of sampling. */
static struct sampling choose_sampling(const struct session *s) {
    const struct decode_options *o = s->options;
    const struct model_config *c = &s->config;
    double temperature = o->bench ? 0 : given(o->temperature, c->do_sample ? c->temperature : 0);
    return (struct sampling){
        .temperature = temperature,
        .top_p = given(o->top_p, c->top_p),
        .top_k = o->top_k >= 0 ? o->top_k : c->top_k,
        .repetition_penalty = given(o->repetition_penalty, temperature > 0 ? c->repetition_penalty : 1),
        .seed = o->seed,
    };
}

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
        .method = s->method,
        .synthetic = o->in_memory || s->config.synthetic,
        .context = s->context,
        .regime = s->has_table ? s->table.regime : NULL,
        .table = s->has_table ? o->table
                 : o->untuned ? "built-in defaults (--untuned)"
                              : "built-in defaults (no table given)",
        .prompt = s->prompt,
        .prompt_count = s->prompt_count,
        .generation = &s->generation,
        .text = s->stream.text ? s->stream.text : "",
        .text_bytes = s->stream.length,
    };
    if (!o->json) report_print(&report, o->bench ? stdout : stderr);
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

static int run(struct session *s, struct error *error) {
    const struct decode_options *o = s->options;
    if (open_session(s, error) || open_logits(s, error)) return -1;
    struct generate_options options = {
        .sampling = choose_sampling(s),
        .max_tokens = o->max_tokens,
        .context = s->context,
        .batch = o->batch,
        .ignore_eos = o->ignore_eos || o->bench,
        .warm_up = o->bench,
    };
    s->stream.out = o->json || o->bench ? NULL : stdout;
    if (generate(s->model, &s->config, o->bench ? NULL : s->tokenizer, s->prompt, s->prompt_count, &options, &s->stream,
                 &s->generation, error))
        return -1;
    if (s->stream.out && isatty(STDOUT_FILENO)) putchar('\n');
    if (fflush(stdout)) return error_set(error, "stdout: %s", strerror(errno));
    return write_logits(s, error) || append_misses(s, error) || report(s, error) ? -1 : 0;
}

int cmd_decode(int argc, char **argv) {
    static const struct argp argp = {
        option_list,
        parse_option,
        0,
        "Generate text with a Qwen2 model. The text goes to stdout; what ran, how fast and "
        "in how much memory to stderr.\v"
        "Examples:\n"
        "  tilebook decode --model DIR --prompt 'Once upon a time' --max-tokens 64\n"
        "  tilebook decode --model DIR --chat --prompt-file FILE --table tiles.txt\n"
        "  tilebook decode --model qwen2.5-14b --in-memory -q awq_marlin --bench",
        0,
        0,
        0};
    static char name[] = "tilebook decode";
    struct decode_options options = {.device = "auto",
                                     .batch = 1,
                                     .max_tokens = DEFAULT_TOKENS,
                                     .top_k = -1,
                                     .temperature = -1,
                                     .top_p = -1,
                                     .repetition_penalty = -1};
    argv[0] = name;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, 0, &options);
    struct session session = {.options = &options};
    struct error error = {""};
    int status = run(&session, &error);
    if (status) fprintf(stderr, "tilebook decode: %s\n", error.text);
    close_session(&session);
    return status ? 1 : 0;
}
