#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plots/data.h"

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
    data_header(file, x->name, y->name);
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
    if (!x->count || !y->count) return figure_missing(error, "no kernel was tried with two parameters that vary");
    return 0;
}

int figure_heatmap(const struct figure_input *input, const char *directory, struct figure_text *text,
                   struct error *error) {
    struct trial_set set = largest_set(input->trials);
    struct axis x = {.count = 0}, y = {.count = 0};
    if (!set.count) return figure_missing(error, "no trial has succeeded");
    int status = choose_axes(input, &set, &x, &y, error);
    if (status) return status;
    FILE *file = data_open(directory, "heatmap", text->panels = 1, error);
    if (!file) return -1;
    put_cells(file, &set, &x, &y);
    const struct results_trial *t = set.list;
    snprintf(text->title, sizeof text->title, "%s: best time by %s and %s, over all other parameters", set.kernel,
             x.name, y.name);
    snprintf(text->subtitle, sizeof text->subtitle, "%s, M = %d, K = %d, N = %d", input->device, t->m, t->k, t->n);
    if (t->group)
        snprintf(text->subtitle + strlen(text->subtitle), sizeof text->subtitle - strlen(text->subtitle), ", group %d",
                 t->group);
    return data_close(file, "heatmap", error);
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
        data_header(file, op, "");
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
    FILE *file = curves.count ? data_open(directory, "convergence", ++text->panels, error) : NULL;
    if (file) {
        char label[96];
        snprintf(label, sizeof label, "%s: median of %d problem%s", list->op, curves.count,
                 curves.count > 1 ? "s" : "");
        data_header(file, list->op, label);
        put_median(file, &curves, values);
        put_curves(file, list->op, &curves);
        status = data_close(file, "convergence", error);
    } else if (curves.count) {
        status = -1;
    }
    free(ratios);
    free(values);
    free(starts);
    free(lengths);
    return status;
}

int figure_convergence(const struct figure_input *input, const char *directory, struct figure_text *text,
                       struct error *error) {
    const struct results_trials *trials = input->trials;
    for (int first = 0, end; first < trials->count; first = end) {
        for (end = first + 1; end < trials->count && !strcmp(trials->list[first].op, trials->list[end].op);) end++;
        if (write_op_curves(&trials->list[first], end - first, directory, text, error)) return -1;
    }
    if (!text->panels) return figure_missing(error, "no trial has succeeded");
    snprintf(text->title, sizeof text->title, "Convergence of the search");
    snprintf(text->subtitle, sizeof text->subtitle, "%s, %d trials", input->device, trials->count);
    return 0;
}
