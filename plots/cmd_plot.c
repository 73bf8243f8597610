#include <argp.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/tiles.h"
#include "plots/gnuplot.h"
#include "bench/commands.h"

enum { PATH = 2048 };

static const struct argp_option options[] = {
    {"results", 'r', "DIR", 0,
     "folder with sweep.json, its samples and states, trials.csv, report.csv, profile.jsonl, tiles.txt (default: each "
     "folder in results/)",
     0},
    {"out", 'o', "DIR", 0, "where the figures go (default: with the results)", 0},
    {"figure", 'f', "NAME", 0, "draw only this one; may be repeated (default: all)", 0},
    {"x", 'x', "PARAMETER", 0, "heat map: the tile parameter to the right (default: one that matters most)", 1},
    {"y", 'y', "PARAMETER", 0, "heat map: the tile parameter upwards", 1},
    {"m", 'm', "M", 0, "ecdf: rows of x (default: the fewest that were measured)", 1},
    {0},
};

static const char documentation[] =
    "Draws figures from measured results, each as PNG and SVG, and prints the files' names.\v"
    "A figure whose data are missing is skipped, and the command that makes them is named.\n\n"
    "Examples:\n"
    "  tilebook plot\n"
    "  tilebook plot --results results/h100 --figure heatmap --x tile_n --y stages\n\n"
    "Figures:\n";

struct choices {
    const char *results, *out, *x, *y;
    int m;
    bool wanted[16];
    bool any;
};

/* Appends the list of figures to --help, and names them in errors. */
static char *figure_list(const char *before, const char *separator, bool with_help) {
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    if (!stream) abort();
    fputs(before, stream);
    for (int i = 0; i < figure_count; i++)
        fprintf(stream, with_help ? "%s  %-12s %s" : "%s%s", i || with_help ? separator : "", figures[i].name,
                figures[i].help);
    fclose(stream);
    return text;
}

static void choose_figure(struct choices *c, const char *name, struct argp_state *state) {
    for (int i = 0; i < figure_count; i++)
        if (!strcmp(name, figures[i].name)) {
            c->wanted[i] = c->any = true;
            return;
        }
    char *names = figure_list("", ", ", false);
    argp_error(state, "--figure: '%s' is not one of %s", name, names);
    free(names);
}

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    struct choices *c = state->input;
    switch (key) {
    case 'r':
        c->results = argument;
        return 0;
    case 'o':
        c->out = argument;
        return 0;
    case 'x':
        c->x = argument;
        return 0;
    case 'y':
        c->y = argument;
        return 0;
    case 'm':
        c->m = (int)argument_whole(state, "m", argument, 1, INT_MAX);
        return 0;
    case 'f':
        choose_figure(c, argument, state);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is not an option; results are named with --results", argument);
        return 0;
    case ARGP_KEY_END:
        if (c->x && c->y && !strcmp(c->x, c->y)) argp_error(state, "--x and --y name the same parameter, %s", c->x);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static char *filter_help(int key, const char *text, void *input) {
    (void)input;
    return key == ARGP_KEY_HELP_POST_DOC ? figure_list(text, "\n", true) : (char *)text;
}

/* --- one folder of results --- */

struct inputs {
    struct results_sweep sweep;
    struct results_trials trials;
    struct results_report report;
    struct samples samples;
    struct states states;
    struct results_profiles profiles;
    struct results_matches matches;
    bool has[SOURCE_COUNT];
    char device[160];
};

static bool exists(const char *directory, const char *name, char path[PATH]) {
    return snprintf(path, PATH, "%s/%s", directory, name) < PATH && !access(path, F_OK);
}

/* For the titles of what was tuned; a table that cannot be read is worth a line, not a failure. */
static void read_device(const char *directory, struct inputs *inputs) {
    char path[PATH], message[TILES_MESSAGE];
    struct tile_table table;
    snprintf(inputs->device, sizeof inputs->device, "%s",
             inputs->has[SOURCE_SWEEP] ? inputs->sweep.device : "unnamed device");
    if (!exists(directory, "tiles.txt", path)) return;
    if (tiles_read(path, &table, message)) {
        fprintf(stderr, "tilebook: %s; the figures do without its device's name\n", message);
        return;
    }
    snprintf(inputs->device, sizeof inputs->device, "%s (%s)", table.device, table.architecture);
    tiles_free(&table);
}

static void free_inputs(struct inputs *inputs) {
    results_free_sweep(&inputs->sweep);
    results_free_trials(&inputs->trials);
    results_free_report(&inputs->report);
    samples_free(&inputs->samples);
    states_free(&inputs->states);
    results_free_profiles(&inputs->profiles);
    results_free_matches(&inputs->matches);
}

static const char *const source_files[SOURCE_COUNT] = {"sweep.json",         "trials.csv",        "report.csv",
                                                       "sweep.json.samples", "sweep.json.states", "profile.jsonl",
                                                       "against.jsonl"};

static int read_source(const char *directory, enum source source, struct inputs *inputs, struct error *error) {
    char path[PATH];
    if (!(inputs->has[source] = exists(directory, source_files[source], path))) return 0;
    if (source == SOURCE_SWEEP) return results_read_sweep(path, &inputs->sweep, error);
    if (source == SOURCE_TRIALS) return results_read_trials(path, &inputs->trials, error);
    if (source == SOURCE_SAMPLES) return samples_read(path, &inputs->samples, error);
    if (source == SOURCE_STATES) return states_read(path, &inputs->states, error);
    if (source == SOURCE_PROFILE) return results_read_profiles(path, &inputs->profiles, error);
    if (source == SOURCE_AGAINST) return results_read_matches(path, &inputs->matches, error);
    if (results_read_report(path, &inputs->report, error)) return -1;
    if (exists(directory, "peers.csv", path) && results_read_peers(path, &inputs->report, error)) return -1;
    return exists(directory, "peers-elsewhere.csv", path) ? results_read_peers(path, &inputs->report, error) : 0;
}

static int read_inputs(const char *directory, struct inputs *inputs, struct error *error) {
    *inputs = (struct inputs){.has = {false}};
    for (enum source source = 0; source < SOURCE_COUNT; source++)
        if (read_source(directory, source, inputs, error)) {
            free_inputs(inputs);
            return -1;
        }
    read_device(directory, inputs);
    return 0;
}

static void say_skipped(const struct figure *figure, const char *directory, const char *why) {
    static const char *const commands[SOURCE_COUNT][2] = {
        {"sweep --benchmark_out=", "sweep.json"},
        {"tune --model qwen2.5-14b --out ", "tiles.txt"},
        {"sweep --report ", "report.csv"},
        {"sweep --benchmark_out=", "sweep.json"},
        {"sweep --device cuda:0 --benchmark_out=", "sweep.json"},
        {"decode --profile --json --model DIR >", "profile.jsonl"},
        {"decode --bench --against untuned --json --model DIR >", "against.jsonl"}};
    const char *const *command = commands[figure->source];
    fprintf(stderr, "tilebook: %s skipped: %s; this makes the data: tilebook %s%s/%s\n", figure->name, why, command[0],
            directory, command[1]);
}

static void remove_data(const char *data) {
    char path[PATH + 300];
    DIR *directory = opendir(data);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        snprintf(path, sizeof path, "%s/%s", data, entry->d_name);
        if (*entry->d_name != '.') unlink(path);
    }
    if (directory) closedir(directory);
    rmdir(data);
}

struct drawing {
    const struct choices *choices;
    const char *directory; /* of the results */
    const char *shown;     /* the figures' folder as the user named it; `out` is absolute */
    char scripts[4096], out[4096];
};

/* 1 if drawn, 0 if its data are missing. */
static int draw_figure(const struct drawing *drawing, const struct figure *figure, const struct inputs *inputs,
                       struct error *error) {
    static const char *const formats[] = {"png", "svg"};
    bool of_sweep = figure->source != SOURCE_TRIALS && figure->source != SOURCE_REPORT;
    const struct figure_input input = {
        .sweep = &inputs->sweep,
        .trials = &inputs->trials,
        .report = &inputs->report,
        .samples = &inputs->samples,
        .states = &inputs->states,
        .profiles = &inputs->profiles,
        .matches = &inputs->matches,
        .device = of_sweep && inputs->has[SOURCE_SWEEP] ? inputs->sweep.device : inputs->device,
        .x = drawing->choices->x,
        .y = drawing->choices->y,
        .m = drawing->choices->m,
    };
    struct figure_text text = {.panels = 0};
    char data[] = "/tmp/tilebook-plot-XXXXXX";
    if (!inputs->has[figure->source]) {
        char why[64];
        snprintf(why, sizeof why, "there is no %s", source_files[figure->source]);
        say_skipped(figure, drawing->directory, why);
        return 0;
    }
    if (!mkdtemp(data)) return error_set(error, "%s: %s", data, strerror(errno));
    int status = figure->write(&input, data, &text, error);
    if (status > 0) say_skipped(figure, drawing->directory, error->text);
    for (int i = 0; i < 2 && !status; i++) {
        status = gnuplot_draw(drawing->scripts, figure, &text, &input, data, drawing->out, formats[i], error);
        if (!status) printf("%s/%s.%s\n", drawing->shown, figure->name, formats[i]);
    }
    remove_data(data);
    return status < 0 ? -1 : !status;
}

/* How many figures were drawn; -1 on failure. */
static int draw_folder(const struct choices *c, const char *directory, struct error *error) {
    const char *out = c->out ? c->out : directory;
    struct drawing drawing = {.choices = c, .directory = directory, .shown = out};
    struct inputs inputs;
    int drawn = 0, status = 0;
    if (access(directory, R_OK | X_OK)) return error_set(error, "%s: %s", directory, strerror(errno));
    if (gnuplot_scripts(drawing.scripts, error)) return -1;
    if (c->out && mkdir(out, 0777) && errno != EEXIST)
        return error_set(error, "%s: cannot make the folder: %s", out, strerror(errno));
    if (!realpath(out, drawing.out)) return error_set(error, "%s: %s", out, strerror(errno));
    if (read_inputs(directory, &inputs, error)) return -1;
    for (int i = 0; i < figure_count && status >= 0; i++) {
        if (c->any && !c->wanted[i]) continue;
        status = draw_figure(&drawing, &figures[i], &inputs, error);
        drawn += status > 0;
    }
    free_inputs(&inputs);
    return status < 0 ? -1 : drawn;
}

/* --- every folder of results/ --- */

static int has_results(const struct dirent *entry) {
    char directory[PATH], path[PATH];
    snprintf(directory, sizeof directory, "results/%s", entry->d_name);
    bool found = false;
    for (int source = 0; source < SOURCE_COUNT; source++) found |= exists(directory, source_files[source], path);
    return *entry->d_name != '.' && found;
}

static int draw_all(const struct choices *c, struct error *error) {
    struct dirent **entries;
    char directory[PATH];
    int count = scandir("results", &entries, has_results, alphasort), drawn = 0, status = 0;
    if (count < 0) return error_set(error, "results: %s; name a folder with --results", strerror(errno));
    if (c->out && count > 1)
        status =
            error_set(error, "%d folders in results/ have data; name one with --results when --out is given", count);
    for (int i = 0; i < count; i++) {
        snprintf(directory, sizeof directory, "results/%s", entries[i]->d_name);
        if (status >= 0) status = draw_folder(c, directory, error);
        if (status > 0) drawn += status;
        free(entries[i]);
    }
    free(entries);
    return status < 0 ? -1 : drawn;
}

int cmd_plot(int argc, char **argv) {
    static const struct argp parser = {options, parse_option, NULL, documentation, NULL, filter_help, NULL};
    static char name[] = "tilebook plot";
    struct choices choices = {.results = NULL};
    struct error error;
    argp_err_exit_status = 2;
    argv[0] = name;
    argp_parse(&parser, argc, argv, 0, NULL, &choices);
    int drawn = choices.results ? draw_folder(&choices, choices.results, &error) : draw_all(&choices, &error);
    if (drawn > 0) return 0;
    if (drawn == 0)
        error_set(&error, "no figure was drawn: %s holds no data for them",
                  choices.results ? choices.results : "no folder in results/");
    fprintf(stderr, "tilebook: %s\n", error.text);
    return 1;
}
