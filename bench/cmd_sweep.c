#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/cbench.h"
#include "bench/context.h"
#include "bench/cupti.h"
#include "bench/markdown.h"
#include "bench/probe.h"
#include "bench/resume.h"
#include "bench/rows.h"
#include "bench/samples.h"
#include "bench/selection.h"
#include "bench/states.h"
#include "bench/commands.h"

static const char program[] = "tilebook sweep";

/* --- options --- */

struct options {
    struct selection selection;
    const char *csv, *report, *markdown, *misses;
    const char *peers[MAX_PEERS];
    int peer_count;
    double budget_s; /* 0: none */
    double min_time; /* 0: not given */
    double pace;     /* likewise */
    bool resume;
};

enum { KEY_CSV = 256, KEY_REPORT, KEY_BUDGET, KEY_MIN_TIME, KEY_CHAIN, KEY_MISSES, KEY_RESUME, KEY_MARKDOWN, KEY_PACE };

static const struct argp_option option_list[] = {
    {"chain", KEY_CHAIN, "LAYERS", 0,
     "Instead of single kernels, a model's GEMMs of so many layers with the small kernels between them as one graph, "
     "without and with programmatic dependent launch",
     0},
    {"peer", 'p', "FILE", 0,
     "A shared library with kernels of others, rows OP/peer:NAME; kernels/peer/README.md says how to make one. May be "
     "repeated",
     0},
    {"budget", KEY_BUDGET, "TIME", 0,
     "90s, 10m or 1h for all points, shared evenly: each samples as long as its share allows (default: as long as the "
     "figures need)",
     0},
    {"pace", KEY_PACE, "SHARE", 0,
     "Share of the time in which the device works, 0.01 to 1: it rests after every 10 ms or so of samples, so that the "
     "power limit does not hold its clock down (default 1: back to back)",
     0},
    {"csv", KEY_CSV, "FILE", 0, "Write the rows as CSV too", 0},
    {"report", KEY_REPORT, "FILE", 0,
     "Append a row a point to this CSV; on a GPU with what reading the same weights takes and with cuBLASLt's time", 0},
    {"markdown", KEY_MARKDOWN, "FILE", 0, "Write a table for pull requests", 0},
    {"misses", KEY_MISSES, "FILE", 0,
     "Append the shapes and M that --table has no row for; tilebook tune --from-misses tunes them", 0},
    {"resume", KEY_RESUME, NULL, 0,
     "Go on with the file of --benchmark_out, if it is there: points that it has are not measured again and stay in "
     "it. For the same device, sources and regime",
     0},
    {"benchmark_min_time", KEY_MIN_TIME, "S", OPTION_HIDDEN, "", 0},
    {0},
};

static const char doc[] =
    "Benchmarks kernels over shapes and tile configurations. Each configuration is verified before it is timed.\v"
    "This is a Google Benchmark program: every --benchmark_* flag works. Among them\n"
    "  --benchmark_out=FILE          results as JSON, beside the table on stdout; every sample in FILE.samples\n"
    "  --benchmark_format=json       JSON on stdout\n"
    "  --benchmark_filter=REGEX      a part of the points\n"
    "  --benchmark_list_tests        their names\n"
    "  --benchmark_repetitions=N     repeat the whole measurement\n"
    "  --benchmark_min_time=S        least sampling time of a point (0.3)\n"
    "\n"
    "Examples:\n"
    "  tilebook sweep\n"
    "  tilebook sweep --op marlin_gemm --shapes 5120x7168 --m 1:256:x2 --config all\n"
    "  tilebook sweep --table tiles.txt --benchmark_out=sweep.json\n"
    "  tilebook sweep --table tiles.txt --benchmark_out=sweep.json --resume    # after Ctrl-C, or killed\n"
    "  tilebook sweep --chain 48 --op marlin_gemm --m 1,8,16 --table tiles.txt";

/* Seconds, as older (0.5) and newer (0.5s) releases of Google Benchmark write them. */
static double parse_min_time(struct argp_state *state, const char *text) {
    char *end;
    double seconds = strtod(text, &end);
    if (end == text || (*end && strcmp(end, "s")) || !(seconds > 0) || seconds > 3600)
        argp_error(state, "--benchmark_min_time=%s: accepted are seconds such as 0.5 or 0.5s, up to 3600", text);
    return seconds;
}

static void check_chain(const struct options *options, struct argp_state *state) {
    const struct sweep_options *sweep = &options->selection.sweep;
    if (sweep->chain && options->peer_count)
        argp_error(state, "--peer does not go with --chain: a chain takes one kernel for all of a model's GEMMs");
    if (sweep->chain && (sweep->config_count || options->csv || options->report || options->markdown ||
                         options->selection.regime || sweep->epilogue || sweep->model_epilogues || sweep->norm))
        argp_error(state,
                   "--chain takes its configurations from --table or the defaults, its epilogues from the model, "
                   "has a row for each regime of graphs, and no CSV: --config, --epilogue, --norm, --regime, --csv, "
                   "--report and --markdown do not go with it");
}

/* Files whose rows have no column for it. */
static void check_type(const struct options *options, struct argp_state *state) {
    const struct sweep_options *sweep = &options->selection.sweep;
    if (sweep->bf16 && (sweep->chain || options->csv || options->report || options->misses))
        argp_error(state, "--type bf16 goes neither with --chain nor with --csv, --report and --misses, whose rows "
                          "do not say the type; --benchmark_out and --markdown do");
}

static void check_resume(const struct options *options, struct argp_state *state) {
    if (options->resume && (options->selection.sweep.chain || options->csv))
        argp_error(state,
                   "--resume goes neither with --chain nor with --csv, which is begun anew; --report is appended "
                   "to");
}

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    struct options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->selection;
        break;
    case KEY_CHAIN:
        options->selection.sweep.chain = (int)argument_whole(state, "chain", argument, 1, 1000);
        break;
    case 'p':
        if (options->peer_count == MAX_PEERS) argp_error(state, "more than %d times --peer", MAX_PEERS);
        options->peers[options->peer_count++] = argument;
        break;
    case KEY_BUDGET:
        options->budget_s = argument_time(state, "budget", argument);
        break;
    case KEY_MIN_TIME:
        options->min_time = parse_min_time(state, argument);
        break;
    case KEY_CSV:
        options->csv = argument;
        break;
    case KEY_REPORT:
        options->report = argument;
        break;
    case KEY_MARKDOWN:
        options->markdown = argument;
        break;
    case KEY_MISSES:
        options->misses = argument;
        break;
    case KEY_PACE:
        options->pace = argument_number(state, "pace", argument, 0.01, 1);
        break;
    case KEY_RESUME:
        options->resume = true;
        break;
    case ARGP_KEY_END:
        if (options->misses && !options->selection.table)
            argp_error(state, "--misses needs a tile table: --table FILE");
        check_chain(options, state);
        check_type(options, state);
        check_resume(options, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp_child children[] = {{&selection_parser, 0, NULL, 0}, {0}};
static const struct argp parser = {.options = option_list, .parser = parse_option, .doc = doc, .children = children};

/* --- the command line, split between Google Benchmark and us --- */

struct command_line {
    int argc, google_argc;
    char **argv, **google_argv; /* google_argv shares argv's memory */
    int repetitions;
    bool list;
    int out_index;     /* of --benchmark_out in google_argv; 0: not given */
    const char *out;   /* its file, or NULL */
    bool json;         /* that file is JSON */
    bool resumes;      /* there is such a file to go on with */
    char google[4200]; /* --benchmark_out=FILE as Google Benchmark gets it instead */
};

static bool starts_with(const char *text, const char *prefix) {
    return !strncmp(text, prefix, strlen(prefix));
}

static int split_arguments(int argc, char **argv, struct command_line *line) {
    static const char list[] = "--benchmark_list_tests";
    static const char repetitions[] = "--benchmark_repetitions=", out[] = "--benchmark_out=";
    size_t room = (size_t)argc + 1;
    char **all = calloc(2 * room, sizeof *all);
    if (!all) return -1;
    *line = (struct command_line){.argv = all, .google_argv = all + room, .repetitions = 1, .json = true};
    line->argv[line->argc++] = (char *)program;
    line->google_argv[line->google_argc++] = (char *)program;
    for (int i = 1; i < argc; i++) {
        if (!starts_with(argv[i], "--benchmark_") || starts_with(argv[i], "--benchmark_min_time")) {
            line->argv[line->argc++] = argv[i];
            continue;
        }
        line->google_argv[line->google_argc++] = argv[i];
        if (starts_with(argv[i], repetitions)) line->repetitions = atoi(argv[i] + strlen(repetitions));
        if (starts_with(argv[i], out)) {
            line->out = argv[i] + strlen(out);
            line->out_index = line->google_argc - 1;
        }
        if (starts_with(argv[i], "--benchmark_out_format=")) line->json &= !strcmp(strchr(argv[i], '=') + 1, "json");
        if (starts_with(argv[i], list)) line->list = !strstr(argv[i], "=false") && !strstr(argv[i], "=0");
    }
    return 0;
}

static struct measure_options measuring(double min_time) {
    struct measure_options options = measure_thorough;
    if (min_time <= 0) return options;
    options.max_seconds *= min_time / options.min_seconds;
    options.min_seconds = min_time;
    if (options.warmup_seconds > min_time) options.warmup_seconds = min_time;
    return options;
}

/* --- context --- */

static void add_command(int argc, char **argv) {
    char text[4096];
    size_t used = (size_t)snprintf(text, sizeof text, "%s", program);
    for (int i = 1; i < argc && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, " %s", argv[i]);
    cbench_add_context("command", text);
}

static void add_context(const struct sweep *sweep) {
    struct context context;
    context_of(sweep, &context);
    for (int i = 0; i < context.count; i++) cbench_add_context(context.entries[i].key, context.entries[i].value);
}

/* --- running --- */

/* Prints and gives the exit code back. */
static int fail(int code, const char *message) {
    fprintf(stderr, "%s: %s\n", program, message);
    if (code == 2) fprintf(stderr, "Try `%s --help'.\n", program);
    return code;
}

/* A card that is impaired already here is warned of here; its points are counted at the end. */
static int run_ceilings(struct sweep *sweep, struct error *error) {
    if (measure_ceilings(sweep->device, &sweep->ceilings, error)) return -1;
    sweep->watch.reasons = nvml_impairment(sweep->ceilings.state.throttle);
    if (sweep->watch.reasons) sweep_warn(sweep, sweep->watch.reasons);
    return 0;
}

/* Google Benchmark does not look whether its file could be written. */
static bool json_is_complete(const char *path) {
    char tail[4] = "";
    FILE *file = fopen(path, "r");
    bool complete = file && !fseek(file, -(long)sizeof tail, SEEK_END) && fread(tail, sizeof tail, 1, file) &&
                    !memcmp(tail, "]\n}\n", sizeof tail);
    if (file) fclose(file);
    return complete;
}

/* What cbench_run left; the exit code. */
static int finish(const struct sweep *sweep, int ran, bool interrupted) {
    if (!ran) return fail(2, "no point matches the filter; --benchmark_list_tests shows their names");
    sweep_summarize(sweep);
    if (!interrupted) return sweep->failures ? 1 : 0;
    fprintf(stderr,
            "%s: interrupted; the rows of the points that were not measured say so. The same command with "
            "--benchmark_out and --resume goes on\n",
            program);
    return 130;
}

static int open_file(const char *path, FILE **file, struct error *error) {
    *file = fopen(path, "w");
    return *file ? 0 : error_set(error, "%s: %s", path, strerror(errno));
}

/* Opens FILE with this suffix, and the header in it; or goes on with it. */
static int open_beside(const struct command_line *line, const struct resume *resume, const char *suffix,
                       const char *header, FILE **file, struct error *error) {
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s%s", line->out, suffix) >= sizeof path)
        return error_set(error, "the name of the file is too long: %s%s", line->out, suffix);
    if (resume) return resume_lines(resume, path, header, file, error);
    if (open_file(path, file, error)) return -1;
    fprintf(*file, "%s\n", header);
    return 0;
}

/* Samples and states lie beside Google Benchmark's file, if that is a JSON file and no device or pipe. */
static int open_samples(struct sweep *sweep, const struct command_line *line, const struct resume *resume,
                        struct error *error) {
    struct stat found;
    if (!line->out || !line->json || line->list) return 0;
    if (!stat(line->out, &found) && !S_ISREG(found.st_mode)) return 0;
    if (open_beside(line, resume, SAMPLES_SUFFIX, SAMPLES_HEADER, &sweep->samples, error)) return -1;
    if (sweep->device->backend != BACKEND_CUDA) return 0;
    return open_beside(line, resume, STATES_SUFFIX, STATES_HEADER, &sweep->states, error);
}

/* The report first: it can refuse, the other files are begun anew. */
static int open_files(struct sweep *sweep, const struct options *options, const struct command_line *line,
                      const struct resume *resume, struct error *error) {
    if (options->report && !line->list && rows_open(options->report, &sweep->report, error)) return -1;
    if (options->csv && open_file(options->csv, &sweep->csv, error)) return -1;
    if (options->markdown && !line->list && open_file(options->markdown, &sweep->markdown, error)) return -1;
    return open_samples(sweep, line, resume, error);
}

/* True if there was a file and it is not complete. */
static bool close_file(FILE *file) {
    bool failed = file && ferror(file);
    return (file && fclose(file)) || failed;
}

/* Whatever was begun must be complete. */
static int close_files(struct sweep *sweep, const struct command_line *line, struct resume *resume, int ran,
                       struct error *error) {
    bool csv = close_file(sweep->csv), markdown = close_file(sweep->markdown);
    bool samples = close_file(sweep->samples), states = close_file(sweep->states);
    bool report = close_file(sweep->report) || sweep->report_failed;
    const char *written = line->out ? strchr(line->google, '=') + 1 : NULL;
    if (ran && !line->list && line->json && written && !json_is_complete(written))
        return error_set(error, "%s could not be written; is the disk full?", written);
    if (resume && resume_finish(resume, error)) return -1;
    if (!csv && !samples && !states && !report && !markdown) return 0;
    return error_set(error, "the %s could not be written; is the disk full?",
                     csv        ? "CSV file"
                     : samples  ? "file of the samples"
                     : states   ? "file of the card's states"
                     : markdown ? "markdown table"
                                : "report");
}

/* The file that this sweep goes on with, and its points that are not to run again. NULL if it begins one. */
static int open_resume(struct sweep *sweep, const struct command_line *line, struct resume **resume,
                       struct error *error) {
    struct context context;
    *resume = NULL;
    if (!line->resumes) return 0;
    context_of(sweep, &context);
    if (resume_open(line->out, resume, error) || resume_check(*resume, &context, error) ||
        resume_ceilings(*resume, &sweep->ceilings, error))
        return -1;
    for (int i = 0; i < sweep->count; i++) {
        struct sweep_point *point = &sweep->points[i];
        /* The hash of the kernels says nothing of a library. */
        if (point->kernel->accepts) resume_forget(*resume, point->name);
        point->measured = resume_has(*resume, point->name);
    }
    return 0;
}

/* Runs that are left; in *measured the points that are not among them, of those that the filter selects. */
static int count_runs(const struct sweep *sweep, const struct command_line *line, int *measured) {
    int left = 0;
    *measured = 0;
    for (int i = 0; i < sweep->count; i++) {
        const char *name = sweep->chains ? sweep_chain_name(sweep, i) : sweep->points[i].name;
        if (!cbench_selects(name)) continue;
        if (!sweep->chains && sweep->points[i].measured)
            ++*measured;
        else
            left += line->repetitions > 1 ? line->repetitions : 1;
    }
    return left;
}

/* Says what will be done, and measures what all rows refer to unless the file has it. */
static int begin(struct sweep *sweep, const struct options *options, const struct resume *resume, int measured,
                 struct error *error) {
    const struct device *device = sweep->device;
    char before[64] = "; measuring the ceilings first";
    if (options->selection.small)
        fprintf(stderr, "%s: on the CPU the default shape is a small one; --shapes takes others\n", program);
    if (resume) snprintf(before, sizeof before, "; measured before: %d point%s", measured, measured == 1 ? "" : "s");
    fprintf(stderr, "%s: %d run%s on %s (%s)%s\n", program, sweep->runs, sweep->runs == 1 ? "" : "s", device->id,
            device->name, before);
    return resume ? 0 : run_ceilings(sweep, error);
}

/* The head of the table and what is measured already. */
static void begin_markdown(const struct sweep *sweep, const struct resume *resume) {
    struct context context;
    if (!sweep->markdown) return;
    context_of(sweep, &context);
    markdown_begin(sweep->markdown, &context, sweep_has_beside(sweep));
    for (int i = 0; i < sweep->count; i++) {
        const char *name = sweep->points[i].name;
        if (!sweep->points[i].measured || !cbench_selects(name)) continue;
        sweep_tabulate(&sweep->points[i], &(struct row){.us = resume_counter(resume, name, "us"),
                                                        .p20_us = resume_counter(resume, name, "p20_us"),
                                                        .p80_us = resume_counter(resume, name, "p80_us"),
                                                        .floor_us = resume_counter(resume, name, "floor_us"),
                                                        .cublas_us = resume_counter(resume, name, "cublas_us"),
                                                        .throttled = resume_counter(resume, name, "throttled") > 0});
    }
}

static int run_points(struct sweep *sweep, const struct options *options, struct command_line *line,
                      struct resume *resume) {
    const volatile sig_atomic_t *interrupted = catch_interrupt();
    struct error error;
    int measured;
    sweep->runs = count_runs(sweep, line, &measured);
    /* cuBLASLt beside a point may take as long as the point. */
    sweep->shares = sweep->runs * (options->report ? 2 : 1);
    if (open_files(sweep, options, line, resume, &error)) return fail(1, error.text);
    if (!line->list && begin(sweep, options, resume, measured, &error)) return fail(1, error.text);
    begin_markdown(sweep, resume);
    progress_start(&sweep->progress, stderr);
    add_context(sweep);
    sweep_register(sweep);
    cbench_stop_at(interrupted);
    int ran = sweep->runs || !measured ? cbench_run() : 0;
    if (close_files(sweep, line, resume, ran, &error)) return fail(1, error.text);
    return finish(sweep, ran + measured, *interrupted);
}

static int run(struct sweep *sweep, const struct options *options, struct command_line *line) {
    struct resume *resume;
    struct error error;
    sweep->measuring = measuring(options->min_time);
    sweep->measuring.regime = options->selection.regime;
    sweep->measuring.pace = options->pace < 1 ? options->pace : 0;
    sweep->repeated = line->repetitions > 1;
    sweep->words = stderr;
    if (options->budget_s > 0) sweep->deadline = progress_now() + options->budget_s;
    int failed = open_resume(sweep, line, &resume, &error);
    int code = failed ? fail(1, error.text) : run_points(sweep, options, line, resume);
    resume_free(resume);
    return code;
}

/* --- peers --- */

static int load_peers(const struct options *options, struct error *error) {
    for (int i = 0; i < options->peer_count; i++)
        if (peer_load(options->peers[i], error)) return -1;
    return 0;
}

/* The sweep as it will be; the process ends with it. */
static bool try_points(void *context, struct probe *probe) {
    struct options options = *(struct options *)context;
    struct selection *selection = &options.selection;
    struct tile_table table;
    struct device *device;
    struct sweep *sweep;
    if (load_peers(&options, NULL) || device_open(selection->device, &device, NULL)) return true;
    if (selection_settle(selection, device, NULL) || selection_table(selection, device, &table, NULL)) return true;
    if (sweep_create(device, &selection->sweep, selection->table ? &table : NULL, &sweep, NULL)) return true;
    return probe_points(probe, sweep);
}

static bool has_peers(const struct sweep *sweep) {
    for (int i = 0; i < sweep->count; i++)
        if (sweep->points[i].kernel->accepts) return true;
    return sweep->left_out > 0;
}

static void apply_probe(const struct probe *probe, struct sweep *sweep) {
    probe_refuse(probe, sweep);
    if (!has_peers(sweep))
        fprintf(stderr, "%s: no point is a peer's: their ops or their backend are not those of this sweep\n", program);
}

/* --- from the command line to the points --- */

/* Also of a sweep that found nothing to run. */
static int append_misses(const struct misses *misses, const char *path, struct error *error) {
    int added = 0;
    if (misses_append(path, misses, &added, error)) return error_prefix(error, "--misses");
    if (misses->count)
        fprintf(stderr, "%s: %d of the shapes and M are not in the table, %d new ones in %s\n", program, misses->count,
                added, path);
    return 0;
}

static int run_on(struct device *device, struct options *options, struct command_line *line,
                  const struct probe *probe) {
    struct selection *selection = &options->selection;
    struct tile_table table;
    struct sweep *sweep;
    struct error error;
    if (selection_settle(selection, device, &error)) return fail(2, error.text);
    if (selection_table(selection, device, &table, &error)) return fail(1, error.text);
    if (device->backend == BACKEND_CUDA && cupti_open(&error))
        fprintf(stderr, "%s: %s; events are the clock instead\n", program, error.text);
    int code = 2;
    struct misses misses = {.count = 0};
    if (options->misses) selection->sweep.misses = &misses;
    if (sweep_create(device, &selection->sweep, selection->table ? &table : NULL, &sweep, &error))
        fail(code, error.text);
    if (sweep && probe) apply_probe(probe, sweep);
    if (sweep) code = run(sweep, options, line);
    if (options->misses && append_misses(&misses, options->misses, &error)) code = fail(1, error.text);
    misses_free(&misses);
    sweep_destroy(sweep);
    tiles_free(&table);
    return code;
}

/* With its points tried, before a device is open; only listing them takes no trial. */
static int open_peers(struct options *options, bool list, struct probe **probe, struct error *error) {
    *probe = NULL;
    if (!options->peer_count) return 0;
    if (!list && !(*probe = probe_create(error))) return -1;
    if (*probe && probe_run(*probe, try_points, options, options->peers, error)) return -1;
    return load_peers(options, error);
}

static int run_arguments(struct options *options, struct command_line *line) {
    struct device *device;
    struct probe *probe = NULL;
    struct error error;
    int code = 1;
    if (line->google_argc > 1) {
        error_set(&error, "unknown flag or bad value: %s", line->google_argv[1]);
        return fail(2, error.text);
    }
    if (open_peers(options, line->list, &probe, &error) || device_open(options->selection.device, &device, &error)) {
        fail(code, error.text);
    } else {
        code = run_on(device, options, line, probe);
        device_close(device);
    }
    probe_destroy(probe);
    return code;
}

/* Where Google Benchmark writes: beside a file that is gone on with; nowhere if it only lists, for it would empty the
 * file. A part that stays of an earlier sweep does not belong to a new one. */
static int choose_out(const struct options *options, struct command_line *line, struct error *error) {
    struct stat found;
    if (options->resume && (!line->out || !line->json))
        return error_set(error, "--resume needs the JSON file that it goes on with: --benchmark_out=FILE");
    if (!line->out) return 0;
    size_t room = sizeof line->google;
    size_t length =
        (size_t)snprintf(line->google, room, "--benchmark_out=%s%s", line->out, line->json ? RESUME_SUFFIX : "");
    if (length >= room) return error_set(error, "the name of the file is too long: %s", line->out);
    char **argument = &line->google_argv[line->out_index];
    if (line->list) {
        memmove(argument, argument + 1, (size_t)(line->google_argc-- - line->out_index) * sizeof *argument);
    } else if (options->resume && !stat(line->out, &found) && found.st_size > 0) {
        line->resumes = true;
        *argument = line->google;
    } else {
        if (line->json) unlink(line->google + strlen("--benchmark_out="));
        snprintf(line->google, room, "--benchmark_out=%s", line->out);
    }
    return 0;
}

int cmd_sweep(int argc, char **argv) {
    struct options options = {.selection = selection_default};
    struct command_line line;
    struct error error;
    int code = 2;
    if (split_arguments(argc, argv, &line)) return fail(1, "out of memory");
    argp_err_exit_status = 2;
    argp_parse(&parser, line.argc, line.argv, 0, NULL, &options);
    if (choose_out(&options, &line, &error)) {
        fail(code, error.text);
    } else {
        cbench_initialize(&line.google_argc, line.google_argv);
        add_command(argc, argv);
        code = run_arguments(&options, &line);
    }
    free(line.argv);
    return code;
}
