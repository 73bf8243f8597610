#include <stdlib.h>
#include <string.h>

#include "bench/commands.h"
#include "bench/compare.h"
#include "bench/cupti.h"
#include "bench/selection.h"

static const char program[] = "tilebook compare";

/* Without A against A only the margin stands between a verdict and the noise from one run to the next. */
static const double margin_of_files = 0.02;

enum { KEY_MARGIN = 512, KEY_FORMAT, KEY_FORCE, KEY_ROUNDS };

struct options {
    struct selection selection;
    const char *files[2];
    int file_count, rounds;
    double margin; /* negative: not given */
    enum compare_format format;
    bool force;
};

/* --- options --- */

static const struct argp_option option_list[] = {
    {"margin", KEY_MARGIN, "PERCENT", 0,
     "Least difference that counts (default 2 for files; 0 for two arms, whose noise is measured)", 0},
    {"format", KEY_FORMAT, "F", 0, "text (the default), csv, markdown or json", 0},
    {"force", KEY_FORCE, NULL, 0, "Compare files of different devices too", 0},
    {"rounds", KEY_ROUNDS, "N", 0, "Of A, A again and B, for two arms (default 25, at least 6)", 0},
    {0},
};

static const char doc[] =
    "Says of each row, and over all, whether B is faster or slower than A, or a tie.\v"
    "Two files are results of `tilebook sweep --benchmark_out=FILE`; with FILE.samples beside both, Mann and Whitney's "
    "test on all samples decides (two-sided, 5%), else p20 to p80 must not overlap.\n"
    "Without files two arms are measured against each other here and now, in random order: two --config, or two "
    "kernels (--kernel A,B), or both. A runs twice in every round; what it differs from itself by is the noise.\n"
    "A difference below the margin or the noise is a tie.\n"
    "\n"
    "Exit code: 1 if B is slower in any row, or failed where A did not; 2 if nothing could be compared.\n"
    "\n"
    "Examples:\n"
    "  tilebook compare main.json branch.json --format markdown\n"
    "  tilebook compare --shapes qwen2.5-14b --m 16 --kernel marlin_gemm/mma,marlin_gemm/wgmma\n"
    "  tilebook compare --op marlin_gemm --m 1,16 --config default --config table --table tiles.txt";

/* "3" or "3%" as a share. */
static double parse_margin(struct argp_state *state, const char *text) {
    char number[32];
    size_t length = strlen(text);
    if (length && text[length - 1] == '%') length--;
    snprintf(number, sizeof number, "%.*s", (int)length, text);
    return argument_number(state, "margin", number, 0, 1000) / 100;
}

static void check_files(const struct options *options, struct argp_state *state) {
    const struct sweep_options *sweep = &options->selection.sweep;
    if (options->file_count == 1) argp_error(state, "found one file; accepted are two, or none and two arms");
    if (options->rounds || options->selection.table || sweep->config_count || sweep->kernels || sweep->shapes ||
        sweep->m || strcmp(sweep->ops, "all"))
        argp_error(state, "two files are compared as they are: options that choose points do not go with them");
}

/* Exactly two arms. */
static void check_arms(const struct options *options, struct argp_state *state) {
    const struct sweep_options *sweep = &options->selection.sweep;
    const char *comma = sweep->kernels ? strchr(sweep->kernels, ',') : NULL;
    if (options->force) argp_error(state, "--force is for files");
    if ((comma && strchr(comma + 1, ',')) || sweep->config_count > 2)
        argp_error(state, "at most two kernels and two times --config are compared");
    if (!comma && sweep->config_count < 2) argp_error(state, "expected two files, two times --config, or --kernel A,B");
    for (int i = 0; i < sweep->config_count; i++)
        if (!strcmp(sweep->configs[i], "all")) argp_error(state, "--config all is many: name one");
}

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    struct options *options = state->input;
    struct error error;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->selection;
        break;
    case KEY_MARGIN:
        options->margin = parse_margin(state, argument);
        break;
    case KEY_FORMAT:
        if (compare_format_parse(argument, &options->format, &error)) argp_error(state, "--format: %s", error.text);
        break;
    case KEY_FORCE:
        options->force = true;
        break;
    case KEY_ROUNDS:
        options->rounds = (int)argument_whole(state, "rounds", argument, 6, 10000);
        break;
    case ARGP_KEY_ARG:
        if (options->file_count == 2) argp_error(state, "found a third file: %s", argument);
        options->files[options->file_count++] = argument;
        break;
    case ARGP_KEY_END:
        if (options->file_count)
            check_files(options, state);
        else
            check_arms(options, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&selection_parser, 0, NULL, 0}, {0}};
static const struct argp parser = {
    .options = option_list, .parser = parse_option, .args_doc = "[A B]", .doc = doc, .children = children};

/* --- running --- */

static int fail(const struct error *error) {
    fprintf(stderr, "%s: %s\n", program, error->text);
    return 2;
}

/* Writes it; the exit code. */
static int report(const struct options *options, const struct compare *compare, const char *a, const char *b) {
    struct error error;
    if (compare_write(stdout, compare, options->format, a, b, &error)) return fail(&error);
    return compare_regressed(compare) ? 1 : 0;
}

static int run_files(const struct options *options) {
    struct compare compare;
    struct error error;
    double margin = options->margin < 0 ? margin_of_files : options->margin;
    const char *a = options->files[0], *b = options->files[1];
    int code = compare_files(a, b, margin, options->force, stderr, &compare, &error) ? fail(&error)
                                                                                     : report(options, &compare, a, b);
    compare_free(&compare);
    return code;
}

/* What an arm runs, and its words for that. */
struct arm {
    char kernel[64], text[MAX_CONFIG_TEXT + 128];
    struct sweep *sweep;
};

static int create_arm(const struct selection *selection, struct device *device, const struct tile_table *table,
                      int which, struct arm *arm, struct error *error) {
    struct sweep_options options = selection->sweep;
    const char *kernels = options.kernels, *comma = kernels ? strchr(kernels, ',') : NULL;
    if (comma) {
        snprintf(arm->kernel, sizeof arm->kernel, "%.*s", which ? (int)strlen(comma + 1) : (int)(comma - kernels),
                 which ? comma + 1 : kernels);
        options.kernels = arm->kernel;
    }
    if (options.config_count == 2) {
        options.configs[0] = options.configs[which];
        options.config_count = 1;
    }
    snprintf(arm->text, sizeof arm->text, "%s, %s", options.kernels ? options.kernels : options.ops,
             options.config_count ? options.configs[0]
             : table              ? "the table's or default"
                                  : "default");
    return sweep_create(device, &options, table, &arm->sweep, error);
}

static int run_arms(const struct options *options, struct arm arms[2]) {
    struct compare compare;
    struct error error;
    const volatile sig_atomic_t *interrupted = catch_interrupt();
    for (int i = 0; i < 2; i++) {
        arms[i].sweep->measuring.regime = options->selection.regime;
        arms[i].sweep->words = stderr;
    }
    int rounds = options->rounds ? options->rounds : 25;
    double margin = options->margin < 0 ? 0 : options->margin;
    const struct sweep *first = arms[0].sweep;
    fprintf(stderr, "%s: %d point%s of A on %s (%s), %d rounds each\n", program, first->count,
            first->count == 1 ? "" : "s", first->device->id, first->device->name, rounds);
    int code = compare_arms(arms[0].sweep, arms[1].sweep, rounds, margin, interrupted, &compare, &error)
                   ? fail(&error)
                   : report(options, &compare, arms[0].text, arms[1].text);
    compare_free(&compare);
    if (!*interrupted) return code;
    fprintf(stderr, "%s: interrupted; rows that were not finished are left out\n", program);
    return 130;
}

static int run_on(struct options *options, struct device *device) {
    struct tile_table table;
    struct arm arms[2] = {{.sweep = NULL}};
    struct error error;
    int code;
    if (selection_settle(&options->selection, device, &error)) return fail(&error);
    if (selection_table(&options->selection, device, &table, &error)) return fail(&error);
    if (device->backend == BACKEND_CUDA && cupti_open(&error))
        fprintf(stderr, "%s: %s; events are the clock instead\n", program, error.text);
    const struct tile_table *chosen = options->selection.table ? &table : NULL;
    if (create_arm(&options->selection, device, chosen, 0, &arms[0], &error) ||
        create_arm(&options->selection, device, chosen, 1, &arms[1], &error))
        code = fail(&error);
    else
        code = run_arms(options, arms);
    sweep_destroy(arms[0].sweep);
    sweep_destroy(arms[1].sweep);
    tiles_free(&table);
    return code;
}

int cmd_compare(int argc, char **argv) {
    struct options options = {.selection = selection_default, .margin = -1};
    struct device *device;
    struct error error;
    argp_err_exit_status = 2;
    argv[0] = (char *)program;
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    if (options.file_count) return run_files(&options);
    if (device_open(options.selection.device, &device, &error)) return fail(&error);
    int code = run_on(&options, device);
    device_close(device);
    return code;
}
