#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plots/csv.h"
#include "plots/results.h"

int results_read_lines(const char *path, int (*read)(const json_t *object, void *context, struct error *error),
                       void *context, struct error *error) {
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t room = 0;
    int status = 0;
    if (!file) return error_set(error, "%s cannot be read", path);
    for (int number = 1; !status && getline(&line, &room, file) > 0; number++) {
        json_t *object = json_loads(line, 0, NULL);
        status = read(object, context, error);
        json_decref(object);
        if (status) error_prefix(error, "%s:%d", path, number);
    }
    free(line);
    fclose(file);
    return status;
}

void *results_grow(void *array, int count, size_t size) {
    if (count & (count - 1)) return array;
    void *grown = reallocarray(array, count ? 2 * (size_t)count : 1, size);
    if (!grown) abort();
    return grown;
}

/* --- sweep.json --- */

static const char *context_text(const json_t *context, const char *key) {
    const char *text = json_string_value(json_object_get(context, key));
    return text ? text : "";
}

static double context_number(const json_t *context, const char *key) {
    double value = strtod(context_text(context, key), NULL);
    return isfinite(value) && value > 0 ? value : 0;
}

static void read_context(const json_t *context, struct results_sweep *sweep) {
    const char *device = context_text(context, "device"), *architecture = context_text(context, "architecture");
    const char *cache = context_text(context, "cache"), *launch = context_text(context, "launch");
    snprintf(sweep->device, sizeof sweep->device, "%.100s%s%.40s%s", *device ? device : "unnamed device",
             *architecture ? " (" : "", architecture, *architecture ? ")" : "");
    snprintf(sweep->regime, sizeof sweep->regime, "%s%.60s%s%s%.60s", *cache ? "cache " : "", cache,
             *cache && *launch ? ", " : "", *launch ? "launch " : "", launch);
    sweep->read_gbs = context_number(context, "read_gbs");
    sweep->matrix_tflops = context_number(context, "matrix_tflops");
}

static int find_layer(struct results_sweep *sweep, const char *name, int k, int n) {
    for (int i = 0; i < sweep->layer_count; i++) {
        const struct results_layer *layer = &sweep->layers[i];
        if (layer->k == k && layer->n == n && !strcmp(layer->name, name)) return i;
    }
    sweep->layers = results_grow(sweep->layers, sweep->layer_count, sizeof *sweep->layers);
    struct results_layer *layer = &sweep->layers[sweep->layer_count];
    *layer = (struct results_layer){.k = k, .n = n};
    snprintf(layer->name, sizeof layer->name, "%s", name);
    return sweep->layer_count++;
}

static void add_point(struct results_sweep *sweep, struct results_point point) {
    for (int i = 0; i < sweep->count; i++) {
        struct results_point *other = &sweep->points[i];
        const struct problem *a = &point.problem, *b = &other->problem;
        if (other->layer != point.layer || a->m != b->m || a->group != b->group || a->zeros != b->zeros ||
            strcmp(other->kernel, point.kernel))
            continue;
        point.order = other->order;
        if (point.us < other->us) *other = point;
        return;
    }
    point.order = sweep->count;
    sweep->points = results_grow(sweep->points, sweep->count, sizeof point);
    sweep->points[sweep->count++] = point;
}

/* A layer's GEMMs are compared with each other, so all must do the same with their sums. */
static int check_epilogue(struct results_layer *layer, const struct problem *problem, struct error *error) {
    if (problem->op == OP_AWQ_DEQUANT) return 0;
    const struct problem others = {.epilogue = layer->epilogue, .norm = layer->norm};
    char text[FUSED_TEXT], others_text[FUSED_TEXT];
    if (layer->has_gemm && (others.epilogue != problem->epilogue || others.norm != problem->norm))
        return error_set(error, "epilogue %s, but others of %s have %s; plot them from two files",
                         problem_fused(problem, text), layer->name, problem_fused(&others, others_text));
    layer->has_gemm = true;
    layer->epilogue = problem->epilogue;
    layer->norm = problem->norm;
    return 0;
}

/* OP/KERNEL/LAYER/k:K/n:N/g:G/z:0|1/m:M[/e:EPILOGUE]/... */
static int read_name(const char *name, struct results_sweep *sweep, struct results_point *point, struct error *error) {
    char op[24], kernel[32], layer[40], fused[FUSED_TEXT];
    int zeros, used = 0;
    struct problem *p = &point->problem;
    if (sscanf(name, "%23[^/]/%31[^/]/%39[^/]/k:%d/n:%d/g:%d/z:%d/m:%d/%n", op, kernel, layer, &p->k, &p->n, &p->group,
               &zeros, &p->m, &used) != 8)
        return error_set(error, "the name is not OP/KERNEL/LAYER/k:K/n:N/g:G/z:Z/m:M[/e:EPILOGUE]/CONFIGURATION");
    p->zeros = zeros != 0;
    if (sscanf(name + used, "e:%23[^/]/", fused) == 1 && problem_fuse(p, fused, error)) return -1;
    if (op_parse(op, &p->op, error) || problem_check(p, error)) return -1;
    snprintf(point->kernel, sizeof point->kernel, "%s/%s", op, kernel);
    point->layer = find_layer(sweep, layer, p->k, p->n);
    return check_epilogue(&sweep->layers[point->layer], p, error);
}

static double quantile(const json_t *benchmark, const char *field, double median) {
    double us = json_number_value(json_object_get(benchmark, field));
    return us > 0 && isfinite(us) ? us : median;
}

static int read_benchmark(const json_t *benchmark, struct results_sweep *sweep, struct error *error) {
    const char *name = json_string_value(json_object_get(benchmark, "name"));
    const char *type = json_string_value(json_object_get(benchmark, "run_type"));
    struct results_point point = {.us = json_number_value(json_object_get(benchmark, "us"))};
    if (!name) return error_set(error, "a benchmark has no name");
    if (json_is_true(json_object_get(benchmark, "error_occurred")) || (type && strcmp(type, "iteration"))) return 0;
    if (read_name(name, sweep, &point, error)) return error_prefix(error, "%.200s", name);
    if (!(point.us > 0 && isfinite(point.us)))
        return error_set(error, "%.200s: the field us is missing or not a positive number", name);
    const char *end = strstr(name, "/iterations:");
    snprintf(point.name, sizeof point.name, "%.*s", end ? (int)(end - name) : (int)strlen(name), name);
    point.p20_us = quantile(benchmark, "p20_us", point.us);
    point.p80_us = quantile(benchmark, "p80_us", point.us);
    add_point(sweep, point);
    return 0;
}

static int by_m(const void *a, const void *b) {
    const struct results_point *p = a, *q = b;
    return p->problem.m != q->problem.m ? p->problem.m - q->problem.m : p->order - q->order;
}

int results_read_sweep(const char *path, struct results_sweep *sweep, struct error *error) {
    *sweep = (struct results_sweep){.count = 0};
    json_error_t where;
    json_t *root = json_load_file(path, 0, &where), *benchmark;
    if (!root) return error_set(error, "%s:%d: not the JSON of a sweep: %s", path, where.line, where.text);
    const json_t *benchmarks = json_object_get(root, "benchmarks");
    int status = 0;
    size_t i;
    if (!json_is_array(benchmarks)) status = error_set(error, "there is no array 'benchmarks'");
    read_context(json_object_get(root, "context"), sweep);
    json_array_foreach(benchmarks, i, benchmark) {
        if (!status) status = read_benchmark(benchmark, sweep, error);
    }
    json_decref(root);
    if (status) {
        results_free_sweep(sweep);
        return error_prefix(error, "%s", path);
    }
    if (sweep->count) qsort(sweep->points, (size_t)sweep->count, sizeof *sweep->points, by_m);
    return 0;
}

void results_free_sweep(struct results_sweep *sweep) {
    free(sweep->layers);
    free(sweep->points);
    *sweep = (struct results_sweep){.count = 0};
}

/* --- trials.csv --- */

enum column { OP, K, N, GROUP, M, KERNEL, CONFIGURATION, ORDER, STATUS, US, COLUMNS };
static const char *const column_names[COLUMNS] = {"op",    "k",      "n", "group", "m", "kernel", "configuration",
                                                  "order", "status", "us"};

static int read_trial(void *data, char *const fields[], struct error *error) {
    struct results_trials *trials = data;
    struct results_trial trial = {.us = 0};
    const struct {
        enum column column;
        int *value;
    } numbers[] = {{K, &trial.k}, {N, &trial.n}, {GROUP, &trial.group}, {M, &trial.m}, {ORDER, &trial.order}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (csv_whole(fields[numbers[i].column], column_names[numbers[i].column], numbers[i].value, error)) return -1;
    if (csv_text(fields[OP], "op", trial.op, sizeof trial.op, error) ||
        csv_text(fields[KERNEL], "kernel", trial.kernel, sizeof trial.kernel, error) ||
        csv_text(fields[CONFIGURATION], "configuration", trial.configuration, sizeof trial.configuration, error))
        return -1;
    if (!strcmp(fields[STATUS], "ok") && csv_positive(fields[US], "us", false, &trial.us, error)) return -1;
    trials->list = results_grow(trials->list, trials->count, sizeof trial);
    trials->list[trials->count++] = trial;
    return 0;
}

static int compare_problems(const struct results_trial *p, const struct results_trial *q) {
    int op = strcmp(p->op, q->op);
    if (op) return op;
    if (p->k != q->k) return p->k < q->k ? -1 : 1;
    if (p->n != q->n) return p->n < q->n ? -1 : 1;
    if (p->group != q->group) return p->group < q->group ? -1 : 1;
    return (p->m > q->m) - (p->m < q->m);
}

static int by_problem(const void *a, const void *b) {
    const struct results_trial *p = a, *q = b;
    int problem = compare_problems(p, q);
    return problem ? problem : (p->order > q->order) - (p->order < q->order);
}

bool results_same_problem(const struct results_trial *a, const struct results_trial *b) {
    return !compare_problems(a, b);
}

int results_read_trials(const char *path, struct results_trials *trials, struct error *error) {
    *trials = (struct results_trials){.count = 0};
    if (csv_read(path, column_names, COLUMNS, read_trial, trials, error)) {
        results_free_trials(trials);
        return -1;
    }
    if (trials->count) qsort(trials->list, (size_t)trials->count, sizeof *trials->list, by_problem);
    return 0;
}

void results_free_trials(struct results_trials *trials) {
    free(trials->list);
    *trials = (struct results_trials){.count = 0};
}
