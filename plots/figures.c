#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plots/figures.h"

/* What the figure shows was not measured: no failure, but nothing to draw. */
static int missing(struct error *error, const char *what) {
    error_set(error, "%s", what);
    return 1;
}

/* --- data files: blocks of rows, two blank lines apart; a block's first row holds quoted titles --- */

static FILE *open_data(const char *directory, const char *name, int number, struct error *error) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s-%d.dat", directory, name, number);
    FILE *file = fopen(path, "w");
    if (!file) error_set(error, "%s: %s", path, strerror(errno));
    return file;
}

static int close_data(FILE *file, const char *name, struct error *error) {
    bool bad = ferror(file);
    bad |= fclose(file) != 0;
    if (bad) return error_set(error, "writing the data of %s: %s", name, strerror(errno));
    return 0;
}

/* Names come from result files: quotes and control characters must not end the string. */
static void put_text(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text; text++) fputc(*text == '"' || *text == '\\' || (unsigned char)*text < ' ' ? '\'' : *text, file);
    fputs("\" ", file);
}

static void put_header(FILE *file, const char *first, const char *second) {
    put_text(file, first);
    put_text(file, second);
    fputc('\n', file);
}

/* --- series: what gets one colour and one line of the legend --- */

enum { MAX_SERIES = 16, SERIES_TEXT = 120 };

struct series {
    char label[MAX_SERIES][SERIES_TEXT];
    int count;
};

static int add_series(struct series *series, const char *label, struct error *error) {
    for (int i = 0; i < series->count; i++)
        if (!strcmp(series->label[i], label)) return 0;
    if (series->count == MAX_SERIES)
        return error_set(error, "more than %d kernels and weight formats in one figure; sweep fewer", MAX_SERIES);
    snprintf(series->label[series->count++], SERIES_TEXT, "%s", label);
    return 0;
}

static const char *point_label(const struct results_point *point, char text[SERIES_TEXT]) {
    const struct problem *p = &point->problem;
    char group[32] = "";
    if (p->group) snprintf(group, sizeof group, p->group == p->k ? ", one group" : ", group %d", p->group);
    snprintf(text, SERIES_TEXT, "%s%s%s%s", point->kernel, p->op == OP_AWQ_DEQUANT ? " + fp16_gemm" : "", group,
             p->zeros ? ", zeros" : "");
    return text;
}

typedef bool point_filter(const struct results_point *point);

static bool is_gemm(const struct results_point *point) {
    return point->problem.op != OP_AWQ_DEQUANT;
}

static bool is_int4(const struct results_point *point) {
    return point->problem.op != OP_FP16_GEMM;
}

static int gather_series(const struct results_sweep *sweep, point_filter *wanted, struct series *series,
                         struct error *error) {
    char label[SERIES_TEXT];
    for (int i = 0; i < sweep->count; i++)
        if (wanted(&sweep->points[i]) && add_series(series, point_label(&sweep->points[i], label), error)) return -1;
    return 0;
}

static void layer_title(const struct results_layer *layer, char text[96]) {
    char plain[40];
    snprintf(plain, sizeof plain, "%dx%d", layer->k, layer->n);
    if (!strcmp(plain, layer->name))
        snprintf(text, 96, "K = %d, N = %d", layer->k, layer->n);
    else
        snprintf(text, 96, "%s: K = %d, N = %d", layer->name, layer->k, layer->n);
}

static void sweep_text(const struct figure_input *input, const char *title, struct figure_text *text) {
    snprintf(text->title, sizeof text->title, "%s", title);
    snprintf(text->subtitle, sizeof text->subtitle, "%s%s%s", input->device, *input->sweep->regime ? ", " : "",
             input->sweep->regime);
}

/* --- speed-up over fp16 --- */

/* The fastest fp16 kernel on this layer for m; 0 if none was measured. */
static double fp16_us(const struct results_sweep *sweep, int layer, int m) {
    double best = 0;
    for (int i = 0; i < sweep->count; i++) {
        const struct results_point *p = &sweep->points[i];
        if (p->layer == layer && p->problem.op == OP_FP16_GEMM && p->problem.m == m && (!best || p->us < best))
            best = p->us;
    }
    return best;
}

/* Least microseconds by the measured ceilings; without them bytes alone decide, in any unit. */
static double least_us(const struct results_sweep *sweep, const struct problem *problem) {
    if (!sweep->read_gbs || !sweep->matrix_tflops) return problem_bytes(problem);
    return fmax(problem_bytes(problem) / sweep->read_gbs / 1e3, problem_flops(problem) / sweep->matrix_tflops / 1e6);
}

/* Both kernels at their ceilings: the ratio of bytes while memory decides, 1 when arithmetic does. */
static void put_ideal(FILE *file, const struct results_sweep *sweep, int layer, const char *title) {
    put_header(file, title,
               sweep->read_gbs && sweep->matrix_tflops ? "ideal: both kernels at the measured ceilings"
                                                       : "ideal: the ratio of bytes");
    int last = 0;
    for (int i = 0; i < sweep->count; i++) {
        const struct problem *p = &sweep->points[i].problem;
        if (sweep->points[i].layer != layer || p->op != OP_MARLIN_GEMM || p->m == last) continue;
        if (!fp16_us(sweep, layer, last = p->m)) continue;
        struct problem fp16 = {.op = OP_FP16_GEMM, .m = p->m, .n = p->n, .k = p->k};
        fprintf(file, "%d %.6g\n", p->m, least_us(sweep, &fp16) / least_us(sweep, p));
    }
}

/* A dequantised matrix serves every m: its line is dequantisation plus the fp16 product. */
static int put_dequant(FILE *file, const struct results_sweep *sweep, const struct results_point *dequant) {
    int rows = 0, last = 0;
    for (int i = 0; i < sweep->count; i++) {
        const struct results_point *p = &sweep->points[i];
        if (p->layer != dequant->layer || p->problem.op != OP_FP16_GEMM || p->problem.m == last) continue;
        double fp16 = fp16_us(sweep, p->layer, last = p->problem.m);
        rows += fprintf(file, "%d %.6g\n", last, fp16 / (fp16 + dequant->us)) > 0;
    }
    return rows;
}

static int put_speedups(FILE *file, const struct results_sweep *sweep, int layer, const char *series) {
    char label[SERIES_TEXT];
    int rows = 0;
    for (int i = 0; i < sweep->count; i++) {
        const struct results_point *p = &sweep->points[i];
        if (p->layer != layer || !is_int4(p) || strcmp(series, point_label(p, label))) continue;
        double fp16 = fp16_us(sweep, layer, p->problem.m);
        if (p->problem.op == OP_AWQ_DEQUANT)
            rows += put_dequant(file, sweep, p);
        else if (fp16)
            rows += fprintf(file, "%d %.6g\n", p->problem.m, fp16 / p->us) > 0;
    }
    return rows;
}

static bool has_pair(const struct results_sweep *sweep, int layer) {
    for (int i = 0; i < sweep->count; i++) {
        const struct results_point *p = &sweep->points[i];
        if (p->layer == layer && p->problem.op == OP_MARLIN_GEMM && fp16_us(sweep, layer, p->problem.m)) return true;
    }
    return false;
}

static int write_speedup(const struct figure_input *input, const char *directory, struct figure_text *text,
                         struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    struct series series = {.count = 0};
    char title[96];
    if (gather_series(sweep, is_int4, &series, error)) return -1;
    for (int layer = 0; layer < sweep->layer_count; layer++) {
        if (!has_pair(sweep, layer)) continue;
        FILE *file = open_data(directory, "speedup", ++text->panels, error);
        if (!file) return -1;
        layer_title(&sweep->layers[layer], title);
        put_ideal(file, sweep, layer, title);
        for (int s = 0; s < series.count; s++) {
            fprintf(file, "\n\n");
            put_header(file, title, series.label[s]);
            if (!put_speedups(file, sweep, layer, series.label[s])) fprintf(file, "NaN NaN\n");
        }
        if (close_data(file, "speedup", error)) return -1;
    }
    if (!text->panels) return missing(error, "no layer has both marlin_gemm and fp16_gemm at the same M");
    sweep_text(input, "Speed-up of int4 over the best fp16 kernel", text);
    return 0;
}

/* --- TFLOP/s against M --- */

static double tflops(const struct results_point *point) {
    return problem_flops(&point->problem) / point->us / 1e6;
}

static int put_tflops(FILE *file, const struct results_sweep *sweep, int layer, const char *series) {
    char label[SERIES_TEXT];
    int rows = 0;
    for (int i = 0; i < sweep->count; i++) {
        const struct results_point *p = &sweep->points[i];
        if (p->layer == layer && is_gemm(p) && !strcmp(series, point_label(p, label)))
            rows += fprintf(file, "%d %.6g\n", p->problem.m, tflops(p)) > 0;
    }
    return rows;
}

/* A flat line over the layer's range of m. */
static void put_ceiling(FILE *file, const struct results_sweep *sweep, int layer, const char *title) {
    char label[SERIES_TEXT] = "matrix ceiling: not in the file";
    double ceiling = sweep->matrix_tflops ? sweep->matrix_tflops : NAN;
    if (sweep->matrix_tflops) snprintf(label, sizeof label, "measured matrix ceiling: %.3g TFLOP/s", ceiling);
    put_header(file, title, label);
    for (int i = 0; i < sweep->count; i++)
        if (sweep->points[i].layer == layer) fprintf(file, "%d %.6g\n", sweep->points[i].problem.m, ceiling);
}

static bool has_gemm(const struct results_sweep *sweep, int layer) {
    for (int i = 0; i < sweep->count; i++)
        if (sweep->points[i].layer == layer && is_gemm(&sweep->points[i])) return true;
    return false;
}

static int write_tflops(const struct figure_input *input, const char *directory, struct figure_text *text,
                        struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    struct series series = {.count = 0};
    char title[96];
    if (gather_series(sweep, is_gemm, &series, error)) return -1;
    for (int layer = 0; layer < sweep->layer_count; layer++) {
        if (!has_gemm(sweep, layer)) continue;
        FILE *file = open_data(directory, "tflops", ++text->panels, error);
        if (!file) return -1;
        layer_title(&sweep->layers[layer], title);
        put_ceiling(file, sweep, layer, title);
        for (int s = 0; s < series.count; s++) {
            fprintf(file, "\n\n");
            put_header(file, title, series.label[s]);
            if (!put_tflops(file, sweep, layer, series.label[s])) fprintf(file, "NaN NaN\n");
        }
        if (close_data(file, "tflops", error)) return -1;
    }
    if (!text->panels) return missing(error, "no marlin_gemm and no fp16_gemm was measured");
    sweep_text(input, "Rate of the matrix products", text);
    return 0;
}

/* --- roofline --- */

static int write_roofline(const struct figure_input *input, const char *directory, struct figure_text *text,
                          struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    struct series series = {.count = 0};
    char label[SERIES_TEXT];
    if (gather_series(sweep, is_gemm, &series, error)) return -1;
    if (!series.count) return missing(error, "no marlin_gemm and no fp16_gemm was measured");
    if (!sweep->read_gbs || !sweep->matrix_tflops)
        return missing(error, "the context lacks the measured ceilings read_gbs and matrix_tflops");
    FILE *file = open_data(directory, "roofline", text->panels = 1, error);
    if (!file) return -1;
    for (int s = 0; s < series.count; s++) {
        if (s) fprintf(file, "\n\n");
        put_header(file, "", series.label[s]);
        for (int i = 0; i < sweep->count; i++) {
            const struct results_point *p = &sweep->points[i];
            if (!is_gemm(p) || strcmp(series.label[s], point_label(p, label))) continue;
            fprintf(file, "%.6g %.6g\n", problem_flops(&p->problem) / problem_bytes(&p->problem), tflops(p));
        }
    }
    sweep_text(input, "Roofline: every measured shape and M, best configuration", text);
    return close_data(file, "roofline", error);
}

/* --- heat map of two tile parameters --- */

/* The value of `name` in "a=1 b=2"; false if it is not there. */
static bool parameter_value(const char *configuration, const char *name, long *value) {
    size_t length = strlen(name);
    for (const char *at = configuration; *at; at += strcspn(at, " "), at += strspn(at, " "))
        if (!strncmp(at, name, length) && at[length] == '=') {
            *value = strtol(at + length + 1, NULL, 10);
            return true;
        }
    return false;
}

enum { MAX_AXIS = 32 };

/* A tile parameter and the values of it that were tried. */
struct axis {
    char name[32];
    long values[MAX_AXIS];
    int count;
};

static int by_value(const void *a, const void *b) {
    long p = *(const long *)a, q = *(const long *)b;
    return (p > q) - (p < q);
}

/* One problem's trials of one kernel. */
struct trial_set {
    const struct results_trial *list;
    int count;
    const char *kernel;
};

static bool in_set(const struct trial_set *set, int i) {
    return set->list[i].us > 0 && !strcmp(set->list[i].kernel, set->kernel);
}

static void read_axis(const struct trial_set *set, struct axis *axis) {
    long value;
    for (int i = 0; i < set->count && axis->count < MAX_AXIS; i++) {
        if (!in_set(set, i) || !parameter_value(set->list[i].configuration, axis->name, &value)) continue;
        int v = 0;
        while (v < axis->count && axis->values[v] != value) v++;
        if (v == axis->count) axis->values[axis->count++] = value;
    }
    qsort(axis->values, (size_t)axis->count, sizeof *axis->values, by_value);
}

/* Best time where x has this value and, unless y is NULL, y that one; 0 if it was not tried. */
static double best_cell(const struct trial_set *set, const struct axis *x, int xi, const struct axis *y, int yi) {
    double best = 0;
    long value;
    for (int i = 0; i < set->count; i++) {
        const struct results_trial *t = &set->list[i];
        if (!in_set(set, i) || !parameter_value(t->configuration, x->name, &value) || value != x->values[xi]) continue;
        if (y && (!parameter_value(t->configuration, y->name, &value) || value != y->values[yi])) continue;
        if (!best || t->us < best) best = t->us;
    }
    return best;
}

/* How much the choice of this parameter matters: worst over best of its values' best times. */
static double axis_spread(const struct trial_set *set, const struct axis *axis) {
    double low = 0, high = 0;
    for (int v = 0; v < axis->count; v++) {
        double us = best_cell(set, axis, v, NULL, 0);
        if (!v || us < low) low = us;
        if (us > high) high = us;
    }
    return low > 0 ? high / low : 0;
}

/* Tries the name=value pairs of a configuration as axes; keeps the one that matters most and is not `other`. */
static void choose_axis(const struct trial_set *set, const char *other, struct axis *best) {
    double most = 1;
    for (int i = 0; i < set->count; i++) {
        if (!in_set(set, i)) continue;
        for (const char *at = set->list[i].configuration; *at; at += strcspn(at, " "), at += strspn(at, " ")) {
            struct axis axis = {.count = 0};
            snprintf(axis.name, sizeof axis.name, "%.*s", (int)strcspn(at, "= "), at);
            if (other && !strcmp(other, axis.name)) continue;
            read_axis(set, &axis);
            double spread = axis.count > 1 ? axis_spread(set, &axis) : 0;
            if (spread <= most) continue;
            most = spread;
            *best = axis;
        }
        return; /* all configurations of a kernel have the same names */
    }
}

/* The problem and kernel with most successful trials. */
static struct trial_set largest_set(const struct results_trials *trials) {
    struct trial_set largest = {.count = 0};
    int most = 0;
    for (int first = 0, end; first < trials->count; first = end) {
        for (end = first + 1; end < trials->count && results_same_problem(&trials->list[first], &trials->list[end]);)
            end++;
        for (int i = first; i < end; i++) {
            struct trial_set set = {&trials->list[first], end - first, trials->list[i].kernel};
            int count = 0;
            for (int j = 0; j < set.count; j++) count += in_set(&set, j);
            if (count <= most) continue;
            most = count;
            largest = set;
        }
    }
    return largest;
}

static void put_cells(FILE *file, const struct trial_set *set, const struct axis *x, const struct axis *y) {
    double best = 0;
    for (int i = 0; i < set->count; i++)
        if (in_set(set, i) && (!best || set->list[i].us < best)) best = set->list[i].us;
    put_header(file, x->name, y->name);
    for (int xi = 0; xi < x->count; xi++)
        for (int yi = 0; yi < y->count; yi++) {
            double us = best_cell(set, x, xi, y, yi);
            fprintf(file, "%d %d %ld %ld ", xi, yi, x->values[xi], y->values[yi]);
            fprintf(file, us ? "%.6g %.6g\n" : "NaN NaN\n", us, us / best);
        }
}

static int choose_axes(const struct figure_input *input, const struct trial_set *set, struct axis *x, struct axis *y,
                       struct error *error) {
    const char *asked[2] = {input->x, input->y};
    struct axis *axes[2] = {x, y};
    for (int i = 0; i < 2; i++) {
        if (!asked[i]) continue;
        snprintf(axes[i]->name, sizeof axes[i]->name, "%s", asked[i]);
        read_axis(set, axes[i]);
        if (!axes[i]->count)
            return error_set(error, "the trials of %s have no parameter '%s'; they have: %s", set->kernel, asked[i],
                             set->list[0].configuration);
    }
    if (!asked[0]) choose_axis(set, asked[1], x);
    if (!asked[1]) choose_axis(set, x->name, y);
    if (!x->count || !y->count) return missing(error, "no kernel was tried with two parameters that vary");
    return 0;
}

static int write_heatmap(const struct figure_input *input, const char *directory, struct figure_text *text,
                         struct error *error) {
    struct trial_set set = largest_set(input->trials);
    struct axis x = {.count = 0}, y = {.count = 0};
    if (!set.count) return missing(error, "no trial has succeeded");
    int status = choose_axes(input, &set, &x, &y, error);
    if (status) return status;
    FILE *file = open_data(directory, "heatmap", text->panels = 1, error);
    if (!file) return -1;
    put_cells(file, &set, &x, &y);
    const struct results_trial *t = set.list;
    snprintf(text->title, sizeof text->title, "%s: best time by %s and %s, over all other parameters", set.kernel,
             x.name, y.name);
    snprintf(text->subtitle, sizeof text->subtitle, "%s, M = %d, K = %d, N = %d", input->device, t->m, t->k, t->n);
    if (t->group)
        snprintf(text->subtitle + strlen(text->subtitle), sizeof text->subtitle - strlen(text->subtitle), ", group %d",
                 t->group);
    return close_data(file, "heatmap", error);
}

/* --- convergence of the searches --- */

/* Best so far over the final best, a value a trial; NaN before the first success. Returns how many, or 0. */
static int converge(const struct results_trial *list, int count, double *ratio) {
    double best = 0;
    for (int i = 0; i < count; i++) {
        if (list[i].us > 0 && (!best || list[i].us < best)) best = list[i].us;
        ratio[i] = best ? best : NAN;
    }
    for (int i = 0; i < count; i++) ratio[i] /= best;
    return best ? count : 0;
}

static int by_ratio(const void *a, const void *b) {
    double p = *(const double *)a, q = *(const double *)b;
    return (p > q) - (p < q);
}

/* A row where the curve changes, and at its end. */
static void put_step(FILE *file, int trial, int length, const double *ratio) {
    if (!trial || trial == length - 1 || ratio[trial] != ratio[trial - 1])
        fprintf(file, "%d %.6g\n", trial + 1, ratio[trial]);
}

struct curves {
    double **ratio; /* of each problem of one op */
    int *length;
    int count, longest;
};

/* At every trial the median over problems; a search that has ended counts with its final best. */
static void put_median(FILE *file, const struct curves *curves, double *values) {
    for (int t = 0; t < curves->longest; t++) {
        int count = 0;
        for (int c = 0; c < curves->count; c++) {
            double value = t < curves->length[c] ? curves->ratio[c][t] : 1;
            if (!isnan(value)) values[count++] = value;
        }
        qsort(values, (size_t)count, sizeof *values, by_ratio);
        if (count) fprintf(file, "%d %.6g\n", t + 1, (values[(count - 1) / 2] + values[count / 2]) / 2);
    }
}

static void put_curves(FILE *file, const char *op, const struct curves *curves) {
    for (int c = 0; c < curves->count; c++) {
        fprintf(file, "\n\n");
        put_header(file, op, "");
        for (int t = 0; t < curves->length[c]; t++) put_step(file, t, curves->length[c], curves->ratio[c]);
    }
}

/* The trials of one op, sorted by problem: one curve for each problem, storage in `ratios` (count). */
static struct curves gather_curves(const struct results_trial *list, int count, double *ratios, double **starts,
                                   int *lengths) {
    struct curves curves = {.ratio = starts, .length = lengths};
    for (int first = 0, end; first < count; first = end) {
        for (end = first + 1; end < count && results_same_problem(&list[first], &list[end]);) end++;
        int length = converge(list + first, end - first, ratios + first);
        if (!length) continue;
        starts[curves.count] = ratios + first;
        lengths[curves.count++] = length;
        if (length > curves.longest) curves.longest = length;
    }
    return curves;
}

static int write_op_curves(const struct results_trial *list, int count, const char *directory, struct figure_text *text,
                           struct error *error) {
    double *ratios = calloc((size_t)count, sizeof *ratios), *values = calloc((size_t)count, sizeof *values);
    double **starts = calloc((size_t)count, sizeof *starts);
    int *lengths = calloc((size_t)count, sizeof *lengths), status = 0;
    if (!ratios || !values || !starts || !lengths) abort();
    struct curves curves = gather_curves(list, count, ratios, starts, lengths);
    FILE *file = curves.count ? open_data(directory, "convergence", ++text->panels, error) : NULL;
    if (file) {
        char label[96];
        snprintf(label, sizeof label, "%s: median of %d problem%s", list->op, curves.count,
                 curves.count > 1 ? "s" : "");
        put_header(file, list->op, label);
        put_median(file, &curves, values);
        put_curves(file, list->op, &curves);
        status = close_data(file, "convergence", error);
    } else if (curves.count) {
        status = -1;
    }
    free(ratios);
    free(values);
    free(starts);
    free(lengths);
    return status;
}

static int write_convergence(const struct figure_input *input, const char *directory, struct figure_text *text,
                             struct error *error) {
    const struct results_trials *trials = input->trials;
    for (int first = 0, end; first < trials->count; first = end) {
        for (end = first + 1; end < trials->count && !strcmp(trials->list[first].op, trials->list[end].op);) end++;
        if (write_op_curves(&trials->list[first], end - first, directory, text, error)) return -1;
    }
    if (!text->panels) return missing(error, "no trial has succeeded");
    snprintf(text->title, sizeof text->title, "Convergence of the search");
    snprintf(text->subtitle, sizeof text->subtitle, "%s, %d trials", input->device, trials->count);
    return 0;
}

const struct figure figures[] = {
    {"speedup", "int4 over the best fp16 kernel against M, a panel a layer", false, write_speedup},
    {"tflops", "TFLOP/s against M with the measured matrix ceiling", false, write_tflops},
    {"roofline", "TFLOP/s against flops a byte with both measured ceilings", false, write_roofline},
    {"heatmap", "best time by two tile parameters of one kernel", true, write_heatmap},
    {"convergence", "best time so far against the number of trials", true, write_convergence},
};
const int figure_count = sizeof figures / sizeof *figures;
