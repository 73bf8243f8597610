/* The command line of `tilebook decode`. */
#include "bench/decoder/options.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/commands.h"
#include "bench/shapes.h"

enum { DEFAULT_TOKENS = 128, MOST_BATCH = 1024, MOST_DEVICES = 1024, MOST = 1 << 30 };

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
    OPTION_AGAINST,
    OPTION_MISSES,
    OPTION_CTX,
    OPTION_KV,
    OPTION_KV_MEMORY,
    OPTION_TP,
    OPTION_JSON,
    OPTION_LOGITS,
    OPTION_BENCH,
    OPTION_BATCH,
    OPTION_REPORT,
    OPTION_CSV,
    OPTION_MARKDOWN,
    OPTION_PERPLEXITY,
    OPTION_PROFILE,
    OPTION_PROMPTS,
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
    {"tp", OPTION_TP, "N", 0,
     "Tensor parallel: N GPUs share the model, that of --device (auto: the first) and the next ones; on the CPU N "
     "shares run by turns (default 1)",
     0},
    {"ctx", OPTION_CTX, "N", 0,
     "Most tokens of a sequence (default: prompt and --max-tokens, at most the model's; 4096 with --bench, --report, "
     "--profile, 2048 with --perplexity). The KV cache has room for as many of every sequence; with --prompts for what "
     "the --batch longest need",
     0},
    {"kv", OPTION_KV, "fp16|fp8", 0,
     "What keys and values are in the KV cache (default fp16). fp8 is e4m3 without a scale: half the memory, and half "
     "to read; numbers keep four significant bits and end at 448. A GPU needs compute capability 8.9 or later for it",
     0},
    {"kv-memory", OPTION_KV_MEMORY, "GIB", 0,
     "With --prompts: most memory of the KV cache (default: what is free, but for a quarter of that, at most 1 GiB). "
     "A prompt waits until there is room for it and all its new tokens",
     0},
    {0, 0, 0, 0, "The prompt (one of these, unless measuring):", 2},
    {"prompt", 'p', "TEXT", 0, "The text to continue", 0},
    {"prompt-file", OPTION_PROMPT_FILE, "FILE", 0, "The same, from a file; - is standard input", 0},
    {"prompt-ids", OPTION_PROMPT_IDS, "1,2,3", 0, "Token ids; works without a tokenizer.json", 0},
    {"prompts", OPTION_PROMPTS, "FILE", 0,
     "Many prompts, one a line (empty ones are left out), --batch at once: when one ends, the next takes its place. A "
     "FILE named *.jsonl has an "
     "object a line: {\"prompt\": TEXT} or {\"prompt_ids\": [1, 2]}, maybe \"max_tokens\". stdout gets an object a "
     "prompt, in the order of FILE: line, prompt_tokens, ids, text, stop, ttft_ms; or line, error. Ctrl-C ends with "
     "what is done",
     0},
    {"chat", OPTION_CHAT, 0, 0, "The prompt is a user's turn of a chat", 0},
    {0, 0, 0, 0, "Generating (defaults of sampling are those of generation_config.json):", 3},
    {"max-tokens", 'n', "N", 0, "Most new tokens (default 128)", 0},
    {"temperature", OPTION_TEMPERATURE, "T", 0,
     "0 is greedy: the largest logit, without a repetition penalty unless one is given", 0},
    {"top-k", OPTION_TOP_K, "K", 0, "Choose among the K likeliest; 0 is off", 0},
    {"top-p", OPTION_TOP_P, "P", 0, "Choose among the likeliest that together reach P; 1 is off", 0},
    {"repetition-penalty", OPTION_REPETITION_PENALTY, "R", 0, "Divide the logits of tokens already there; 1 is off", 0},
    {"seed", OPTION_SEED, "N", 0,
     "Of sampling, where a token depends on it and its position alone, and of --in-memory weights (0 by default)", 0},
    {"ignore-eos", OPTION_IGNORE_EOS, 0, 0, "Go on after an end-of-text token", 0},
    {0, 0, 0, 0, "Kernels:", 4},
    {"table", 't', "FILE", 0, "Tile table to take configurations from (default: built-in ones)", 0},
    {"untuned", OPTION_UNTUNED, 0, 0, "Built-in configurations, even if --table is given", 0},
    {"misses", OPTION_MISSES, "FILE", 0,
     "Append the shapes and M that the table has no row for; tilebook tune --from-misses tunes them", 0},
    {0, 0, 0, 0, "Output:", 5},
    {"json", OPTION_JSON, 0, 0,
     "One JSON object on stdout: prompt_ids, ids, text and the figures; of a table its rows; of --prompts the figures, "
     "behind the replies",
     0},
    {"logits", OPTION_LOGITS, "FILE", 0,
     "Write the logits of the last position that ran, raw fp32 (--max-tokens 1: the prompt's last)", 0},
    {0, 0, 0, 0, "Measuring:", 6},
    {"bench", OPTION_BENCH, 0, 0,
     "Time prefill, and decoding at the end of a full --ctx, with made-up ids and no end of text, greedily unless "
     "--temperature or --repetition-penalty is given; the figures go to stdout",
     0},
    {"report", OPTION_REPORT, 0, 0,
     "A table of --bench for every method, or that of --quantization, at each --batch and --ctx, each row in a process "
     "of its own; what fails is a row that says why",
     0},
    {"batch", OPTION_BATCH, "N", 0,
     "With --bench, --report and --profile: decode N sequences together, each of --ctx tokens (default 1). The first "
     "two take lists (1,8,64) of both, which make a table. With --prompts: most sequences at once (default 16)",
     0},
    {"perplexity", OPTION_PERPLEXITY, "FILE", 0,
     "Perplexity of a text: chunks of --ctx tokens, each from an empty cache, whose first token is given and whose "
     "others "
     "are foretold. With --report a column of the table, in chunks of 2048",
     0},
    {"profile", OPTION_PROFILE, 0, 0,
     "Where the time of the prefill of one prompt goes, and of a token behind it, by kernel and by layer, where "
     "--bench "
     "decodes: each the run of the median time, on a GPU by CUPTI. The prompt has --ctx less --max-tokens tokens",
     0},
    {"against", OPTION_AGAINST, "FILE|untuned", 0,
     "With --bench and --table: what that table is worth. Decodes with it and with FILE, or the built-in "
     "configurations, by turns; says tok/s of both, their ratio with its interval and the noise. Exit code 1 where the "
     "table is slower",
     0},
    {"csv", OPTION_CSV, "FILE", 0, "Write the table's rows as CSV too", 0},
    {"markdown", OPTION_MARKDOWN, "FILE", 0, "Write the table for pull requests", 0},
    {0}};

bool decode_options_made_up(const struct decode_options *o) {
    return o->bench || o->profile;
}

bool decode_options_table(const struct decode_options *o) {
    return o->report || o->batches.count > 1 || o->contexts.count > 1 || o->csv || o->markdown;
}

static void check_options(struct argp_state *state, const struct decode_options *o) {
    int prompts = !!o->prompt + !!o->prompt_file + !!o->prompt_ids + !!o->prompts;
    const char *measures = o->report       ? "--report"
                           : o->bench      ? "--bench"
                           : o->profile    ? "--profile"
                           : o->perplexity ? "--perplexity"
                                           : NULL;
    bool benches = o->report || o->bench;
    if (!o->model) argp_error(state, "--model is missing: a Hugging Face directory, or qwen2.5-14b with --in-memory");
    if (measures && (prompts || o->chat)) argp_error(state, "%s takes no prompt", measures);
    if (!measures && prompts != 1)
        argp_error(state,
                   "%s: give one of --prompt, --prompt-file, --prompt-ids, --prompts, or --bench, --report, --profile, "
                   "--perplexity",
                   prompts ? "more than one prompt" : "there is no prompt");
    if (o->profile && (benches || o->perplexity || decode_options_table(o)))
        argp_error(state, "--profile is a run of its own, of one --batch and --ctx");
    if (!benches && ((o->batch > 1 && !o->profile && !o->prompts) || decode_options_table(o)))
        argp_error(state, "--batch, lists, --csv and --markdown are for --bench and --report, --batch for --prompts "
                          "too; a prompt is one sequence");
    if (o->logits && decode_options_table(o)) argp_error(state, "--logits is for one run; a table has many");
    if (o->bench && !o->report && o->perplexity) argp_error(state, "--perplexity is a run of its own; or --report");
    if (o->report && o->perplexity && !strcmp(o->perplexity, "-"))
        argp_error(state, "--perplexity -: standard input cannot be read for every method; give a file");
    if (o->logits && (o->perplexity || o->profile || o->prompts))
        argp_error(state, "--logits does not go with %s", o->prompts ? "--prompts" : measures);
    if (o->against && (!o->bench || !o->table || o->untuned))
        argp_error(state, "--against is for --bench with --table: what that table is worth");
    if (o->against && (decode_options_table(o) || o->logits || o->misses))
        argp_error(state, "--against is a run of its own, without lists, --report, --logits and --misses");
    if (o->kv_memory > 0 && !o->prompts) argp_error(state, "--kv-memory is for --prompts; --ctx sizes the others");
    if (o->chat && o->prompt_ids) argp_error(state, "--chat needs a text, not --prompt-ids");
}

static struct counts parse_counts(struct argp_state *state, const char *option, const char *text, int most) {
    struct counts counts;
    struct error error;
    bool wrong = m_list_parse(text, &counts.list, &counts.count, &error);
    if (wrong || counts.list[counts.count - 1] > most)
        argp_error(state, "--%s %s: not whole numbers from 1 to %d, like 512 or 1,8,64", option, text, most);
    return counts;
}

static error_t parse_measuring_option(int key, char *text, struct argp_state *state) {
    struct decode_options *o = state->input;
    switch (key) {
    case OPTION_BATCH:
        free(o->batches.list);
        o->batches = parse_counts(state, "batch", text, MOST_BATCH);
        o->batch = o->batches.list[0];
        return 0;
    case OPTION_BENCH:
        o->bench = true;
        return 0;
    case OPTION_AGAINST:
        o->against = text;
        return 0;
    case OPTION_REPORT:
        o->report = true;
        return 0;
    case OPTION_CSV:
        o->csv = text;
        return 0;
    case OPTION_PROFILE:
        o->profile = true;
        return 0;
    case OPTION_PERPLEXITY:
        o->perplexity = text;
        return 0;
    case OPTION_MARKDOWN:
        o->markdown = text;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
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
    case OPTION_TP:
        o->tp = (int)argument_whole(state, "tp", text, 1, MOST_DEVICES);
        return 0;
    case OPTION_IN_MEMORY:
        o->in_memory = true;
        return 0;
    case OPTION_CTX:
        free(o->contexts.list);
        o->contexts = parse_counts(state, "ctx", text, MOST);
        o->ctx = o->contexts.list[0];
        return 0;
    case OPTION_KV:
        if (kv_parse(text, &o->kv, &error)) argp_error(state, "--kv %s", error.text);
        return 0;
    case OPTION_KV_MEMORY:
        o->kv_memory = argument_number(state, "kv-memory", text, 1e-6, 1e6);
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
    case ARGP_KEY_END:
        check_options(state, o);
        return 0;
    default:
        return parse_measuring_option(key, text, state);
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
    case OPTION_PROMPTS:
        o->prompts = text;
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

void decode_options_parse(int argc, char **argv, struct decode_options *options) {
    static const struct argp argp = {
        option_list,
        parse_option,
        0,
        "Generate text with a Qwen2 model. The text goes to stdout; what ran, how fast and "
        "in how much memory to stderr.\v"
        "Examples:\n"
        "  tilebook decode --model DIR --prompt 'Once upon a time' --max-tokens 64\n"
        "  tilebook decode --model DIR --chat --prompt-file FILE --table tiles.txt\n"
        "  tilebook decode --model DIR --prompts FILE --batch 64 > replies.jsonl\n"
        "  tilebook decode --model qwen2.5-14b --in-memory -q awq_marlin --bench\n"
        "  tilebook decode --model DIR --bench --table tiles.txt --against untuned\n"
        "  tilebook decode --model DIR --perplexity FILE --ctx 4096\n"
        "  tilebook decode --model DIR --report --batch 1,64 --ctx 512,4096 --csv decode.csv",
        0,
        0,
        0};
    static char name[] = "tilebook decode";
    *options = (struct decode_options){.device = "auto",
                                       .tp = 1,
                                       .batch = 1,
                                       .max_tokens = DEFAULT_TOKENS,
                                       .top_k = -1,
                                       .temperature = -1,
                                       .top_p = -1,
                                       .repetition_penalty = -1};
    argv[0] = name;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, 0, options);
}

void decode_options_free(struct decode_options *options) {
    free(options->batches.list);
    free(options->contexts.list);
}

static bool is_directory(const char *path) {
    struct stat status;
    return !stat(path, &status) && S_ISDIR(status.st_mode);
}

/* No file contradicts it. */
static void assume_quantization(struct model_config *config, enum method method) {
    if (method == METHOD_AUTO) return;
    bool gptq = method == METHOD_GPTQ || method == METHOD_GPTQ_MARLIN;
    config->quant = method == METHOD_NONE ? QUANT_NONE : gptq ? QUANT_GPTQ : QUANT_AWQ;
    if (config->quant != QUANT_NONE && !config->group && !config->group_all) config->group = 128;
    config->symmetric = gptq;
    config->desc_act = false;
}

int decode_options_config(const struct decode_options *o, enum method asked, struct model_config *config,
                          enum method *method, struct error *error) {
    if (is_directory(o->model)) {
        if (model_config_read(o->model, config, error)) return -1;
    } else {
        if (model_config_named(o->model, config, error)) return -1;
        if (!o->in_memory)
            return error_set(error, "%s is a shape without weights. Next: --in-memory for random ones, or --model DIR",
                             o->model);
    }
    if (o->in_memory) assume_quantization(config, asked);
    return method_resolve(asked, config, o->model, method, error);
}
