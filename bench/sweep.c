#include "bench/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/cbench.h"
#include "bench/markdown.h"
#include "bench/rows.h"
#include "bench/samples.h"
#include "bench/states.h"
#include "kernels/ahead.h"

/* --- choosing kernels --- */

/* The next of the words that commas separate; false at the end. */
static bool next_word(const char **cursor, char *word, size_t size) {
    if (!**cursor) return false;
    size_t length = strcspn(*cursor, ",");
    snprintf(word, size, "%.*s", (int)length, *cursor);
    *cursor += length;
    if (**cursor) ++*cursor;
    return true;
}

static bool listed(const char *list, const char *name) {
    char word[64];
    while (next_word(&list, word, sizeof word))
        if (!strcmp(word, name)) return true;
    return false;
}

bool sweep_selects(const struct sweep *sweep, const struct kernel *kernel) {
    const struct sweep_options *options = &sweep->options;
    char name[64];
    if (kernel->backend != sweep->device->backend) return false;
    if (strcmp(options->ops, "all") && !listed(options->ops, op_name(kernel->op))) return false;
    if (options->norm && !kernel->norms) return false;
    return !options->kernels || listed(options->kernels, kernel_full_name(kernel, name));
}

static int check_names(const struct sweep *sweep, struct error *error) {
    const char *cursor = sweep->options.ops;
    char word[64];
    enum op op;
    while (strcmp(sweep->options.ops, "all") && next_word(&cursor, word, sizeof word))
        if (op_parse(word, &op, error)) return error_prefix(error, "--op");
    cursor = sweep->options.kernels ? sweep->options.kernels : "";
    while (next_word(&cursor, word, sizeof word)) {
        const struct kernel *kernel = kernel_find(word);
        if (!kernel) return error_set(error, "--kernel: unknown kernel '%s'; `tilebook kernels` lists them", word);
        if (kernel->backend != sweep->device->backend)
            return error_set(error, "--kernel: %s does not run on %s; `tilebook kernels` says what does", word,
                             sweep->device->id);
    }
    return 0;
}

/* --- enumerating points --- */

static void name_point(struct sweep_point *point) {
    const struct problem *p = &point->problem;
    char kernel[64], config[MAX_CONFIG_TEXT], text[FUSED_TEXT], fused[FUSED_TEXT + 4] = "";
    config_text(point->kernel, &point->config, config);
    if (p->epilogue || p->norm) snprintf(fused, sizeof fused, "e:%s/", problem_fused(p, text));
    for (char *c = config; *c; c++)
        if (*c == ' ') *c = ',';
    snprintf(point->name, sizeof point->name, "%s/%s/k:%d/n:%d/g:%d/z:%d/m:%d/%s%s%s",
             kernel_full_name(point->kernel, kernel), point->layer, p->k, p->n, p->group, p->zeros, p->m, fused,
             p->bf16 ? "t:bf16/" : "", config);
}

static int add_point(struct sweep *sweep, const struct kernel *kernel, const char *layer, const struct problem *problem,
                     const struct config *config, struct error *error) {
    if (sweep->count == sweep->room) {
        int room = sweep->room ? sweep->room * 2 : 64;
        struct sweep_point *points = realloc(sweep->points, (size_t)room * sizeof *points);
        if (!points) return error_set(error, "out of memory");
        sweep->points = points;
        sweep->room = room;
    }
    struct sweep_point *point = &sweep->points[sweep->count++];
    *point = (struct sweep_point){.sweep = sweep, .kernel = kernel, .problem = *problem, .config = *config};
    snprintf(point->layer, sizeof point->layer, "%s", layer);
    name_point(point);
    return 0;
}

static int add_all_legal(struct sweep *sweep, const struct kernel *kernel, const char *layer,
                         const struct problem *problem, struct error *error) {
    for (long i = 0; i < config_space(kernel); i++) {
        struct config config = config_at(kernel, i);
        if (config_legal(sweep->device, kernel, problem, &config, NULL)) continue;
        if (add_point(sweep, kernel, layer, problem, &config, error)) return -1;
    }
    return 0;
}

/* The table's row for this problem, if it names this kernel. */
static const struct tile_row *find_row(const struct sweep *sweep, const struct kernel *kernel,
                                       const struct problem *p) {
    char name[64];
    const struct tile_row *row =
        sweep->table ? tiles_find(sweep->table, op_name(p->op), p->k, p->n, p->group, p->m) : NULL;
    return row && !strcmp(row->kernel, kernel_full_name(kernel, name)) ? row : NULL;
}

/* As the row has it; nothing without one. */
static int add_row(struct sweep *sweep, const struct kernel *kernel, const char *layer, const struct problem *problem,
                   const struct tile_row *row, struct error *error) {
    struct config config;
    if (!row) return 0;
    if (config_parse(kernel, row->configuration, &config, error) ||
        config_legal(sweep->device, kernel, problem, &config, error))
        return error_prefix(error, "table: %s", row->configuration);
    return add_point(sweep, kernel, layer, problem, &config, error);
}

static int add_default(struct sweep *sweep, const struct kernel *kernel, const char *layer,
                       const struct problem *problem, struct error *error) {
    struct config config;
    if (config_default(sweep->device, kernel, problem, &config, error)) return -1;
    return add_point(sweep, kernel, layer, problem, &config, error);
}

static int add_named(struct sweep *sweep, const struct kernel *kernel, const char *layer, const struct problem *problem,
                     const char *text, struct error *error) {
    struct config config;
    char name[64], problem_name[128];
    if (config_parse(kernel, text, &config, error)) return error_prefix(error, "--config");
    if (config_legal(sweep->device, kernel, problem, &config, error))
        return error_prefix(error, "--config %s is not legal for %s, %s", text, kernel_full_name(kernel, name),
                            problem_text(problem, problem_name));
    return add_point(sweep, kernel, layer, problem, &config, error);
}

static int add_kernel(struct sweep *sweep, const struct kernel *kernel, const char *layer,
                      const struct problem *problem, struct error *error) {
    const struct sweep_options *options = &sweep->options;
    const struct tile_row *row = find_row(sweep, kernel, problem);
    if (!options->config_count)
        return row ? add_row(sweep, kernel, layer, problem, row, error)
                   : add_default(sweep, kernel, layer, problem, error);
    for (int i = 0; i < options->config_count; i++) {
        const char *text = options->configs[i];
        if (!strcmp(text, "all")       ? add_all_legal(sweep, kernel, layer, problem, error)
            : !strcmp(text, "default") ? add_default(sweep, kernel, layer, problem, error)
            : !strcmp(text, "table")   ? add_row(sweep, kernel, layer, problem, row, error)
                                       : add_named(sweep, kernel, layer, problem, text, error))
            return -1;
    }
    return 0;
}

/* A peer says what it takes, and the sweep goes on without the rest. */
static bool leaves_out(struct sweep *sweep, const struct kernel *kernel, const struct problem *problem) {
    struct error why;
    char text[128];
    if (!kernel->accepts || !kernel->accepts(kernel, sweep->device, problem, &why)) return false;
    if (!sweep->left_out++)
        error_set(&sweep->left_why, "%s does not take %s: %s", kernel->name, problem_text(problem, text), why.text);
    return true;
}

/* All kernels of one problem, next to each other: they share its data. */
static int add_problem(struct sweep *sweep, const char *layer, const struct problem *problem, struct error *error) {
    struct choice choice;
    bool any = false;
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++) {
        if ((*kernel)->op != problem->op || !sweep_selects(sweep, *kernel)) continue;
        if (problem_check(problem, error))
            return error_prefix(error, "shape %s (choose the ops that can take it with --op)", layer);
        any = true;
        if (leaves_out(sweep, *kernel, problem)) continue;
        if (add_kernel(sweep, *kernel, layer, problem, error)) return -1;
    }
    if (!any || !sweep->table || !sweep->options.misses) return 0;
    choice_look_up(sweep->device, kernel_list(), sweep->table, problem, &choice);
    return misses_note(sweep->options.misses, problem, choice.how, error);
}

/* Dequantising is the same for every M. */
static bool has_dequant(const struct sweep *sweep, const struct shape *shape) {
    for (int i = 0; i < sweep->count; i++) {
        const struct sweep_point *point = &sweep->points[i];
        if (point->problem.op == OP_AWQ_DEQUANT && point->problem.k == shape->k && point->problem.n == shape->n &&
            !strcmp(point->layer, shape->layer))
            return true;
    }
    return false;
}

static int add_shape(struct sweep *sweep, const struct shape *shape, int group, const int *m, int m_count,
                     struct error *error) {
    const struct sweep_options *options = &sweep->options;
    enum epilogue epilogue = options->model_epilogues ? shape->epilogue : options->epilogue;
    for (enum op op = 0; op < OP_COUNT; op++) {
        if (op != OP_FP16_GEMM && !shape->quantized) continue;
        if (op == OP_AWQ_DEQUANT && shape->m && has_dequant(sweep, shape)) continue;
        for (int i = 0; i < (op == OP_AWQ_DEQUANT || shape->m ? 1 : m_count); i++) {
            struct problem problem =
                shape_problem(shape, op, shape->m ? shape->m : m[i], group, options->zeros, epilogue);
            problem.norm = options->norm && op != OP_AWQ_DEQUANT;
            problem.bf16 = options->bf16 && op != OP_AWQ_DEQUANT;
            if (add_problem(sweep, shape->layer, &problem, error)) return -1;
        }
    }
    return 0;
}

static int add_points(struct sweep *sweep, struct error *error) {
    struct shapes shapes = {.count = 0};
    int *m = NULL, m_count, result;
    if (check_names(sweep, error)) return -1;
    result = shapes_parse(sweep->options.shapes, &shapes, error) || m_list_parse(sweep->options.m, &m, &m_count, error);
    int group = sweep->options.group >= 0 ? sweep->options.group : shapes.group;
    if (!result && sweep->options.chain) result = sweep_add_chains(sweep, &shapes, m, m_count, error);
    for (int i = 0; !result && !sweep->options.chain && i < shapes.count; i++)
        result = add_shape(sweep, &shapes.list[i], group, m, m_count, error);
    if (!result && !sweep->count && sweep->left_out) result = error_set(error, "%s", sweep->left_why.text);
    if (!result && !sweep->count)
        result = error_set(error, "no kernel of %s on %s takes these shapes%s; `tilebook kernels` lists what there is",
                           sweep->options.ops, sweep->device->id, sweep->options.norm ? " with a norm of x" : "");
    shapes_free(&shapes);
    free(m);
    return result ? -1 : 0;
}

int sweep_create(struct device *device, const struct sweep_options *options, const struct tile_table *table,
                 struct sweep **result, struct error *error) {
    struct sweep *sweep = calloc(1, sizeof *sweep);
    *result = NULL;
    if (!sweep) return error_set(error, "out of memory");
    *sweep = (struct sweep){.device = device, .options = *options, .table = table};
    if (add_points(sweep, error)) {
        sweep_destroy(sweep);
        return -1;
    }
    *result = sweep;
    return 0;
}

void sweep_destroy(struct sweep *sweep) {
    if (!sweep) return;
    ahead_destroy(sweep->ahead);
    instance_destroy(sweep->instance);
    sweep_free_chains(sweep);
    yardsticks_free(&sweep->yardsticks);
    free(sweep->points);
    free(sweep);
}

/* --- running a point --- */

static int use_problem(struct sweep *sweep, const struct problem *problem, struct error *error) {
    if (sweep->instance && problem_equal(&sweep->instance->problem, problem)) return 0;
    instance_destroy(sweep->instance);
    sweep->instance = NULL;
    return instance_create(sweep->device, problem, sweep->options.seed, sweep->options.cold, &sweep->instance, error);
}

struct measure_options sweep_measuring(struct sweep *sweep) {
    struct measure_options options = sweep->measuring;
    if (!(sweep->deadline > 0)) return options;
    double left = (sweep->deadline - progress_now()) / (sweep->shares > 1 ? sweep->shares : 1);
    sweep->shares--;
    options.max_seconds = fmax(0, fmin(options.max_seconds, left));
    options.min_seconds = fmin(options.min_seconds, options.max_seconds / 2);
    options.warmup_seconds = fmin(options.warmup_seconds, options.max_seconds / 10);
    return options;
}

/* Correct first: a configuration that gives wrong results gets no time. */
int sweep_make(struct sweep_point *point, struct plan **plan, double *relative_error, struct error *error) {
    struct sweep *sweep = point->sweep;
    *plan = NULL;
    if (use_problem(sweep, &point->problem, error)) return -1;
    if (plan_create(sweep->device, point->kernel, &point->problem, &point->config, plan, error)) return -1;
    if (!instance_fit(sweep->instance, *plan, error) && !instance_verify(sweep->instance, *plan, relative_error, error))
        return 0;
    plan_destroy(*plan);
    *plan = NULL;
    return -1;
}

static int run_plan(struct sweep_point *point, struct measurement *m, double *relative_error, struct error *error) {
    struct sweep *sweep = point->sweep;
    struct plan *plan;
    struct measure_options measuring = sweep_measuring(sweep);
    if (point->refused) return error_set(error, "%s", point->refused);
    if (sweep_make(point, &plan, relative_error, error)) return -1;
    int result = measure(sweep->instance, plan, &measuring, m, error);
    plan_destroy(plan);
    return result;
}

/* --- what a row is compared with --- */

struct beside {
    double floor_us, cublas_us; /* 0: not measured */
};

static void warn_of_column(const struct sweep *sweep, const char *column, const struct error *error) {
    fprintf(sweep->words, "warning: %s stays empty: %s\n", column, error->text);
}

/* Asked for with a report; its instance is still the point's. */
static struct beside measure_beside(const struct sweep_point *point) {
    struct sweep *sweep = point->sweep;
    struct beside beside = {0};
    struct error error;
    if (!sweep->report) return beside;
    struct measure_options measuring = sweep_measuring(sweep);
    if (sweep->device->backend != BACKEND_CUDA) return beside;
    if (yardstick_floor(&sweep->yardsticks, sweep->instance, measuring.regime, measuring.pace, &beside.floor_us,
                        &error))
        warn_of_column(sweep, "floor_us", &error);
    if (point->problem.op != OP_AWQ_DEQUANT &&
        yardstick_cublas(&sweep->yardsticks, sweep->instance, &measuring, &beside.cublas_us, &error))
        warn_of_column(sweep, "cublas_us", &error);
    return beside;
}

static void write_report(const struct sweep_point *point, const struct measurement *m, struct row row) {
    struct sweep *sweep = point->sweep;
    char regime[64], pace[32] = "";
    struct error error;
    if (!sweep->report || sweep->report_failed) return;
    if (m->pace > 0) snprintf(pace, sizeof pace, " pace=%g", m->pace);
    snprintf(regime, sizeof regime, "%s %s %s%s", sweep->options.cold ? "cold" : "warm",
             sweep->device->backend == BACKEND_CUDA ? regime_name(m->regime) : "call", m->clock, pace);
    row.regime = regime;
    sweep->report_failed = rows_put(sweep->report, &row, &error);
    if (sweep->report_failed) fprintf(sweep->words, "warning: %s\n", error.text);
}

/* The texts of a row. */
struct row_text {
    char kernel[64], config[MAX_CONFIG_TEXT];
};

static void name_row(const struct sweep_point *point, struct row *row, struct row_text *text) {
    row->layer = point->layer;
    row->problem = &point->problem;
    row->kernel = kernel_full_name(point->kernel, text->kernel);
    row->config = config_text(point->kernel, &point->config, text->config);
}

bool sweep_has_beside(const struct sweep *sweep) {
    return sweep->report && sweep->device->backend == BACKEND_CUDA;
}

void sweep_tabulate(const struct sweep_point *point, const struct row *figures) {
    const struct sweep *sweep = point->sweep;
    struct row row = *figures;
    struct row_text text;
    if (!sweep->markdown) return;
    name_row(point, &row, &text);
    markdown_put(sweep->markdown, &row, &sweep->ceilings, sweep_has_beside(sweep));
}

static void write_rows(const struct sweep_point *point, const struct measurement *m, const struct beside *beside) {
    struct row_text text;
    struct row row = {.us = m->median_us,
                      .p20_us = m->p20_us,
                      .p80_us = m->p80_us,
                      .floor_us = beside->floor_us,
                      .cublas_us = beside->cublas_us,
                      .throttled = nvml_impairment(m->throttle) != 0};
    name_row(point, &row, &text);
    write_report(point, m, row);
    sweep_tabulate(point, &row);
}

void sweep_label(struct cbench_state *state, const struct measurement *m, const char *more) {
    char label[2048], reasons[NVML_REASONS];
    int used = snprintf(label, sizeof label, "stop=%s clock=%s regime=%s", m->stop, m->clock, regime_name(m->regime));
    if (m->pace > 0) used += snprintf(label + used, sizeof label - (size_t)used, " pace=%g", m->pace);
    if (m->sm_mhz)
        used +=
            snprintf(label + used, sizeof label - (size_t)used, " sm=%dMHz memory=%dMHz power=%.0fW %dC throttle=%s",
                     m->sm_mhz, m->memory_mhz, m->watts, m->celsius, nvml_reasons(m->throttle, reasons));
    snprintf(label + used, sizeof label - (size_t)used, "%s", more);
    cbench_set_label(state, label);
}

static void set_counters(struct cbench_state *state, const struct sweep_point *point, const struct measurement *m,
                         const struct beside *beside, double relative_error) {
    const struct problem *p = &point->problem;
    const struct ceilings *ceilings = &point->sweep->ceilings;
    double gbs = problem_bytes(p) / m->median_us / 1e3, tflops = problem_flops(p) / m->median_us / 1e6;
    const struct {
        const char *name;
        double value;
    } counters[] = {
        {"k", p->k},
        {"n", p->n},
        {"g", p->group},
        {"z", p->zeros},
        {"m", p->m},
        {"e", p->epilogue},
        {"us", m->median_us},
        {"p20_us", m->p20_us},
        {"p80_us", m->p80_us},
        {"min_us", m->min_us},
        {"low_us", m->low_us},
        {"high_us", m->high_us},
        {"span_us", m->span_us},
        {"batch_us", m->batch_us},
        {"event_us", m->event_us},
        {"samples", m->samples},
        {"GB/s", gbs},
        {"TFLOP/s", tflops},
        {"%bandwidth", 100 * gbs / ceilings->read_gbs},
        {"%matrix", 100 * tflops / ceilings->matrix_tflops},
        {"error", relative_error},
    };
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        /* Google Benchmark's relative spread of zeros is NaN, which no JSON reader but Python's takes. */
        if (counters[i].value != 0 || !point->sweep->repeated)
            cbench_set_counter(state, counters[i].name, counters[i].value);
    if (p->norm) cbench_set_counter(state, "norm", 1);
    if (beside->floor_us > 0) cbench_set_counter(state, "floor_us", beside->floor_us);
    if (beside->cublas_us > 0) cbench_set_counter(state, "cublas_us", beside->cublas_us);
    if (p->bf16) cbench_set_counter(state, "bf16", 1);
    if (nvml_impairment(m->throttle)) cbench_set_counter(state, "throttled", 1);
}

/* A failed point has a measurement of zeros. */
static void write_csv(FILE *csv, const struct sweep_point *point, const struct measurement *m, double relative_error) {
    const struct problem *p = &point->problem;
    char kernel[64], config[MAX_CONFIG_TEXT], fused[FUSED_TEXT];
    double seconds = m->median_us / 1e6;
    if (!csv) return;
    fprintf(csv, "%s,%s,%s,%d,%d,%d,%d,%d,%s,%s,%s,", op_name(p->op), kernel_full_name(point->kernel, kernel),
            point->layer, p->k, p->n, p->group, p->zeros, p->m, problem_fused(p, fused),
            config_text(point->kernel, &point->config, config), m->samples ? "ok" : "failed");
    fprintf(csv, "%.4f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f,%d,%.2f,%.4f,%.3g,%s,%s\n", m->median_us, m->p20_us, m->p80_us,
            m->min_us, m->span_us, m->batch_us, m->event_us, m->samples,
            seconds > 0 ? problem_bytes(p) / seconds / 1e9 : 0, seconds > 0 ? problem_flops(p) / seconds / 1e12 : 0,
            relative_error, m->stop, m->clock);
}

void sweep_warn(const struct sweep *sweep, unsigned long long reasons) {
    char text[NVML_REASONS];
    fprintf(sweep->words, "warning: %s is throttled (%s): its figures are not those of a healthy card\n",
            sweep->device->id, nvml_reasons(nvml_impairment(reasons), text));
}

/* --- of the whole sweep --- */

static const double clocks_from_us = 20;  /* what lies between an event and a kernel counts more, below */
static const double clocks_differ = 0.02; /* more than that is worth a look */

/* Events see the time from call to call, so that CUPTI's time of the same is what they are compared with. */
static void compare_clocks(struct sweep_clocks *clocks, const struct sweep_point *point, const struct measurement *m) {
    if (strcmp(m->clock, "cupti") || m->span_us < clocks_from_us) return;
    double apart = fabs(m->event_us / m->batch_us - 1);
    clocks->rows++;
    clocks->near += apart <= clocks_differ;
    if (apart <= clocks->worst) return;
    clocks->worst = apart;
    clocks->name = point->name;
}

void sweep_summarize(const struct sweep *sweep) {
    const struct nvml_watch *watch = &sweep->watch;
    const struct sweep_clocks *clocks = &sweep->clocks;
    char reasons[NVML_REASONS];
    if (clocks->rows)
        fprintf(sweep->words, "tilebook sweep: CUPTI and events: within %.0f %% in %d of %d runs over %.0f us%s",
                100 * clocks_differ, clocks->near, clocks->rows, clocks_from_us,
                clocks->near == clocks->rows ? "\n" : "");
    if (clocks->near < clocks->rows)
        fprintf(sweep->words, "; %.1f %% apart at most, in %s\n", 100 * clocks->worst, clocks->name);
    if (watch->impaired)
        fprintf(sweep->words,
                "tilebook sweep: %d of %d runs were measured while the card was throttled (%s): these are not the "
                "figures of a healthy "
                "card\n",
                watch->impaired, watch->measured, nvml_reasons(watch->reasons, reasons));
    if (sweep->left_out)
        fprintf(sweep->words, "tilebook sweep: points of peers left out: %d; the first: %s\n", sweep->left_out,
                sweep->left_why.text);
    if (sweep->failures) fprintf(sweep->words, "tilebook sweep: %d runs failed; their rows say why\n", sweep->failures);
}

void sweep_report(struct cbench_state *state, struct sweep_point *point, const struct measurement *m,
                  double relative_error) {
    progress_end(&point->sweep->progress);
    if (nvml_watch(&point->sweep->watch, m->throttle)) sweep_warn(point->sweep, m->throttle);
    compare_clocks(&point->sweep->clocks, point, m);
    struct beside beside = measure_beside(point);
    set_counters(state, point, m, &beside, relative_error);
    sweep_label(state, m, "");
    cbench_set_iteration_time(state, m->median_us / 1e6);
    write_csv(point->sweep->csv, point, m, relative_error);
    write_rows(point, m, &beside);
    if (point->sweep->samples) samples_put(point->sweep->samples, point->name, m);
    if (point->sweep->states) states_put(point->sweep->states, point->name, m);
}

/* --- progress --- */

static const double log_every = 30; /* seconds between two lines in a log */

/* By what the runs took so far; -1 before the first has ended. */
static double time_left(const struct sweep *sweep, double now) {
    return sweep->ran ? (now - sweep->began_s) / sweep->ran * (sweep->runs - sweep->ran) : -1;
}

void sweep_show(struct sweep *sweep, const char *name) {
    double now = progress_now();
    char text[SWEEP_NAME + 32];
    if (!sweep->runs) return;
    if (!sweep->began_s) sweep->began_s = sweep->said_s = now;
    snprintf(text, sizeof text, "%d/%d %s", sweep->ran + 1, sweep->runs, name);
    progress_show(&sweep->progress, (double)sweep->ran / sweep->runs, time_left(sweep, now), text);
}

void sweep_ran(struct sweep *sweep) {
    double now = progress_now();
    char left[32];
    if (!sweep->runs) return;
    sweep->ran++;
    progress_end(&sweep->progress);
    if (sweep->progress.terminal || now - sweep->said_s < log_every) return;
    progress_line(&sweep->progress, "[%d/%d] %s left", sweep->ran, sweep->runs,
                  progress_time(time_left(sweep, now), left));
    sweep->said_s = now;
}

/* What the points to come need is compiled on all cores but one, what this one needs first. */
static void compile_ahead(struct sweep_point *point) {
    enum { AHEAD = 256 };
    struct sweep *sweep = point->sweep;
    int now = (int)(point - sweep->points);
    if (!sweep->ahead) return;
    ahead_turn(sweep->ahead, now);
    for (; sweep->planned < sweep->count && sweep->planned < now + AHEAD; sweep->planned++) {
        const struct sweep_point *next = &sweep->points[sweep->planned];
        if (!next->measured && !next->refused && cbench_selects(next->name))
            ahead_plan(sweep->ahead, sweep->planned, next->kernel, &next->problem, &next->config);
    }
    ahead_take(sweep->ahead, point->kernel, &point->problem, &point->config);
}

static void run_point(struct cbench_state *state, void *data) {
    struct sweep_point *point = data;
    compile_ahead(point);
    while (cbench_keep_running(state)) {
        struct measurement m;
        struct error error;
        double relative_error = 0;
        sweep_show(point->sweep, point->name);
        if (run_plan(point, &m, &relative_error, &error)) {
            point->sweep->failures++;
            write_csv(point->sweep->csv, point, &(struct measurement){.stop = "", .clock = ""}, relative_error);
            sweep_tabulate(point, &(struct row){.us = 0});
            cbench_skip_with_error(state, error.text);
            break;
        }
        sweep_report(state, point, &m, relative_error);
        measurement_free(&m);
    }
    sweep_ran(point->sweep);
}

void sweep_register(struct sweep *sweep) {
    if (sweep->chains) {
        sweep_register_chains(sweep);
        return;
    }
    if (sweep->csv)
        fprintf(sweep->csv,
                "op,kernel,layer,k,n,group,zeros,m,epilogue,configuration,status,us,p20_us,p80_us,min_us,span_us,"
                "batch_us,event_us,samples,gbs,tflops,error,stop,clock\n");
    if (sweep->device->backend == BACKEND_CUDA)
        sweep->ahead = ahead_create(sweep->device, plan_compile, (int)sysconf(_SC_NPROCESSORS_ONLN) - 1);
    for (int i = 0; i < sweep->count; i++)
        if (!sweep->points[i].measured) cbench_register(sweep->points[i].name, run_point, &sweep->points[i]);
}
