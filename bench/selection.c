#include "bench/selection.h"

#include <string.h>

#include "bench/commands.h"

enum { KEY_GROUP = 256, KEY_ZEROS, KEY_EPILOGUE, KEY_NORM, KEY_TYPE, KEY_TABLE, KEY_CACHE, KEY_REGIME, KEY_SEED };

const struct selection selection_default = {
    .sweep = {.ops = "all", .group = -1, .zeros = true, .cold = true, .seed = 1}, .device = "auto"};

static const struct argp_option option_list[] = {
    {"device", 'd', "D", 0, "cpu, cuda:N, or auto (default: the first GPU if there is one, else cpu)", 0},
    {"op", 'o', "LIST", 0, "awq_dequant, marlin_gemm, fp16_gemm, separated by commas, or all (default)", 0},
    {"kernel", 'k', "LIST", 0, "Only these kernels, as `tilebook kernels` names them", 0},
    {"shapes", 's', "LIST", 0,
     "qwen2.5-0.5b to -72b, llama-3-8b, llama-3-70b or a model directory, :tpN behind it for the part of one of N "
     "devices; or [NAME=]KxN[@M],..., or a file of those: @M is for this M alone, others are for all of --m "
     "(default: qwen2.5-14b on a GPU, 1024x1024 on the CPU)",
     0},
    {"m", 'm', "LIST", 0, "Rows of x: 1,16,256 or 1:8192:x2 or 1:64:+8 (default: 1,16,256 on a GPU, 1,16 on the CPU)",
     0},
    {"group", KEY_GROUP, "G", 0, "Rows of W that share a scale: 32, 64, 128 or all (default: the model's, else 128)",
     0},
    {"zeros", KEY_ZEROS, "0|1", 0, "Zero points stored (1, the default) or 8 everywhere (0)", 0},
    {"epilogue", KEY_EPILOGUE, "E", 0,
     "What the GEMMs do with their sums: none (the default: the bare GEMM), bias, residual, silu_mul, or model: what "
     "the decoder gives each layer, none to KxN and lm_head",
     0},
    {"norm", KEY_NORM, NULL, 0, "The GEMM also RMS-normalises x on its way in: only kernels that can", 0},
    {"type", KEY_TYPE, "fp16|bf16", 0,
     "Of the GEMMs' x, addend and y and of fp16_gemm's weights: fp16 (the default) or bf16", 0},
    {"config", 'c', "CONFIG", 0,
     "name=value,...; `all` for every legal one; `table` for those kernels alone that --table names; `default` for the "
     "built-in one (the default). May be repeated",
     0},
    {"table", KEY_TABLE, "FILE", 0, "Take the configurations from this tile table where it has them", 0},
    {"cache", KEY_CACHE, "cold|warm", 0, "Rotate over more weights than the cache holds (cold, the default) or not", 0},
    {"regime", KEY_REGIME, "stream|graph|pdl", 0,
     "Launch calls one by one (stream, the default), many as one graph, or that with programmatic dependent launch", 0},
    {"seed", KEY_SEED, "N", 0, "Of the random data (default 1)", 0},
    {0},
};

/* True for `yes`, false for `no`. */
static bool parse_choice(const char *option, const char *text, const char *yes, const char *no,
                         struct argp_state *state) {
    if (strcmp(text, yes) && strcmp(text, no))
        argp_error(state, "%s %s: accepted are %s and %s", option, text, yes, no);
    return !strcmp(text, yes);
}

static void add_config(struct sweep_options *sweep, const char *text, struct argp_state *state) {
    if (sweep->config_count == SWEEP_CONFIGS) argp_error(state, "more than %d times --config", SWEEP_CONFIGS);
    sweep->configs[sweep->config_count++] = text;
}

static void choose_epilogue(struct sweep_options *sweep, const char *text, struct argp_state *state) {
    struct error error;
    sweep->model_epilogues = !strcmp(text, "model");
    sweep->epilogue = EPILOGUE_NONE;
    if (!sweep->model_epilogues && epilogue_parse(text, &sweep->epilogue, &error))
        argp_error(state, "--epilogue: %s, model", error.text);
}

static void check_table(const struct selection *selection, struct argp_state *state) {
    for (int i = 0; i < selection->sweep.config_count; i++)
        if (!strcmp(selection->sweep.configs[i], "table") && !selection->table)
            argp_error(state, "--config table needs a tile table: --table FILE");
}

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    struct selection *selection = state->input;
    struct sweep_options *sweep = &selection->sweep;
    struct error error;
    switch (key) {
    case 'd':
        selection->device = argument_device(state, argument);
        break;
    case 'o':
        sweep->ops = argument;
        break;
    case 'k':
        sweep->kernels = argument;
        break;
    case 's':
        sweep->shapes = argument;
        break;
    case 'm':
        sweep->m = argument;
        break;
    case 'c':
        add_config(sweep, argument, state);
        break;
    case KEY_GROUP:
        sweep->group = argument_group(state, argument);
        break;
    case KEY_ZEROS:
        sweep->zeros = parse_choice("--zeros", argument, "1", "0", state);
        break;
    case KEY_EPILOGUE:
        choose_epilogue(sweep, argument, state);
        break;
    case KEY_NORM:
        sweep->norm = true;
        break;
    case KEY_TYPE:
        sweep->bf16 = parse_choice("--type", argument, "bf16", "fp16", state);
        break;
    case KEY_TABLE:
        selection->table = argument;
        break;
    case KEY_CACHE:
        sweep->cold = parse_choice("--cache", argument, "cold", "warm", state);
        break;
    case KEY_REGIME:
        if (regime_parse(argument, &selection->regime, &error)) argp_error(state, "--regime: %s", error.text);
        break;
    case KEY_SEED:
        sweep->seed = (uint64_t)argument_whole(state, "seed", argument, 0, INT64_MAX);
        break;
    case ARGP_KEY_END:
        check_table(selection, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp selection_parser = {.options = option_list, .parser = parse_option};

int selection_settle(struct selection *selection, const struct device *device, struct error *error) {
    bool gpu = device->backend == BACKEND_CUDA;
    selection->small = !selection->sweep.shapes && !gpu;
    if (!selection->sweep.shapes) selection->sweep.shapes = gpu ? "qwen2.5-14b" : "1024x1024";
    if (!selection->sweep.m) selection->sweep.m = gpu ? "1,16,256" : "1,16";
    return regime_check(selection->regime, device, error);
}

int selection_table(const struct selection *selection, const struct device *device, struct tile_table *table,
                    struct error *error) {
    char message[TILES_MESSAGE];
    *table = (struct tile_table){.count = 0};
    if (!selection->table) return 0;
    if (tiles_read(selection->table, table, message)) return error_set(error, "%s", message);
    if (!tiles_match(table, device->name, device->architecture, device->multiprocessors, device->kernels, message))
        return 0;
    tiles_free(table);
    return error_set(error, "%s", message);
}
