#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/commands.h"
#include "tuner/many.h"
#include "tuner/ranges.h"
#include "tuner/service.h"

enum { PATH = 512, HEAD_M = 256 };

/* How well a search is to know: the limits where none are given, and how narrow a trial's interval is to be, in what
 * time. */
struct effort {
    const char *name;
    int gpu_trials, cpu_trials, finalists;
    double interval, least_s, most_s;
    bool coarse;
};
enum { QUICK, NORMAL, THOROUGH, EFFORTS };
static const struct effort efforts[EFFORTS] = {
    {"quick", 12, 8, 1, 0.05, 0.01, 0.1, true},
    {"normal", 32, 16, FINALISTS, 0.02, 0.02, 0.3, false},
    {"thorough", 128, 64, FINALISTS, 0.01, 0.05, 1, false},
};

/* For choosing in service: of the budget, and of that for a chain at most. */
static const double service_share = 0.15, service_most_s = 6;

/* Of a budget; what is left is too little for a trial. */
static const double used_up = 0.97;

static const char gpu_m[] = "1,2,4,8,16,32,64,128,256,512,1024,2048,4096,8192";
static const char cpu_m[] = "1,4,16,64";

enum {
    OPTION_MODEL = 256,
    OPTION_TP,
    OPTION_SHAPES,
    OPTION_DEVICE,
    OPTION_BUDGET,
    OPTION_TRIALS,
    OPTION_STRATEGY,
    OPTION_EFFORT,
    OPTION_M,
    OPTION_OP,
    OPTION_GROUP,
    OPTION_OUT,
    OPTION_STORE,
    OPTION_START,
    OPTION_FRESH,
    OPTION_REGIME,
    OPTION_FROM_MISSES,
    OPTION_COARSE,
    OPTION_PART,
    OPTION_LIMIT
};

static const struct argp_option options[] = {
    {"model", OPTION_MODEL, "NAME|DIR", 0,
     "tune every linear layer of a model: qwen2.5-0.5b to -72b, llama-3-8b, llama-3-70b, or a directory with "
     "config.json",
     0},
    {"tp", OPTION_TP, "N", 0, "of the model the share that each of N devices has, as with decode --tp N", 0},
    {"shapes", OPTION_SHAPES, "KxN,...", 0, "tune these shapes instead", 0},
    {"from-misses", OPTION_FROM_MISSES, "FILE", 0,
     "tune what decode or sweep --misses FILE looked up in vain, and mend the table with it", 0},
    {"part", OPTION_PART, "I/N", 0, "only every Nth shape, from the Ith on: for many machines (tuner/slurm/submit)", 0},
    {"device", OPTION_DEVICE, "D,...", 0,
     "cpu, cuda:N, or auto, the default: the first usable GPU, else the CPU; cuda:0,cuda:1 shares the work out among "
     "GPUs of one kind, all among those that are like the first",
     0},
    {"budget", OPTION_BUDGET, "TIME", 0,
     "stop after 90s, 10m or 1h of trials, on all devices together; stored trials count", 1},
    {"trials", OPTION_TRIALS, "N", 0,
     "at most N trials a problem (without --budget: what --effort says; exhaustive: all)", 1},
    {"strategy", OPTION_STRATEGY, "S", 0,
     "guided, the default: by the estimate, then by turns that and the leader's neighbours; racing: the same, but a "
     "trial ends as soon as its interval lies above the leader's; random: uniformly; exhaustive: all, by the estimate",
     1},
    {"effort", OPTION_EFFORT, "E", 0,
     "quick: 12 trials (CPU: 8) of a problem until intervals are within 5% or 0.1 s, one finalist, --coarse; normal, "
     "the default: 32 (16), 2% or 0.3 s, three; thorough: 128 (64), 1% or 1 s, three; what is stored is not measured "
     "again",
     1},
    {"limit", OPTION_LIMIT, "TIME", 0,
     "a configuration that is not verified and measured in this time is never tried again (default: 10s and 50 slow "
     "calls of the problem)",
     1},
    {"m", OPTION_M, "LIST", 0,
     "M to search at: 1,16,256, 1:8192:x2 or 1:64:+8; borders of rows are then placed between them "
     "(default: 1 to 8192 by twos on a GPU, 1,4,16,64 on a CPU; lm_head stops at 256)",
     2},
    {"coarse", OPTION_COARSE, NULL, 0,
     "leave the borders of rows at the M that are measured, and do not test rows at others", 2},
    {"op", OPTION_OP, "LIST", 0, "only these of awq_dequant,marlin_gemm,fp16_gemm", 2},
    {"group", OPTION_GROUP, "G", 0, "rows that share a scale: 32, 64, 128 or all (default: the model's, else 128)", 2},
    {"regime", OPTION_REGIME, "R", 0,
     "launch calls one by one (stream), many as one graph (graph), or that with programmatic dependent launch, as the "
     "decoder does (pdl: the default from compute capability 9.0 on, else stream)",
     2},
    {"out", OPTION_OUT, "FILE", 0, "the table (default: results/DEVICE/tiles.txt); trials.csv is written beside it", 3},
    {"store", OPTION_STORE, "FILE", 0, "the trials (default: trials.sqlite beside the table)", 3},
    {"start", OPTION_START, "FILE", 0,
     "try the configurations of this table first, be it of other hardware or kernel sources; those of the table that "
     "is "
     "replaced are tried first anyway",
     3},
    {"fresh", OPTION_FRESH, NULL, 0, "forget the stored trials of these problems first", 3},
    {0},
};

static const char documentation[] =
    "Searches the best kernel and tile parameters for every problem and writes a tile table.\v"
    "Each trial is verified, timed and stored as it ends. Ctrl-C and kill lose at most the trial that ran: the same "
    "command goes on from there, and one that is complete measures nothing. Rows of an existing table that were made "
    "for the same device and kernel sources, and for other shapes, are kept; of others each search tries the "
    "configurations first, so that after an update of driver or kernels it begins where the old table ended.\n\n"
    "In the regime pdl a model's rows up to M = 64 are then chosen in service: what is best alone, or takes up to 15% "
    "longer, is measured in a chain of all four layers with the small kernels of a decoder between them, and the "
    "fastest chain has the rows. This has 15% of --budget; --effort quick leaves it out.\n\n"
    "Examples:\n"
    "  tilebook tune --model qwen2.5-14b --device cuda:0 --budget 10m\n"
    "  tilebook tune --model qwen2.5-14b --device all --budget 10m\n"
    "  tilebook tune --model qwen2.5-14b --tp 2 --device cuda:0 --out tp2.txt\n"
    "  tilebook tune --shapes 256x768 --device cpu\n"
    "  tilebook decode --model DIR --table tiles.txt --misses misses.txt --prompt Hi\n"
    "  tilebook tune --from-misses misses.txt --out tiles.txt\n";

struct choices {
    const char *shapes_text, *device, *m_text, *out, *store, *start, *misses_file;
    struct many many;
    struct shapes shapes;
    struct misses misses;
    int *m, m_count;
    int tp; /* 0: not given */
    int group, trials, part, parts;
    const struct effort *effort;
    enum strategy strategy;
    bool have_model, have_group, have_op, have_regime, ops[OP_COUNT], fresh, coarse;
    enum regime regime;
    double budget_s, limit_s;
    double service_s;           /* of the budget, to choose in service; 0: no limit */
    const char *not_in_service; /* why not; NULL: it is done */
};

static void parse_ops(struct choices *c, const char *text, struct argp_state *state) {
    char name[32];
    struct error error;
    enum op op;
    do {
        size_t length = strcspn(text, ",");
        snprintf(name, sizeof name, "%.*s", (int)length, text);
        if (op_parse(name, &op, &error)) argp_error(state, "--op: %s", error.text);
        c->ops[op] = true;
        text += length;
    } while (*text++);
    c->have_op = true;
}

static void parse_part(struct choices *c, const char *text, struct argp_state *state) {
    int used = 0;
    if (sscanf(text, "%d/%d%n", &c->part, &c->parts, &used) == 2 && !text[used] && c->part >= 1 && c->part <= c->parts)
        return;
    argp_error(state, "--part: expected I/N with I from 1 to N, found %s", text);
}

static const struct effort *parse_effort(const char *text, struct argp_state *state) {
    for (int i = 0; i < EFFORTS; i++)
        if (!strcmp(text, efforts[i].name)) return &efforts[i];
    argp_error(state, "--effort: '%s' is not one of quick, normal, thorough", text);
    return NULL;
}

/* All of a shape stays together, so that one device compares its configurations. */
static void keep_part(struct choices *c, struct argp_state *state) {
    int kept = 0;
    if (c->parts > c->shapes.count)
        argp_error(state, "--part %d/%d: there are %d shapes; use at most as many parts", c->part, c->parts,
                   c->shapes.count);
    for (int i = c->part - 1; i < c->shapes.count; i += c->parts) c->shapes.list[kept++] = c->shapes.list[i];
    c->shapes.count = kept;
}

static void parse_shapes(struct choices *c, struct argp_state *state) {
    struct error error;
    char share[4096];
    if (c->tp && !c->have_model) argp_error(state, "--tp is for --model, whose matrices are shared out");
    snprintf(share, sizeof share, "%s:tp%d", c->shapes_text, c->tp);
    if (shapes_parse(c->tp > 1 ? share : c->shapes_text, &c->shapes, &error)) argp_error(state, "%s", error.text);
}

static void check_choices(struct choices *c, struct argp_state *state) {
    struct error error;
    if (c->misses_file) {
        if (c->shapes_text || c->tp || c->m_text || c->have_op || c->have_group || c->parts)
            argp_error(state,
                       "--from-misses says what to tune: --model, --tp, --shapes, --part, --m, --op and --group do "
                       "not go with it");
        if (misses_read(c->misses_file, &c->misses, &error)) argp_error(state, "--from-misses: %s", error.text);
        return;
    }
    if (!c->shapes_text)
        argp_error(state, "what should be tuned? Give --model qwen2.5-14b or --shapes KxN, or --from-misses FILE");
    parse_shapes(c, state);
    if (c->parts) keep_part(c, state);
    for (int i = 0; i < c->shapes.count; i++)
        if (c->shapes.list[i].m)
            argp_error(state, "--shapes: %s has an M of its own (@%d); a table has every M of --m",
                       c->shapes.list[i].layer, c->shapes.list[i].m);
    if (c->m_text && m_list_parse(c->m_text, &c->m, &c->m_count, &error)) argp_error(state, "--m: %s", error.text);
    for (int i = 0; i < OP_COUNT && !c->have_op; i++) c->ops[i] = true;
    if (!c->have_group) c->group = c->shapes.group;
}

static error_t parse_option(int key, char *text, struct argp_state *state) {
    struct choices *c = state->input;
    struct error error;
    switch (key) {
    case OPTION_TP:
        c->tp = (int)argument_whole(state, "tp", text, 1, 1024);
        return 0;
    case OPTION_MODEL:
    case OPTION_SHAPES:
        if (c->shapes_text) argp_error(state, "--model and --shapes are given once, and not together");
        c->shapes_text = text;
        c->have_model = key == OPTION_MODEL;
        return 0;
    case OPTION_FROM_MISSES:
        c->misses_file = text;
        return 0;
    case OPTION_DEVICE:
        if (many_check_list(text, &error)) argp_error(state, "--device: %s", error.text);
        c->device = text;
        return 0;
    case OPTION_BUDGET:
        c->budget_s = argument_time(state, "budget", text);
        return 0;
    case OPTION_LIMIT:
        c->limit_s = argument_time(state, "limit", text);
        return 0;
    case OPTION_TRIALS:
        c->trials = (int)argument_whole(state, "trials", text, 1, 1000000);
        return 0;
    case OPTION_STRATEGY:
        if (strategy_parse(text, &c->strategy, &error)) argp_error(state, "--strategy: %s", error.text);
        return 0;
    case OPTION_EFFORT:
        c->effort = parse_effort(text, state);
        return 0;
    case OPTION_M:
        c->m_text = text;
        return 0;
    case OPTION_OP:
        parse_ops(c, text, state);
        return 0;
    case OPTION_GROUP:
        c->group = argument_group(state, text);
        c->have_group = true;
        return 0;
    case OPTION_OUT:
        c->out = text;
        return 0;
    case OPTION_STORE:
        c->store = text;
        return 0;
    case OPTION_START:
        c->start = text;
        return 0;
    case OPTION_FRESH:
        c->fresh = true;
        return 0;
    case OPTION_COARSE:
        c->coarse = true;
        return 0;
    case OPTION_PART:
        parse_part(c, text, state);
        return 0;
    case OPTION_REGIME:
        if (regime_parse(text, &c->regime, &error)) argp_error(state, "--regime: %s", error.text);
        c->have_regime = true;
        return 0;
    case ARGP_KEY_END:
        check_choices(c, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* "NVIDIA H100 80GB HBM3" becomes "nvidia-h100-80gb-hbm3". */
static void slug(const char *name, char *to, size_t size) {
    size_t used = 0;
    for (; *name && used + 1 < size; name++) {
        if (isalnum((unsigned char)*name))
            to[used++] = (char)tolower((unsigned char)*name);
        else if (used && to[used - 1] != '-')
            to[used++] = '-';
    }
    while (used && to[used - 1] == '-') used--;
    to[used] = 0;
}

/* The file's folder with its slash; "" for a file right here. */
static void folder(const char *path, char to[PATH]) {
    const char *slash = strrchr(path, '/');
    snprintf(to, PATH, "%.*s", slash ? (int)(slash - path + 1) : 0, path);
}

static int make_folders(const char *path, struct error *error) {
    char part[PATH];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdir(part, 0777) && errno != EEXIST)
            return error_set(error, "%s: cannot make the folder: %s; name another table with --out", part,
                             strerror(errno));
    }
    return 0;
}

struct paths {
    char table[PATH], csv[PATH], store[PATH];
};

static int find_paths(const struct choices *c, const struct device *device, struct paths *paths, struct error *error) {
    char name[128], beside[PATH];
    slug(device->name, name, sizeof name);
    int length = c->out ? snprintf(paths->table, PATH, "%s", c->out)
                        : snprintf(paths->table, PATH, "results/%s/tiles.txt", name);
    folder(paths->table, beside);
    int store = c->store ? snprintf(paths->store, PATH, "%s", c->store)
                         : snprintf(paths->store, PATH, "%strials.sqlite", beside);
    if (length >= PATH - 16 || store >= PATH) return error_set(error, "the path of the table or the store is too long");
    snprintf(paths->csv, PATH, "%strials.csv", beside);
    return make_folders(paths->table, error);
}

/* Before hours of tuning: can the table be written, and is what lies there a table? That goes to `old`; *holds says
 * whether it is of this device and these sources. */
static int check_output(const struct paths *paths, const struct device *d, struct tile_table *old, bool *holds,
                        struct error *error) {
    char message[TILES_MESSAGE], probe[PATH + 8];
    *old = (struct tile_table){.count = 0};
    *holds = false;
    snprintf(probe, sizeof probe, "%s.probe", paths->csv);
    FILE *file = fopen(probe, "w");
    if (!file)
        return error_set(error, "%s: cannot write here: %s; name another table with --out", probe, strerror(errno));
    fclose(file);
    unlink(probe);
    if (access(paths->table, F_OK)) return 0;
    if (tiles_read(paths->table, old, message))
        return error_set(error, "%s; it is in the way of the new table: remove it, or name another with --out",
                         message);
    *holds = !tiles_match(old, d->name, d->architecture, d->multiprocessors, d->kernels, message);
    if (!*holds)
        fprintf(stderr,
                "tilebook: %s: the rows there were measured elsewhere or with other kernels: their times do not count, "
                "and all of them are replaced\n",
                paths->table);
    return 0;
}

static int read_start(const char *path, struct tile_table *table, struct error *error) {
    char message[TILES_MESSAGE];
    *table = (struct tile_table){.count = 0};
    if (!path || !tiles_read(path, table, message)) return 0;
    return error_set(error, "--start: %s", message);
}

static int write_csv(const struct tune *tune, const char *path, struct error *error) {
    char temporary[PATH + 8];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *file = fopen(temporary, "w");
    if (!file) return error_set(error, "%s: %s", temporary, strerror(errno));
    tune_write_csv(tune, file);
    int bad = ferror(file) || fflush(file), cause = errno;
    bad |= fclose(file);
    if (!bad && !rename(temporary, path)) return 0;
    unlink(temporary);
    return error_set(error, "%s: cannot write: %s", path, strerror(cause));
}

static void summarize(const struct tune *tune, const struct paths *paths, size_t rows) {
    int count[TRIAL_STATUSES], all = 0, problems = tune->count - tune->inserted;
    for (int s = 0; s < TRIAL_STATUSES; s++) all += count[s] = tune_count(tune, (enum trial_status)s);
    fprintf(stderr, "%d problem%s", problems, problems == 1 ? "" : "s");
    if (tune->inserted) fprintf(stderr, " and %d m between theirs", tune->inserted);
    fprintf(stderr, ", %d trial%s, %d of them new, %d failed", all, all == 1 ? "" : "s", tune->fresh,
            all - count[TRIAL_OK]);
    for (int s = TRIAL_OK + 1; s < TRIAL_STATUSES; s++)
        if (count[s]) fprintf(stderr, ", %d %s", count[s], trial_status_name((enum trial_status)s));
    fprintf(stderr,
            "\n%.2fx the speed of the built-in defaults (geometric mean)\n%zu rows in %s, trials in %s and %s\n",
            tune_speedup(tune), rows, paths->table, paths->csv, paths->store);
    struct ranges_summary ranges = ranges_summarize(tune);
    char problem[128];
    if (ranges.tested)
        fprintf(stderr, "held-out M: %d rows tested, %d split, the others lose at most %.1f%%%s%s\n", ranges.tested,
                ranges.split, 100 * ranges.worst, ranges.at ? ", at " : "",
                ranges.at ? problem_text(&ranges.at->problem, problem) : "");
    const struct nvml_watch *watch = &tune->watch;
    char reasons[NVML_REASONS];
    if (watch->impaired)
        fprintf(stderr,
                "%d of %d trials were measured while the card was throttled (%s): these are not the figures of a "
                "healthy card; --fresh measures them again\n",
                watch->impaired, watch->measured, nvml_reasons(watch->reasons, reasons));
}

/* 0 written, 1 written with holes; -1 nothing written. */
static int write_results(const struct tune *tune, const struct paths *paths, const struct tile_table *before,
                         struct error *error) {
    struct tile_table table;
    char message[TILES_MESSAGE];
    int missing = 0, status = -1;
    if (tune_table(tune, before, &table, &missing, error)) return -1;
    if (missing == tune->count)
        error_set(error, "no problem has a working configuration; %s is unchanged", paths->table);
    else if (tiles_write(paths->table, &table, message))
        error_set(error, "%s; free some space or name another table with --out: the trials are stored", message);
    else if (!write_csv(tune, paths->csv, error))
        status = missing > 0;
    if (status >= 0) summarize(tune, paths, table.count);
    if (status == 1) fprintf(stderr, "tilebook: %d problems have no working configuration\n", missing);
    tiles_free(&table);
    return status;
}

static int pending(const struct tune *tune) {
    int count = 0;
    for (int i = 0; i < tune->count; i++) count += tune->items[i].result.best < 0;
    return count;
}

static int choose_in_service(struct tune *tune, const struct choices *c, struct error *error) {
    if (!c->not_in_service) return service_run(tune, &c->shapes, c->service_s, error);
    progress_line(tune->progress, "no winner is chosen in service: %s", c->not_in_service);
    return TUNE_DONE;
}

/* *open counts the problems without a result. */
static int search(struct tune *tune, struct choices *c, const struct paths *paths, int *open, struct error *error) {
    int outcome = -1;
    tune->interrupted = catch_interrupt();
    if (tune_tell_starts(tune, error)) return -1;
    if (c->many.count > 1) {
        outcome = many_run(&c->many, tune, paths->store, error);
        *open = c->many.open;
    } else if (!store_open(paths->store, &tune->store, error)) {
        outcome = tune_run(tune, error);
        *open = pending(tune);
    }
    return outcome == TUNE_DONE ? choose_in_service(tune, c, error) : outcome;
}

/* What --regime would have to be for a table's; "calls" and what is not known have none. */
static const char *regime_option(const struct tile_table *table) {
    for (enum regime regime = REGIME_STREAM; regime <= REGIME_PDL; regime++) {
        char text[32];
        snprintf(text, sizeof text, "cold, %s,", regime_name(regime));
        if (!strncmp(table->regime, text, strlen(text))) return regime_name(regime);
    }
    return NULL;
}

/* Rows of another regime cannot be mended, and are not kept. */
static int check_regime(const struct tune *tune, const struct paths *paths, const struct tile_table *before,
                        struct error *error) {
    const char *regime = tune->scope.regime, *option = before ? regime_option(before) : NULL;
    char hint[64] = "name another table with --out";
    if (!before || !strncmp(before->regime, regime, strlen(regime))) return 0;
    if (option) snprintf(hint, sizeof hint, "give --regime %s", option);
    if (tune->patch)
        return error_set(error, "%s was measured in the regime '%.63s' and cannot be mended in '%s'; %s", paths->table,
                         before->regime, regime, hint);
    progress_line(tune->progress,
                  "%s: the rows there were measured in the regime '%.63s': all are replaced; to keep any, %s",
                  paths->table, before->regime, hint);
    return 0;
}

/* Stored trials count: whether they have used up the budget and the table has rows for all problems; *spent_s is what
 * they took. */
static int find_complete(const struct tune *tune, const struct choices *c, const char *path,
                         const struct tile_table *before, bool *complete, double *spent_s, struct error *error) {
    struct store *store;
    *complete = c->budget_s > 0 && !c->fresh && !tune->patch && before && !access(path, F_OK);
    *spent_s = 0;
    if (!*complete) return 0;
    if (store_open(path, &store, error)) return -1;
    int status = 0;
    for (int i = 0; i < tune->count && !status; i++) {
        const struct problem *p = &tune->items[i].problem;
        double seconds = 0;
        if (!tiles_find(before, op_name(p->op), p->k, p->n, p->group, p->m)) *complete = false;
        if (i && tune_neighbours(&tune->items[i - 1], &tune->items[i])) continue;
        status = store_spent(store, &tune->scope, p, &seconds, error);
        *spent_s += seconds;
    }
    store_close(store);
    if (*spent_s < used_up * c->budget_s) *complete = false;
    return status;
}

/* Searches and writes. `before` are rows that still hold; NULL without. Returns the exit code, or -1 and the error. */
static int search_and_write(struct tune *tune, struct choices *c, const struct paths *paths,
                            const struct tile_table *before, struct error *error) {
    int status = -1, open = tune->count;
    bool complete;
    double spent_s;
    if (check_regime(tune, paths, before, error) ||
        find_complete(tune, c, paths->store, before, &complete, &spent_s, error))
        return -1;
    if (complete) {
        fprintf(
            stderr,
            "%s is complete, nothing was measured: what %s holds took %.1f s, --budget is %.1f s; a longer one goes "
            "on, --fresh begins anew\n",
            paths->table, paths->store, spent_s, c->budget_s);
        return 0;
    }
    int outcome = search(tune, c, paths, &open, error);
    if (outcome == TUNE_INTERRUPTED && open) {
        fprintf(stderr,
                "tilebook: interrupted; %d of %d problems are open, %s is unchanged; the same command resumes\n", open,
                tune->count, paths->table);
        status = 130;
    } else if (outcome >= 0) {
        status = write_results(tune, paths, before, error);
        if (status == 0 && outcome == TUNE_INTERRUPTED) status = 130;
    }
    return status;
}

static int begin_with_tables(struct tune *tune, struct choices *c, const struct paths *paths, struct error *error) {
    struct tile_table old, start;
    bool holds;
    int status = -1;
    if (check_output(paths, tune->device, &old, &holds, error)) return -1;
    if (!read_start(c->start, &start, error)) {
        tune->starts[0] = (struct tune_start){&old, paths->table};
        tune->starts[1] = (struct tune_start){&start, c->start};
        status = search_and_write(tune, c, paths, holds ? &old : NULL, error);
    }
    tiles_free(&start);
    tiles_free(&old);
    return status;
}

static void apply_effort(struct tune *tune, const struct choices *c, bool gpu) {
    const struct effort *effort = c->effort;
    tune->strategy = c->strategy;
    tune->finalists = effort->finalists;
    tune->measure = measure_quick;
    tune->measure.regime = c->regime;
    tune->measure.interval = effort->interval;
    tune->measure.min_seconds = effort->least_s;
    tune->measure.max_seconds = effort->most_s;
    if (c->trials || c->budget_s > 0 || c->strategy == STRATEGY_EXHAUSTIVE) return;
    tune->trials = gpu ? effort->gpu_trials : effort->cpu_trials;
}

/* In the regime that the decoder launches in, where the device has it. */
static void choose_regime(struct choices *c, const struct device *device) {
    if (!c->have_regime && !regime_check(REGIME_PDL, device, NULL)) c->regime = REGIME_PDL;
}

static int plan(struct tune *tune, struct choices *c, struct error *error) {
    bool gpu = tune->device->backend == BACKEND_CUDA;
    if (regime_check(c->regime, tune->device, error)) return -1;
    tune->compile = gpu ? plan_compile : NULL;
    tune->budget_s = c->budget_s;
    tune->trials = c->trials;
    tune->forget = c->fresh;
    tune->refine = !c->coarse && !c->effort->coarse && !c->misses_file;
    apply_effort(tune, c, gpu);
    if (c->misses_file) return tune_plan_misses(tune, &c->misses, error);
    if (!c->m && m_list_parse(gpu ? gpu_m : cpu_m, &c->m, &c->m_count, error)) return -1;
    struct tune_plan plan = {&c->shapes, c->m, c->m_count, c->m_text ? 0 : HEAD_M, c->group, {0}};
    memcpy(plan.ops, c->ops, sizeof plan.ops);
    return tune_plan(tune, &plan, error);
}

/* Whether winners are chosen in service, and what that may take. */
static void plan_service(struct tune *tune, struct choices *c) {
    int chains = service_count(tune, &c->shapes);
    if (tune->device->backend != BACKEND_CUDA)
        c->not_in_service = "the CPU has no graphs";
    else if (c->regime != REGIME_PDL)
        c->not_in_service = "that takes --regime pdl";
    else if (c->effort == &efforts[QUICK])
        c->not_in_service = "--effort quick";
    else if (!chains)
        c->not_in_service = "no M up to 64 has all four layers of a model";
    if (c->not_in_service || !(c->budget_s > 0)) return;
    c->service_s = service_share * c->budget_s;
    if (c->service_s > chains * service_most_s) c->service_s = chains * service_most_s;
    tune->budget_s -= c->service_s;
}

static int run_on(struct supervisor *supervisor, struct choices *c, struct error *error) {
    const struct device *device = &supervisor->device;
    struct progress progress;
    struct paths paths;
    struct tune tune = {.supervisor = supervisor, .device = device, .progress = &progress};
    char regime[32];
    choose_regime(c, device);
    snprintf(regime, sizeof regime, "cold, %s", device->backend == BACKEND_CUDA ? regime_name(c->regime) : "calls");
    tune.scope = (struct store_scope){device->name, device->architecture, device->kernels,
                                      regime,       device->software,     device->uuid};
    progress_start(&progress, stderr);
    int status = -1;
    if (plan(&tune, c, error)) {
        fprintf(stderr, "tilebook: %s\n", error->text);
        status = 2;
    } else if (!find_paths(c, device, &paths, error)) {
        plan_service(&tune, c);
        status = begin_with_tables(&tune, c, &paths, error);
    }
    store_close(tune.store);
    tune_free(&tune);
    return status;
}

int cmd_tune(int argc, char **argv) {
    static const struct argp parser = {options, parse_option, NULL, documentation, NULL, NULL, NULL};
    static char name[] = "tilebook tune";
    struct choices choices = {.effort = &efforts[NORMAL]};
    struct error error = {""};
    argp_err_exit_status = 2;
    argv[0] = name;
    argp_parse(&parser, argc, argv, 0, NULL, &choices);
    struct supervisor supervisor = {.kernels = kernel_list(), .limit_s = choices.limit_s};
    int status = many_open(&choices.many, choices.device ? choices.device : "auto", &supervisor, &error);
    if (!status) status = run_on(&supervisor, &choices, &error);
    supervisor_close(&supervisor);
    shapes_free(&choices.shapes);
    misses_free(&choices.misses);
    free(choices.m);
    if (status >= 0) return status;
    fprintf(stderr, "tilebook: %s\n", error.text);
    return 1;
}

int cmd_worker(int argc, char **argv) {
    struct error error = {""};
    const char *device = argc == 2 ? argv[1] : "";
    if (!worker_serve(device, kernel_list(), &error)) return 0;
    fprintf(stderr, "tilebook: %s\n", error.text);
    return 2;
}
