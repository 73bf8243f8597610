#include <argp.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "bench/commands.h"
#include "tuner/diff.h"
#include "tuner/export.h"
#include "tuner/lint.h"
#include "tuner/merge.h"
#include "tuner/pack.h"
#include "tuner/t4.h"

/* Two runs' times of the same row differ by less. */
static const double agreement = 0.02;

enum { OPTION_FORMAT = 256, OPTION_OUT, OPTION_EPILOGUE, OPTION_DEVICE };

static const struct argp_option options[] = {
    {"format", OPTION_FORMAT, "F", 0,
     "export: table (the default), json, csv, c, a header that looks rows up, or pack, a folder of cubins with the C "
     "file that launches them; or t4: the trials of a store",
     0},
    {"out", OPTION_OUT, "FILE", 0, "export: write there instead of standard output; merge: the store that all go to",
     0},
    {"epilogue", OPTION_EPILOGUE, "E,...", 0,
     "export --format pack: what its GEMMs do with their sums: none (the default), bias, residual, silu_mul, or all",
     0},
    {"device", OPTION_DEVICE, "D", 0, "lint: the device to check against (default: cuda:0 or cpu, as the table says)",
     0},
    {0},
};

static const char documentation[] =
    "Shows, checks, exports or compares tile tables, and merges the trials behind them.\v"
    "  show    prints it aligned\n"
    "  lint    a line for each finding and exit code 1, or nothing and 0:\n"
    "          every lookup of m up to 8192 is tried: m without a row, rows that hide\n"
    "          others or never come up, illegal ones; unknown kernels, slow winners,\n"
    "          other hardware, other kernel sources\n"
    "  diff    two tables, A and B: a line for each stretch of m in which they name\n"
    "          other configurations, and whether one of them counts ties there, or\n"
    "          only a border is off by less than an eighth; and times that differ by\n"
    "          more than 2%. Exit code 1 if they differ in more than ties and borders\n"
    "  export  as table, json, csv or c; --format pack makes the folder --out, with\n"
    "          all that a C program needs to launch the table's kernels: no GPU is\n"
    "          needed to make it, no compiler to run it; --format t4 takes a store\n"
    "          of trials and writes the T4 format of auto-tuners, and a sidecar with\n"
    "          device and shapes\n"
    "  merge   adds the trials of all stores to the store --out, of two of the same\n"
    "          configuration the later one; tilebook tune --store makes a table of it\n\n"
    "Examples:\n"
    "  tilebook table show results/h100/tiles.txt\n"
    "  tilebook table lint tiles.txt --device cuda:0\n"
    "  tilebook table diff before.txt after.txt\n"
    "  tilebook table export tiles.txt --format c --out tiles.h\n"
    "  tilebook table export tiles.txt --format pack --epilogue all --out pack\n"
    "  tilebook table merge a.sqlite b.sqlite --out trials.sqlite\n";

struct choices {
    const char *action, *file, *format, *out, *device;
    unsigned epilogues; /* 1 << EPILOGUE_..; 0: not given */
    char **others;      /* files behind the first: stores to merge, the other table of diff */
    int other_count;
};

static bool one_of(const char *text, const char *const *list) {
    while (*list && strcmp(text, *list)) list++;
    return *list;
}

static unsigned parse_epilogues(char *text, struct argp_state *state) {
    unsigned set = 0;
    struct error error;
    enum epilogue epilogue;
    if (!strcmp(text, "all")) return (1 << EPILOGUE_COUNT) - 1;
    for (char *name; (name = strsep(&text, ","));) {
        if (epilogue_parse(name, &epilogue, &error)) argp_error(state, "--epilogue: %s, all", error.text);
        set |= 1u << epilogue;
    }
    return set;
}

static void check_choices(struct choices *c, struct argp_state *state) {
    static const char *const actions[] = {"show", "lint", "diff", "export", "merge", NULL};
    static const char *const formats[] = {"table", "json", "csv", "c", "pack", "t4", NULL};
    if (!c->action || !c->file) argp_error(state, "give an action (show, lint, diff, export or merge) and a file");
    if (!one_of(c->action, actions))
        argp_error(state, "unknown action '%s'; there are show, lint, diff, export, merge", c->action);
    if (c->format && !one_of(c->format, formats))
        argp_error(state, "--format: '%s' is not one of table, json, csv, c, pack, t4", c->format);
    bool merges = !strcmp(c->action, "merge");
    if ((c->format || (c->out && !merges)) && strcmp(c->action, "export"))
        argp_error(state, "--format and --out belong to export, --out to merge too");
    bool diffs = !strcmp(c->action, "diff");
    if (diffs && c->other_count != 1) argp_error(state, "diff takes two tables");
    if (c->other_count && !merges && !diffs) argp_error(state, "%s takes one file", c->action);
    if (merges && !c->out) argp_error(state, "merge needs --out STORE");
    if (c->format && !strcmp(c->format, "t4") && !c->out) argp_error(state, "--format t4 needs --out FILE.json");
    bool packs = c->format && !strcmp(c->format, "pack");
    if (packs && !c->out) argp_error(state, "--format pack needs --out FOLDER");
    if (c->epilogues && !packs) argp_error(state, "--epilogue belongs to export --format pack");
    if (c->device && strcmp(c->action, "lint")) argp_error(state, "--device belongs to lint");
}

static error_t parse_option(int key, char *text, struct argp_state *state) {
    struct choices *c = state->input;
    switch (key) {
    case OPTION_FORMAT:
        c->format = text;
        return 0;
    case OPTION_OUT:
        c->out = text;
        return 0;
    case OPTION_EPILOGUE:
        c->epilogues = parse_epilogues(text, state);
        return 0;
    case OPTION_DEVICE:
        c->device = argument_device(state, text);
        return 0;
    case ARGP_KEY_ARG:
        if (c->action && c->file) return ARGP_ERR_UNKNOWN;
        *(c->action ? &c->file : &c->action) = text;
        return 0;
    case ARGP_KEY_ARGS:
        c->others = state->argv + state->next;
        c->other_count = state->argc - state->next;
        return 0;
    case ARGP_KEY_END:
        check_choices(c, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int complain(const char *message) {
    fprintf(stderr, "tilebook: %s\n", message);
    return 1;
}

static int write_format(const struct tile_table *table, const char *format, FILE *stream) {
    if (!strcmp(format, "json")) return export_json(table, stream);
    if (!strcmp(format, "csv"))
        export_csv(table, stream);
    else if (!strcmp(format, "c"))
        export_c(table, stream);
    else
        tiles_print(table, stream);
    return 0;
}

static int export(const struct tile_table *table, const struct choices *c) {
    FILE *stream = c->out ? fopen(c->out, "w") : stdout;
    const char *name = c->out ? c->out : "standard output";
    int bad = !stream;
    if (!bad) bad = write_format(table, c->format ? c->format : "table", stream) || fflush(stream) || ferror(stream);
    int cause = errno;
    if (stream && c->out) bad |= fclose(stream);
    if (!bad) return 0;
    fprintf(stderr, "tilebook: %s: cannot write: %s\n", name, strerror(cause));
    return 1;
}

static void print_note(void *context, const char *line) {
    fprintf(stderr, "%s: %s\n", (const char *)context, line);
}

static int export_pack(const struct tile_table *table, const struct choices *c) {
    struct pack pack;
    struct error error;
    unsigned epilogues = c->epilogues ? c->epilogues : 1 << EPILOGUE_NONE;
    if (pack_make(table, epilogues, print_note, (void *)c->file, &pack, &error)) {
        error_prefix(&error, "%s", c->file);
        return complain(error.text);
    }
    fprintf(stderr, "%s: %d rows, %d cubins\n", c->out, pack.row_count, pack.function_count);
    int status = pack_write(&pack, c->out, &error);
    pack_free(&pack);
    return status ? complain(error.text) : 0;
}

static void print_finding(void *context, const char *line) {
    printf("%s: %s\n", (const char *)context, line);
}

/* Without the table's device the rest is checked all the same; only a device that was asked for must open. */
static int lint(const struct tile_table *table, const struct choices *c) {
    struct device *device = NULL;
    struct error error;
    const char *id = c->device ? c->device : strncmp(table->architecture, "sm_", 3) ? "cpu" : "cuda:0";
    if (device_open(id, &device, &error)) {
        if (c->device) return complain(error.text);
        fprintf(stderr, "tilebook: %s is not here, so device and legality are not checked: %s\n", id, error.text);
        device = NULL;
    }
    int findings = lint_table(table, device, print_finding, (void *)c->file);
    if (device) device_close(device);
    fprintf(stderr, "%s: %zu rows, %d finding%s\n", c->file, table->count, findings, findings == 1 ? "" : "s");
    return findings ? 1 : 0;
}

/* Of tables that are not of the same thing; they can be compared all the same. */
static void tell_origins(const struct tile_table *a, const struct tile_table *b) {
    const struct tile_table *tables[] = {a, b};
    if (!strcmp(a->device, b->device) && !strcmp(a->kernels, b->kernels) && !strcmp(a->regime, b->regime) &&
        !strcmp(a->software, b->software))
        return;
    for (int i = 0; i < 2; i++)
        fprintf(stderr, "%c is of %s, %s, kernels %s, %s\n", "AB"[i], tables[i] -> device, tables[i] -> software,
                tables[i] -> kernels, tables[i] -> regime);
}

static void tell_times(const struct diff *diff) {
    const struct diff_part *most = diff->most;
    if (!most) return;
    fprintf(stderr,
            "B takes %.3f of A's time (geometric mean of %d rows that end at the same m); the furthest %.3f, at %s %ld "
            "%ld %ld m %ld\n",
            diff->ratio, diff->compared, most->ratio, most->a->op, most->a->k, most->a->n, most->a->group,
            most->m_high);
}

/* 0 if both say the same. */
static int compare_tables(const struct tile_table *a, const struct choices *c) {
    struct tile_table b;
    struct diff diff;
    char message[TILES_MESSAGE];
    if (tiles_read(c->others[0], &b, message)) return complain(message);
    int status = diff_tables(a, &b, &diff) ? complain("out of memory") : !diff_agree(&diff, agreement);
    diff_print(&diff, agreement, stdout);
    tell_origins(a, &b);
    const int *kinds = diff.kinds;
    fprintf(stderr,
            "%zu and %zu rows: %d stretches of m are the same, %d tie, %d at a border, %d other, %d only in A, "
            "%d only in B\n",
            a->count, b.count, kinds[DIFF_SAME], kinds[DIFF_TIE], kinds[DIFF_BORDER], kinds[DIFF_OTHER],
            kinds[DIFF_ONLY_A], kinds[DIFF_ONLY_B]);
    tell_times(&diff);
    diff_free(&diff);
    tiles_free(&b);
    return status;
}

static bool is_store(const char *path) {
    char begin[16] = "";
    FILE *file = fopen(path, "rb");
    bool sqlite = file && fread(begin, 1, sizeof begin, file) == sizeof begin && !memcmp(begin, "SQLite format 3", 16);
    if (file) fclose(file);
    return sqlite;
}

static int export_t4(const struct choices *c) {
    struct store *store;
    struct error error;
    if (!is_store(c->file)) {
        fprintf(stderr,
                "tilebook: %s: --format t4 takes a store of trials, as `tilebook tune` leaves it beside a table\n",
                c->file);
        return 1;
    }
    if (store_open(c->file, &store, &error)) return complain(error.text);
    int status = t4_write(store, c->out, &error);
    store_close(store);
    return status ? complain(error.text) : 0;
}

static int merge_all(const struct choices *c) {
    struct merged merged;
    struct error error;
    for (int i = -1; i < c->other_count; i++) {
        const char *from = i < 0 ? c->file : c->others[i];
        if (merge_store(c->out, from, &merged, &error)) return complain(error.text);
        fprintf(stderr, "%s: %d rows, %d added to %s, %d in place of older ones, %d not newer\n", from, merged.rows,
                merged.added, c->out, merged.newer, merged.rows - merged.added - merged.newer);
    }
    return 0;
}

int cmd_table(int argc, char **argv) {
    static const struct argp parser = {
        options, parse_option, "show|lint|export FILE\ndiff A B\nmerge STORE...", documentation, NULL, NULL, NULL};
    static char name[] = "tilebook table";
    struct choices choices = {0};
    struct tile_table table;
    char message[TILES_MESSAGE];
    argp_err_exit_status = 2;
    argv[0] = name;
    argp_parse(&parser, argc, argv, 0, NULL, &choices);
    if (!strcmp(choices.action, "merge")) return merge_all(&choices);
    if (choices.format && !strcmp(choices.format, "t4")) return export_t4(&choices);
    if (tiles_read(choices.file, &table, message)) {
        if (strcmp(choices.action, "lint")) return complain(message);
        printf("%s; correct it, or make the table anew with `tilebook tune`\n", message);
        return 1;
    }
    bool packs = choices.format && !strcmp(choices.format, "pack");
    int status = !strcmp(choices.action, "lint")   ? lint(&table, &choices)
                 : !strcmp(choices.action, "diff") ? compare_tables(&table, &choices)
                 : packs                           ? export_pack(&table, &choices)
                                                   : export(&table, &choices);
    tiles_free(&table);
    return status;
}
