#include "tuner/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tuner/calibrate.h"
#include "tuner/ranges.h"

static const double refining_share = 0.25; /* of the budget, for borders and held-out m, .. */
static const double refining_from_s = 1;   /* .. less where a problem has less than this: trials are worth more */
static const double final_share = 1.0 / 3; /* of a problem's time */

/* --- which problems --- */

static bool planned(const struct tune *tune, int count, const struct problem *problem) {
    for (int i = 0; i < count; i++) {
        const struct problem *other = &tune->items[i].problem;
        if (other->op == problem->op && other->k == problem->k && other->n == problem->n &&
            other->group == problem->group)
            return true;
    }
    return false;
}

static int add_item(struct tune *tune, const struct problem *problem, int m_low, struct error *error) {
    struct tune_item *items = realloc(tune->items, (size_t)(tune->count + 1) * sizeof *items);
    if (!items) return error_set(error, "out of memory");
    tune->items = items;
    items[tune->count++] =
        (struct tune_item){.problem = *problem, .m_low = m_low, .result = {.best = -1, .baseline = -1}};
    return problem_check(problem, error);
}

static int add_shape(struct tune *tune, const struct tune_plan *plan, const struct shape *shape, enum op op,
                     struct error *error) {
    bool quantized = op != OP_FP16_GEMM;
    int group = plan->group > 0 ? plan->group : shape->k;
    struct problem problem = shape_problem(shape, op, 1, group, quantized, shape->epilogue);
    int before = tune->count;
    if ((quantized && !shape->quantized) || planned(tune, before, &problem)) return 0;
    if (op == OP_AWQ_DEQUANT) return add_item(tune, &problem, 1, error);
    for (int i = 0; i < plan->m_count; i++) {
        problem.m = plan->m[i];
        if (add_item(tune, &problem, i ? plan->m[i - 1] + 1 : 1, error)) return -1;
        if (plan->head_m && !strcmp(shape->layer, "lm_head") && problem.m >= plan->head_m) break;
    }
    return 0;
}

int tune_plan(struct tune *tune, const struct tune_plan *plan, struct error *error) {
    for (int op = 0; op < OP_COUNT; op++)
        for (int i = 0; plan->ops[op] && i < plan->shapes->count; i++)
            if (add_shape(tune, plan, &plan->shapes->list[i], (enum op)op, error)) return -1;
    if (tune->count) return 0;
    return error_set(error, "nothing to tune: none of the shapes is quantised, and fp16_gemm is not among the ops");
}

/* By what makes a row, then by m; the costlier with zero points first. */
static int compare_misses(const void *left, const void *right) {
    const struct problem *a = &((const struct miss *)left)->problem, *b = &((const struct miss *)right)->problem;
    const long keys[][2] = {{a->op, b->op},       {a->k, b->k}, {a->n, b->n},
                            {a->group, b->group}, {a->m, b->m}, {b->zeros, a->zeros}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i][0] != keys[i][1]) return keys[i][0] < keys[i][1] ? -1 : 1;
    return 0;
}

int tune_plan_misses(struct tune *tune, const struct misses *misses, struct error *error) {
    tune->patch = true;
    if (misses->count) qsort(misses->list, (size_t)misses->count, sizeof *misses->list, compare_misses);
    for (int i = 0; i < misses->count; i++) {
        const struct problem *problem = &misses->list[i].problem;
        const struct problem *last = tune->count ? &tune->items[tune->count - 1].problem : NULL;
        bool same = last && last->op == problem->op && last->k == problem->k && last->n == problem->n &&
                    last->group == problem->group;
        if (same && last->m == problem->m) continue;
        if (add_item(tune, problem, same ? last->m + 1 : 1, error)) return -1;
    }
    return tune->count ? 0 : error_set(error, "nothing to tune: the list has no misses");
}

void tune_free(struct tune *tune) {
    for (int i = 0; i < tune->count; i++) search_result_free(&tune->items[i].result);
    free(tune->items);
    tune->items = NULL;
    tune->count = 0;
}

/* --- running --- */

static double time_left(const struct tune *tune, double share) {
    if (tune->budget_s > 0) return tune->budget_s > tune->spent_s ? tune->budget_s - tune->spent_s : 0;
    if (!tune->fresh || !tune->trials) return -1;
    return (progress_now() - tune->started_s) / tune->fresh * (1 - share) * tune->count * tune->trials;
}

static void show(const struct tune *tune) {
    char text[128], line[192];
    double part = tune->trials ? (double)tune->order / tune->trials : 0;
    double share = (tune->current + (part < 1 ? part : 1)) / tune->count;
    if (tune->budget_s > 0 && tune->spent_s / tune->budget_s > share) share = tune->spent_s / tune->budget_s;
    int used = tune->best_us > 0 ? snprintf(line, sizeof line, "best %.2f us: ", tune->best_us) : 0;
    snprintf(line + used, sizeof line - (size_t)used, "%s", problem_text(&tune->items[tune->current].problem, text));
    progress_show(tune->progress, share, time_left(tune, share), line);
}

/* What no reader of a log would guess from the count of failures. */
static void tell_quarantined(const struct tune *tune, const struct kernel *kernel, const struct problem *problem,
                             const struct config *config, const struct trial_result *result) {
    char what[128], name[64], text[MAX_CONFIG_TEXT];
    if (result->status != TRIAL_RUNTIME && result->status != TRIAL_TIMEOUT) return;
    progress_line(tune->progress, "%s: %s %s: %s: %s; it is not tried again", problem_text(problem, what),
                  kernel_full_name(kernel, name), config_text(kernel, config, text), trial_status_name(result->status),
                  result->message);
}

/* A failure to make the problem's data costs the problem; a worker that cannot be started ends the run. */
static int measure_fresh(struct tune *tune, const struct kernel *kernel, const struct problem *problem,
                         const struct config *config, double beaten_us, struct trial_result *result) {
    struct measure_options options = tune->measure;
    double start = progress_now();
    options.beaten_us = beaten_us;
    if (tune->ahead) ahead_take(tune->ahead, kernel, problem, config);
    double waited = progress_now() - start;
    int status = supervisor_trial(tune->supervisor, kernel, problem, config, &options, result, &tune->error);
    if (status < 0) return -1;
    result->seconds += waited;
    if (status) {
        snprintf(tune->items[tune->current].skipped, sizeof tune->items->skipped, "%s", tune->error.text);
        return TUNE_SKIPPED;
    }
    tune->fresh++;
    tell_quarantined(tune, kernel, problem, config, result);
    return store_put(tune->store, &tune->scope, kernel, problem, config, tune->order + 1, result, &tune->error);
}

/* What the run remembers of a trial with times. */
static void look_at(struct tune *tune, const struct trial_result *result, bool stored) {
    char reasons[NVML_REASONS];
    if (!(tune->best_us > 0) || result->us < tune->best_us) tune->best_us = result->us;
    if (nvml_watch(&tune->watch, result->throttle))
        progress_line(tune->progress, "warning: %s %s throttled (%s): its figures are not those of a healthy card",
                      tune->device->id, stored ? "was, in stored trials," : "is",
                      nvml_reasons(nvml_impairment(result->throttle), reasons));
}

/* What is stored needs no compiled code. */
static bool stored(struct tune *tune, const struct kernel *kernel, const struct problem *problem,
                   const struct config *config) {
    struct trial_result result;
    bool found = false;
    return !store_find(tune->store, &tune->scope, kernel, problem, config, &result, &found, NULL) && found;
}

/* The leader at this m will be tried at the next one, whose search begins too late to compile it by then. */
static void expect_next(struct tune *tune, const struct kernel *kernel, const struct config *config) {
    const struct tune_item *item = &tune->items[tune->current], *next = item + 1;
    bool last = tune->current + 1 == tune->count || next->result.count || !tune_neighbours(item, next);
    if (!tune->ahead || last || config_legal(tune->device, kernel, &next->problem, config, NULL)) return;
    if (stored(tune, kernel, &next->problem, config)) return;
    ahead_plan(tune->ahead, tune->current + 1, kernel, &next->problem, config);
    ahead_announce(tune->ahead, kernel, &next->problem, config);
}

/* What wins of one may win of the other: the same m for other weights, or the next m for the same. */
static bool akin(const struct tune_item *before, const struct tune_item *item) {
    struct problem same = before->problem;
    same.m = item->problem.m;
    if (before + 1 == item && problem_equal(&same, &item->problem)) return true;
    const struct problem *a = &before->problem, *b = &item->problem;
    return a->op == b->op && a->m == b->m && a->group == b->group && a->zeros == b->zeros && a->bf16 == b->bf16;
}

/* What won here will be tried of the items behind that are akin. */
static void expect_kin(const struct tune *tune, const struct tune_item *item) {
    if (!tune->ahead || item->result.best < 0) return;
    const struct trial *best = &item->result.trials[item->result.best];
    for (int i = tune->current + 2; i < tune->count; i++) {
        const struct problem *problem = &tune->items[i].problem;
        if (akin(item, &tune->items[i]) && !config_legal(tune->device, best->kernel, problem, &best->config, NULL))
            ahead_plan(tune->ahead, i, best->kernel, problem, &best->config);
    }
}

static int trial(void *context, const struct kernel *kernel, const struct problem *problem, const struct config *config,
                 double beaten_us, struct trial_result *result) {
    struct tune *tune = context;
    bool found = false;
    if (*tune->interrupted) return TUNE_INTERRUPTED;
    show(tune);
    if (store_find(tune->store, &tune->scope, kernel, problem, config, result, &found, &tune->error)) return -1;
    int status = found ? 0 : measure_fresh(tune, kernel, problem, config, beaten_us, result);
    if (status) return status;
    tune->order++;
    tune->spent_s += result->seconds;
    if (result->status != TRIAL_OK) return 0;
    look_at(tune, result, found);
    if (result->us <= tune->best_us) expect_next(tune, kernel, config);
    return 0;
}

/* A final that fails leaves the incumbent where it is. */
static int final(void *context, const struct problem *problem, const struct trial *const *arms, int count,
                 double round_s, struct trial_result *result) {
    struct tune *tune = context;
    bool found = false;
    char text[128];
    if (*tune->interrupted) return TUNE_INTERRUPTED;
    if (store_find_final(tune->store, &tune->scope, problem, arms, count, result, &found, &tune->error)) return -1;
    if (!found) {
        int status = supervisor_rounds(tune->supervisor, problem, arms, count, round_s, tune->measure.regime, result,
                                       &tune->error);
        if (status < 0) return -1;
        if (status) {
            result->status = TRIAL_CONSTRAINT;
            snprintf(result->message, sizeof result->message, "%s", tune->error.text);
        }
        if (store_put_final(tune->store, &tune->scope, problem, arms, count, result, &tune->error)) return -1;
    }
    tune->spent_s += result->seconds;
    if (result->status != TRIAL_OK)
        progress_line(tune->progress, "%s: measured by turns: %s: %s; nothing is replaced", problem_text(problem, text),
                      trial_status_name(result->status), result->message);
    return 0;
}

static void report(const struct tune *tune, const struct tune_item *item) {
    char problem[128], name[64], config[MAX_CONFIG_TEXT];
    const struct search_result *result = &item->result;
    int number = tune->current + 1;
    problem_text(&item->problem, problem);
    if (item->skipped[0])
        progress_line(tune->progress, "[%d/%d] %s: skipped: %s", number, tune->count, problem, item->skipped);
    else if (result->best < 0)
        progress_line(tune->progress, "[%d/%d] %s: none of %d trials worked; the first: %s", number, tune->count,
                      problem, result->count, result->trials[0].result.message);
    if (result->best < 0) return;
    const struct trial *best = &result->trials[result->best];
    kernel_full_name(best->kernel, name);
    config_text(best->kernel, &best->config, config);
    char was[48] = "failed";
    const char *tie = result->best == result->baseline && result->ties ? ", a tie" : "";
    if (search_default_us(result) > 0) snprintf(was, sizeof was, "%.2f us%s", search_default_us(result), tie);
    progress_line(tune->progress, "[%d/%d] %s: %.2f us, default %s, %d trial%s: %s %s", number, tune->count, problem,
                  search_best_us(result), was, result->count, result->count == 1 ? "" : "s", name, config);
}

/* The winners of the problems before that are akin to this one, the latest first. */
static int add_hints(struct tune *tune, const struct tune_item *item, struct starts *starts) {
    int status = 0;
    for (const struct tune_item *before = item - 1; before >= tune->items && !status; before--) {
        if (before->result.best < 0 || !akin(before, item)) continue;
        const struct trial *best = &before->result.trials[before->result.best];
        status = starts_add(starts, best->kernel, &best->config, false, &tune->error);
    }
    return status;
}

/* What is stored first, so that a search that goes on comes by where it was; last what won elsewhere in this run. */
static int find_starts(struct tune *tune, const struct tune_item *item, struct starts *starts) {
    const struct kernel *const *kernels = tune->supervisor->kernels;
    if (!tune->forget && starts_add_stored(starts, tune->store, &tune->scope, kernels, &item->problem, &tune->error))
        return -1;
    for (int i = 0; i < TUNE_STARTS; i++)
        if (tune->starts[i].table &&
            starts_add_rows(starts, tune->starts[i].table, tune->device, kernels, &item->problem, NULL, &tune->error))
            return -1;
    return add_hints(tune, item, starts);
}

static int tell_start(const struct tune *tune, const struct tune_start *start, struct error *error) {
    size_t count = 0;
    int status = 0;
    if (!start->table || !start->table->count) return 0;
    bool *taken = calloc(start->table->count, sizeof *taken);
    if (!taken) return error_set(error, "out of memory");
    for (int i = 0; i < tune->count && !status; i++) {
        struct starts starts = {.list = NULL};
        status = starts_add_rows(&starts, start->table, tune->device, tune->supervisor->kernels,
                                 &tune->items[i].problem, taken, error);
        starts_free(&starts);
    }
    for (size_t r = 0; r < start->table->count; r++) count += taken[r];
    progress_line(tune->progress, "%s: %zu of %zu rows are tried first", start->path, count, start->table->count);
    free(taken);
    return status;
}

int tune_tell_starts(const struct tune *tune, struct error *error) {
    int status = 0;
    for (int i = 0; i < TUNE_STARTS && !status; i++) status = tell_start(tune, &tune->starts[i], error);
    return status;
}

static void expect(void *context, const struct kernel *kernel, const struct problem *problem,
                   const struct config *config) {
    struct tune *tune = context;
    if (tune->ahead && !stored(tune, kernel, problem, config)) ahead_announce(tune->ahead, kernel, problem, config);
}

/* The same before the searches begin. */
static void expect_later(void *context, const struct kernel *kernel, const struct problem *problem,
                         const struct config *config) {
    struct tune *tune = context;
    if (tune->ahead && (tune->forget || !stored(tune, kernel, problem, config)))
        ahead_plan(tune->ahead, tune->current, kernel, problem, config);
}

static struct search make_search(struct tune *tune, const struct tune_item *item) {
    return (struct search){
        .device = tune->device,
        .kernels = tune->supervisor->kernels,
        .problem = item->problem,
        .m_low = item->m_low,
        .strategy = tune->strategy,
        .trials = tune->trials,
        .trial = trial,
        .finalists = tune->finalists,
        .final_seconds = final_share * tune->budget_s / (tune->count - tune->inserted),
        .final = final,
        .context = tune,
    };
}

/* What a search knows before its first trial. */
static int inform(struct tune *tune, const struct tune_item *item, struct search *search, struct starts *starts,
                  struct calibration **calibration) {
    *starts = (struct starts){.list = NULL};
    *calibration =
        calibration_from_store(tune->device, search->kernels, &item->problem, tune->store, &tune->scope, &tune->error);
    int status = *calibration ? find_starts(tune, item, starts) : -1;
    search->calibration = *calibration;
    search->starts = starts->list;
    search->start_count = starts->count;
    return status;
}

/* Learns how large the spaces are, and queues what each search will begin with, as far as an equal share of the budget
 * reaches. */
static int plan_ahead(struct tune *tune) {
    int status = 0;
    for (tune->current = 0; tune->current < tune->count && !status; tune->current++) {
        struct tune_item *item = &tune->items[tune->current];
        struct starts starts;
        struct calibration *calibration;
        struct search search = make_search(tune, item);
        status = inform(tune, item, &search, &starts, &calibration);
        search.expect = expect_later;
        search.seconds = tune->budget_s / tune->count;
        if (!status) status = search_outline(&search, &item->space, &tune->error);
        calibration_free(calibration);
        starts_free(&starts);
    }
    return status;
}

static int run_search(struct tune *tune, const struct search *search, struct tune_item *item) {
    tune->order = 0;
    tune->best_us = 0;
    if (tune->forget && store_forget(tune->store, &tune->scope, &item->problem, &tune->error)) return -1;
    return search_run(search, &item->result, &tune->error);
}

double tune_share(const struct tune *tune) {
    double each = tune->budget_s / tune->count, sum = 0;
    double refining = tune->refine ? refining_share * fmin(1, each / refining_from_s) : 0;
    double left = (1 - refining) * tune->budget_s - tune->spent_s;
    for (int i = tune->current; i < tune->count; i++) sum += log2(1.0 + (double)tune->items[i].space);
    return left > 0 && sum > 0 ? left * log2(1.0 + (double)tune->items[tune->current].space) / sum : 0;
}

static int search_item(struct tune *tune, struct tune_item *item) {
    struct starts starts;
    struct calibration *calibration;
    struct search search = make_search(tune, item);
    int status = inform(tune, item, &search, &starts, &calibration);
    search.expect = expect;
    /* What one problem leaves over flows on to the others. */
    if (tune->budget_s > 0) {
        double share = fmax(tune_share(tune), 1e-9);
        search.final_seconds = final_share * share;
        search.seconds = share - search.final_seconds;
    }
    if (tune->ahead) ahead_turn(tune->ahead, tune->current);
    if (!status) status = run_search(tune, &search, item);
    if (!status) expect_kin(tune, item);
    calibration_free(calibration);
    starts_free(&starts);
    if (status == 0 && !item->result.count) snprintf(item->skipped, sizeof item->skipped, "%s", tune->error.text);
    if (status == 0 || status == TUNE_SKIPPED) report(tune, item);
    return status == TUNE_SKIPPED ? 0 : status;
}

bool tune_neighbours(const struct tune_item *a, const struct tune_item *b) {
    const struct problem *p = &a->problem, *q = &b->problem;
    return p->op == q->op && p->k == q->k && p->n == q->n && p->group == q->group;
}

/* The row of the item behind it begins above it from now on. */
int tune_insert(struct tune *tune, int at, int m, const struct trial *known, int known_count) {
    struct tune_item *items = realloc(tune->items, (size_t)(tune->count + 1) * sizeof *items);
    if (!items) return error_set(&tune->error, "out of memory");
    tune->items = items;
    memmove(items + at + 1, items + at, (size_t)(tune->count++ - at) * sizeof *items);
    struct tune_item *item = &items[at];
    *item = (struct tune_item){.problem = item->problem, .m_low = item->m_low, .inserted = true};
    item->problem.m = m;
    struct search search = make_search(tune, item);
    search.known = known;
    search.known_count = known_count;
    tune->current = at;
    int status = run_search(tune, &search, item);
    if (!status && item->result.best < 0) status = TUNE_SKIPPED;
    if (!status) {
        items[at + 1].m_low = m + 1;
        tune->inserted++;
        return 0;
    }
    search_result_free(&item->result);
    memmove(items + at, items + at + 1, (size_t)(--tune->count - at) * sizeof *items);
    return status;
}

int tune_run(struct tune *tune, struct error *error) {
    int status = 0;
    tune->started_s = progress_now();
    /* A core is left to the process that measures, another to this thread and the driver's. */
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN) / (tune->devices ? tune->devices : 1);
    if (tune->compile) tune->ahead = ahead_create(tune->device, tune->compile, cores - 2);
    if (tune->ahead || tune->budget_s > 0) status = plan_ahead(tune);
    for (tune->current = 0; tune->current < tune->count && !status; tune->current++)
        status = search_item(tune, &tune->items[tune->current]);
    if (!status && tune->refine) status = ranges_refine(tune);
    progress_end(tune->progress);
    ahead_destroy(tune->ahead);
    if (status >= 0) return status;
    *error = tune->error;
    return -1;
}

/* --- results --- */

static double gigabytes_per_second(const struct problem *problem, double us) {
    return problem_bytes(problem) / us / 1e3;
}

static struct tile_row make_row(const struct tune_item *item, int m_low) {
    const struct problem *p = &item->problem;
    const struct search_result *result = &item->result;
    const struct trial *best = &result->trials[result->best];
    struct tile_row row = {
        .k = p->k,
        .n = p->n,
        .group = p->group,
        .m_low = m_low,
        .m_high = p->m,
        .us = search_best_us(result),
        .gbs = gigabytes_per_second(p, search_best_us(result)),
        .tie = result->ties,
        .default_us = search_default_us(result),
    };
    snprintf(row.op, sizeof row.op, "%s", op_name(p->op));
    kernel_full_name(best->kernel, row.kernel);
    config_text(best->kernel, &best->config, row.configuration);
    return row;
}

static bool same_key(const struct tile_row *row, const struct problem *problem) {
    return !strcmp(row->op, op_name(problem->op)) && row->k == problem->k && row->n == problem->n &&
           row->group == problem->group;
}

/* Appends the row, or lengthens the last one where the winner is the same. */
static void add_row(struct tile_table *table, const struct tune_item *item, int m_low) {
    struct tile_row row = make_row(item, m_low);
    struct tile_row *last = table->count ? &table->rows[table->count - 1] : NULL;
    if (last && same_key(last, &item->problem) && last->m_high + 1 == m_low && !strcmp(last->kernel, row.kernel) &&
        !strcmp(last->configuration, row.configuration)) {
        row.m_low = last->m_low;
        *last = row;
    } else {
        table->rows[table->count++] = row;
    }
}

/* Where a patch may begin: behind the rows of `before` that end below m. */
static int lowest(const struct tile_table *before, const struct problem *problem) {
    long low = 1;
    for (size_t r = 0; r < before->count; r++)
        if (same_key(&before->rows[r], problem) && before->rows[r].m_high < problem->m)
            low = before->rows[r].m_high + 1;
    return (int)low;
}

/* What new rows leave of an old one; m_low > m_high if nothing is left. They begin where it does, or above it. */
static struct tile_row left_over(const struct tune *tune, const struct tile_row *old, const struct tile_row *rows,
                                 size_t count) {
    struct tile_row rest = *old;
    for (int i = 0; i < tune->count && !tune->patch; i++)
        if (same_key(old, &tune->items[i].problem)) rest.m_low = rest.m_high + 1;
    for (size_t r = 0; r < count; r++) {
        const struct tile_row *row = &rows[r];
        bool same = !strcmp(row->op, old->op) && row->k == old->k && row->n == old->n && row->group == old->group;
        if (same && row->m_low <= old->m_high && row->m_high >= rest.m_low) rest.m_low = row->m_high + 1;
    }
    return rest;
}

/* True if any was kept. */
static bool keep_others(const struct tune *tune, const struct tile_table *before, struct tile_table *table) {
    size_t count = table->count;
    for (size_t r = 0; r < before->count; r++) {
        struct tile_row rest = left_over(tune, &before->rows[r], table->rows, count);
        if (rest.m_low <= rest.m_high) table->rows[table->count++] = rest;
    }
    return table->count > count;
}

bool tune_throttled(const char *regime) {
    return strstr(regime, TUNE_THROTTLED);
}

bool tune_in_service(const char *regime) {
    return strstr(regime, TUNE_IN_SERVICE);
}

/* Without its marks, of which this is the order. */
static size_t regime_length(const char *regime) {
    const char *mark = strstr(regime, TUNE_IN_SERVICE);
    if (!mark) mark = strstr(regime, TUNE_THROTTLED);
    return mark ? (size_t)(mark - regime) : strlen(regime);
}

static bool same_regime(const char *a, const char *b) {
    return regime_length(a) == regime_length(b) && !strncmp(a, b, regime_length(a));
}

/* Either figure of a row. */
static bool row_impaired(const struct search_result *result) {
    return result->best >= 0 &&
           (nvml_impairment(result->trials[result->best].result.throttle) ||
            nvml_impairment(result->finals.run.throttle) ||
            (result->baseline >= 0 && nvml_impairment(result->trials[result->baseline].result.throttle)));
}

/* "cold, stream, cupti": the clock is known only after measuring. */
static void write_regime(const struct tune *tune, char *regime, size_t size) {
    const char *clock = NULL;
    for (int i = 0; i < tune->count; i++)
        for (int t = 0; t < tune->items[i].result.count; t++) {
            const struct trial_result *result = &tune->items[i].result.trials[t].result;
            if (result->status != TRIAL_OK) continue;
            clock = !clock || !strcmp(clock, result->clock) ? result->clock : "several clocks";
        }
    snprintf(regime, size, "%s, %s", tune->scope.regime, clock ? clock : "not measured");
}

int tune_table(const struct tune *tune, const struct tile_table *before, struct tile_table *table, int *missing,
               struct error *error) {
    const struct device *device = tune->device;
    *table = (struct tile_table){.multiprocessors = device->multiprocessors};
    *missing = 0;
    table->rows = calloc((size_t)tune->count + (before ? before->count : 0), sizeof *table->rows);
    if (!table->rows) return error_set(error, "out of memory");
    snprintf(table->device, sizeof table->device, "%s", device->name);
    snprintf(table->architecture, sizeof table->architecture, "%s", device->architecture);
    snprintf(table->software, sizeof table->software, "%s", device->software);
    snprintf(table->kernels, sizeof table->kernels, "%s", device->kernels);
    write_regime(tune, table->regime, sizeof table->regime);
    int m_low = 0;
    for (int i = 0; i < tune->count; i++) {
        const struct tune_item *item = &tune->items[i];
        if (item->m_low == 1) m_low = 1;
        *missing += item->result.best < 0;
        if (item->result.best < 0) continue;
        int least = tune->patch && before ? lowest(before, &item->problem) : 1;
        if (m_low < least) m_low = least;
        add_row(table, item, m_low);
        m_low = item->problem.m + 1;
    }
    bool kept = before && same_regime(before->regime, table->regime) && keep_others(tune, before, table);
    bool throttled = kept && tune_throttled(before->regime);
    bool in_service = kept && tune_in_service(before->regime);
    for (int i = 0; i < tune->count; i++) {
        throttled = throttled || row_impaired(&tune->items[i].result);
        in_service = in_service || tune->items[i].in_service;
    }
    if (in_service) strncat(table->regime, TUNE_IN_SERVICE, sizeof table->regime - strlen(table->regime) - 1);
    if (throttled) strncat(table->regime, TUNE_THROTTLED, sizeof table->regime - strlen(table->regime) - 1);
    return 0;
}

static void write_trial(FILE *stream, const struct problem *p, const struct trial *trial, int order) {
    char name[64], config[MAX_CONFIG_TEXT];
    const struct trial_result *r = &trial->result;
    fprintf(stream, "%s,%d,%d,%d,%d,%s,%s,%d,%.3f,%s,", op_name(p->op), p->k, p->n, p->group, p->m,
            kernel_full_name(trial->kernel, name), config_text(trial->kernel, &trial->config, config), order,
            trial->elapsed_s, trial_status_name(r->status));
    if (r->status == TRIAL_OK)
        fprintf(stream, "%.3f,%.3f,%.3f,%.2f,%.3f,", r->us, r->p20_us, r->p80_us, gigabytes_per_second(p, r->us),
                problem_flops(p) / r->us / 1e6);
    else
        fputs(",,,,,", stream);
    fprintf(stream, "%d\n", trial->is_default);
}

void tune_write_csv(const struct tune *tune, FILE *stream) {
    fputs("op,k,n,group,m,kernel,configuration,order,elapsed_s,status,us,p20_us,p80_us,gbs,tflops,is_default\n",
          stream);
    for (int i = 0; i < tune->count; i++)
        for (int t = 0; t < tune->items[i].result.count; t++)
            write_trial(stream, &tune->items[i].problem, &tune->items[i].result.trials[t], t + 1);
}

double tune_speedup(const struct tune *tune) {
    double sum = 0;
    int count = 0;
    for (int i = 0; i < tune->count; i++) {
        const struct search_result *r = &tune->items[i].result;
        if (r->best < 0 || !(search_default_us(r) > 0)) continue;
        sum += log(search_default_us(r) / search_best_us(r));
        count++;
    }
    return count ? exp(sum / count) : 1;
}

int tune_count(const struct tune *tune, enum trial_status status) {
    int count = 0;
    for (int i = 0; i < tune->count; i++)
        for (int t = 0; t < tune->items[i].result.count; t++)
            count += tune->items[i].result.trials[t].result.status == status;
    return count;
}
