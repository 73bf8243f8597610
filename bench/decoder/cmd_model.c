#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/decoder/jsonfile.h"
#include "bench/decoder/model.h"
#include "bench/decoder/synthetic.h"
#include "bench/decoder/tensors.h"
#include "bench/decoder/tokenizer.h"
#include "bench/shapes.h"
#include "bench/commands.h"

static int fail(const struct error *error) {
    fflush(stdout);
    fprintf(stderr, "tilebook: %s\n", error->text);
    return 1;
}

/* --- info --- */

static error_t info_option(int key, char *argument, struct argp_state *state) {
    const char **directory = state->input;
    if (key == ARGP_KEY_END && !*directory) argp_error(state, "which directory?");
    if (key != ARGP_KEY_ARG) return key == ARGP_KEY_END ? 0 : ARGP_ERR_UNKNOWN;
    if (*directory) argp_error(state, "one directory only, and '%s' is a second", argument);
    *directory = argument;
    return 0;
}

/* Every tensor that the config asks for, with its shape; *others counts those that it does not. */
static int check_tensors(const struct model_config *config, const struct checkpoint *checkpoint, int *others,
                         struct error *error) {
    const unsigned floats = 1u << DTYPE_F32 | 1u << DTYPE_F16 | 1u << DTYPE_BF16;
    struct tensor_spec *specs;
    int count, status = 0;
    if (tensor_specs(config, &specs, &count, error)) return -1;
    for (int i = 0; i < count && !status; i++) {
        const struct tensor_spec *spec = &specs[i];
        unsigned dtypes = spec->dtype == DTYPE_I32 ? 1u << DTYPE_I32 : floats;
        if (!checkpoint_get(checkpoint, spec->name, dtypes, spec->shape[0], spec->shape[1], error)) status = -1;
    }
    free(specs);
    *others = checkpoint_count(checkpoint) - count;
    return status;
}

static void print_config(const char *directory, const struct model_config *c) {
    printf("model          %s%s\n", directory, c->synthetic ? " (synthetic weights)" : "");
    printf("architecture   Qwen2ForCausalLM: %d layers, hidden %d, intermediate %d\n", c->layers, c->hidden,
           c->intermediate);
    printf("attention      %d query heads and %d key-value heads of %d, rope theta %g, context %d\n", c->heads,
           c->kv_heads, c->head_dim, c->rope_theta, c->max_position);
    printf("vocabulary     %d, %s\n", c->vocab, c->tied ? "head tied to the embeddings" : "untied head");
    printf("dtype          %s\n", c->dtype);
}

static void print_quantization(const char *directory, const struct model_config *c) {
    const char *const methods[] = {"none", "awq", "gptq"};
    char group[32] = "one group for all of K";
    if (!c->group_all) snprintf(group, sizeof group, "group %d", c->group);
    if (c->quant == QUANT_NONE)
        printf("quantization   none (config.json has no quantization_config)\n");
    else
        printf("quantization   %s, 4 bits, %s, %s%s%s (%s)\n", methods[c->quant], group,
               c->symmetric ? "symmetric" : "zero points", c->desc_act ? ", desc_act" : "",
               c->gptq_v2 ? ", format gptq_v2" : "", c->quant_file);
    printf("runs with     ");
    for (enum method method = METHOD_NONE; method <= METHOD_GPTQ_MARLIN; method++) {
        enum method resolved;
        if (!method_resolve(method, c, directory, &resolved, NULL)) printf(" %s", method_name(method));
    }
    printf("\n");
}

static void print_tensors(const struct checkpoint *checkpoint, int others) {
    double bytes = 0;
    int files = 0;
    for (int i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct tensor *tensor = checkpoint_at(checkpoint, i);
        bool seen = false;
        for (int j = 0; j < i && !seen; j++) seen = checkpoint_at(checkpoint, j)->file == tensor->file;
        files += !seen;
        bytes += (double)tensor->bytes;
    }
    printf("tensors        %d in %d file%s, %.3f GB", checkpoint_count(checkpoint), files, files == 1 ? "" : "s",
           bytes / 1e9);
    if (others > 0) printf("; %d are not part of the architecture", others);
    printf("\n");
}

/* Weights, scales and zero points of each product that the decoder runs. */
static int print_shapes(const char *directory, const struct model_config *c, struct error *error) {
    struct shapes shapes;
    if (shapes_parse(directory, &shapes, error)) return -1;
    printf("\n%-10s %8s %8s %12s\n", "GEMM", "K", "N", "weights MB");
    for (int i = 0; i < shapes.count; i++) {
        const struct shape *shape = &shapes.list[i];
        double elements = (double)shape->k * shape->n, bytes = 2 * elements;
        double group = c->group_all ? shape->k : c->group;
        if (c->quant != QUANT_NONE && shape->quantized)
            bytes = elements / 2 + elements / group * (c->symmetric ? 2 : 2.5);
        printf("%-10s %8d %8d %12.2f\n", shape->layer, shape->k, shape->n, bytes / 1e6);
    }
    shapes_free(&shapes);
    return 0;
}

static int info(int argc, char **argv) {
    static const char help[] =
        "Say what a model directory holds: its shape, its tensors, how it is quantised and what it "
        "can run with. Every tensor is looked up and its shape checked.";
    const struct argp argp = {NULL, info_option, "DIR", help, NULL, NULL, NULL};
    const char *directory = NULL;
    struct model_config config;
    struct checkpoint *checkpoint;
    struct error error;
    int others;
    argp_parse(&argp, argc, argv, 0, NULL, &directory);
    if (model_config_read(directory, &config, &error)) return fail(&error);
    print_config(directory, &config);
    print_quantization(directory, &config);
    if (checkpoint_open(directory, &checkpoint, &error)) return fail(&error);
    int status = check_tensors(&config, checkpoint, &others, &error);
    if (!status) print_tensors(checkpoint, others);
    if (!status) status = print_shapes(directory, &config, &error);
    checkpoint_close(checkpoint);
    return status ? fail(&error) : 0;
}

/* --- tokenize --- */

struct tokenize_options {
    const char *directory;
    bool jsonl;
};

static error_t tokenize_option(int key, char *argument, struct argp_state *state) {
    struct tokenize_options *options = state->input;
    switch (key) {
    case 'j':
        options->jsonl = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->directory) argp_error(state, "one directory only, and '%s' is a second", argument);
        options->directory = argument;
        return 0;
    case ARGP_KEY_END:
        if (!options->directory) argp_error(state, "which directory?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int print_ids(const struct tokenizer *tokenizer, const char *text, size_t bytes, struct error *error) {
    int *ids, count;
    if (tokenizer_encode(tokenizer, text, bytes, &ids, &count, error)) return -1;
    putchar('[');
    for (int i = 0; i < count; i++) printf("%s%d", i ? ", " : "", ids[i]);
    printf("]\n");
    free(ids);
    /* A program on the other end may wait for this line before it writes the next. */
    if (fflush(stdout)) return error_set(error, "standard output: %s", strerror(errno));
    return 0;
}

static int tokenize_lines(const struct tokenizer *tokenizer, struct error *error) {
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    int status = 0;
    for (int number = 1; !status && (bytes = getline(&line, &room, stdin)) > 0; number++) {
        json_error_t where;
        json_t *text = json_loadb(line, (size_t)bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &where);
        if (json_is_string(text))
            status = print_ids(tokenizer, json_string_value(text), json_string_length(text), error);
        else
            status = error_set(error, "%s", text ? "not a JSON string" : where.text);
        if (status) error_prefix(error, "standard input: line %d", number);
        json_decref(text);
    }
    if (!status && ferror(stdin)) status = error_set(error, "standard input: %s", strerror(errno));
    free(line);
    return status;
}

static int tokenize_all(const struct tokenizer *tokenizer, struct error *error) {
    char *text = NULL;
    size_t room = 0, bytes = 0, got;
    do {
        if (bytes == room) {
            char *larger = realloc(text, room = 2 * room + 65536);
            if (!larger) {
                free(text);
                return error_set(error, "standard input: out of memory after %zu bytes", bytes);
            }
            text = larger;
        }
        got = fread(text + bytes, 1, room - bytes, stdin);
        bytes += got;
    } while (got);
    int status = ferror(stdin) ? error_set(error, "standard input: %s", strerror(errno))
                               : print_ids(tokenizer, text, bytes, error);
    free(text);
    return status;
}

static int tokenize(int argc, char **argv) {
    static const char help[] = "Read a text from standard input and write its token ids as a JSON array.\v"
                               "Examples:\n"
                               "  printf 'Hello world' | tilebook model tokenize DIR\n"
                               "  tilebook model tokenize DIR --jsonl <texts.jsonl >ids.jsonl\n";
    static const struct argp_option list[] = {
        {"jsonl", 'j', 0, 0, "Many texts: each line is a JSON string, and gives one line of ids", 0}, {0}};
    const struct argp argp = {list, tokenize_option, "DIR", help, NULL, NULL, NULL};
    struct tokenize_options options = {NULL, false};
    struct tokenizer *tokenizer;
    struct error error;
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    if (tokenizer_open(options.directory, &tokenizer, &error)) return fail(&error);
    int status = options.jsonl ? tokenize_lines(tokenizer, &error) : tokenize_all(tokenizer, &error);
    tokenizer_close(tokenizer);
    return status ? fail(&error) : 0;
}

/* --- make --- */

struct make_options {
    const char *like, *dtype;
    enum quant_method quant;
    int64_t seed;
    const char *directory;
};

static int parse_quantization(const char *text, enum quant_method *quant) {
    static const char *const names[] = {"none", "awq", "gptq"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, names[i])) {
            *quant = (enum quant_method)i;
            return 0;
        }
    return -1;
}

static error_t make_option(int key, char *argument, struct argp_state *state) {
    struct make_options *options = state->input;
    switch (key) {
    case 'l':
        options->like = argument;
        return 0;
    case 'q':
        if (parse_quantization(argument, &options->quant))
            argp_error(state, "--quantization %s: accepted: none, awq, gptq", argument);
        return 0;
    case 's':
        options->seed = argument_whole(state, "seed", argument, 0, INT64_MAX);
        return 0;
    case 't':
        if (strcmp(argument, "float16") && strcmp(argument, "bfloat16"))
            argp_error(state, "--dtype %s: accepted: float16, bfloat16", argument);
        options->dtype = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (options->directory) argp_error(state, "one directory only, and '%s' is a second", argument);
        options->directory = argument;
        return 0;
    case ARGP_KEY_END:
        if (!options->directory) argp_error(state, "which directory shall be written?");
        if (!options->like) argp_error(state, "--like is missing: qwen2.5-14b, or a model directory");
        if (options->quant != QUANT_NONE && options->dtype && strcmp(options->dtype, "float16"))
            argp_error(state, "--dtype %s: 4-bit checkpoints are float16", options->dtype);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void report(const char *file, int64_t bytes, int64_t done, int64_t total) {
    fprintf(stderr, "%s  %.3f GB  (%.0f%%)\n", file, (double)bytes / 1e9, 100.0 * (double)done / (double)total);
}

/* The shape to imitate, with the asked quantisation in place of its own. */
static int imitate(const struct make_options *options, struct synthetic_options *synthetic, struct error *error) {
    struct model_config *config = &synthetic->config;
    struct stat status;
    bool directory = strchr(options->like, '/') || (!stat(options->like, &status) && S_ISDIR(status.st_mode));
    if (directory ? model_config_read(options->like, config, error) : model_config_named(options->like, config, error))
        return -1;
    bool quantized = options->quant != QUANT_NONE;
    bool half = quantized || config->quant != QUANT_NONE || !strcmp(config->dtype, "float16");
    snprintf(config->dtype, sizeof config->dtype, "%s",
             options->dtype ? options->dtype
             : half         ? "float16"
                            : "bfloat16");
    config->quant = options->quant;
    config->group = quantized ? 128 : 0;
    config->symmetric = options->quant == QUANT_GPTQ;
    config->group_all = config->desc_act = config->gptq_v2 = false;
    synthetic->tokenizer = directory ? options->like : NULL;
    return 0;
}

static int make(int argc, char **argv) {
    static const char help[] =
        "Write a synthetic checkpoint: random weights with every tensor and file of a real one, for machines where "
        "weights "
        "cannot be had. What is made from it says \"synthetic weights\".\v"
        "The same seed gives the same bytes. 4-bit checkpoints have group 128: AWQ with zero points, GPTQ symmetric. "
        "The tokenizer is copied from --like DIR; for a model by name there is none, and the decoder works on ids.\n\n"
        "Example:\n"
        "  tilebook model make --like qwen2.5-14b --quantization awq DIR\n";
    static const struct argp_option list[] = {
        {"like", 'l', "NAME|DIR", 0, "Whose shape: qwen2.5-14b, or a directory with config.json", 0},
        {"quantization", 'q', "none|awq|gptq", 0, "How the weights are stored (default none)", 0},
        {"seed", 's', "N", 0, "Of the random numbers (default 0)", 0},
        {"dtype", 't', "float16|bfloat16", 0, "Of what is not quantised (default: the model's; float16 at 4 bits)", 0},
        {0}};
    const struct argp argp = {list, make_option, "DIR", help, NULL, NULL, NULL};
    struct make_options options = {.quant = QUANT_NONE};
    struct error error;
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    struct synthetic_options synthetic = {.directory = options.directory, .seed = options.seed, .report = report};
    if (imitate(&options, &synthetic, &error) || synthetic_write(&synthetic, &error)) return fail(&error);
    bool tokenizer = jsonfile_exists(options.directory, "tokenizer.json");
    fprintf(stderr, "%s: synthetic weights, seed %" PRId64 "%s\n", options.directory, options.seed,
            tokenizer ? "" : "; no tokenizer.json, so the decoder works on ids");
    return 0;
}

/* --- the command --- */

static const char usage[] =
    "usage: tilebook model ACTION [OPTIONS] DIR    (tilebook model ACTION --help tells more)\n\n"
    "  info      what a checkpoint is, and what it can run with\n"
    "  tokenize  the token ids of a text\n"
    "  make      write a synthetic checkpoint of any Qwen2 shape\n";

int cmd_model(int argc, char **argv) {
    static struct {
        char name[32];
        int (*run)(int argc, char **argv);
    } actions[] = {{"tilebook model info", info}, {"tilebook model tokenize", tokenize}, {"tilebook model make", make}};
    argp_err_exit_status = 2;
    if (argc < 2) {
        fputs(usage, stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "-?")) {
        fputs(usage, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(strrchr(actions[i].name, ' ') + 1, argv[1])) continue;
        argv[1] = actions[i].name;
        return actions[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "tilebook: model: there is no action '%s'\n\n%s", argv[1], usage);
    return 2;
}
