#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plots/data.h"

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

static const char *make_label(const struct results_point *point, const char *more, char text[SERIES_TEXT]) {
    const struct problem *p = &point->problem;
    char group[32] = "";
    if (p->group) snprintf(group, sizeof group, p->group == p->k ? ", one group" : ", group %d", p->group);
    snprintf(text, SERIES_TEXT, "%s%s%s%s", point->kernel, more, group, p->zeros ? ", zeros" : "");
    return text;
}

static const char *kernel_label(const struct results_point *point, char text[SERIES_TEXT]) {
    return make_label(point, "", text);
}

/* Of a product; a dequantised matrix needs another one. */
static const char *point_label(const struct results_point *point, char text[SERIES_TEXT]) {
    return make_label(point, point->problem.op == OP_AWQ_DEQUANT ? " + fp16_gemm" : "", text);
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
    size_t used = strlen(text);
    const struct problem gemm = {.epilogue = layer->epilogue, .norm = layer->norm};
    char fused[FUSED_TEXT];
    if (gemm.epilogue || gemm.norm) snprintf(text + used, 96 - used, ", %s", problem_fused(&gemm, fused));
}

static void sweep_text(const struct figure_input *input, const char *title, bool bands, struct figure_text *text) {
    snprintf(text->title, sizeof text->title, "%s", title);
    snprintf(text->subtitle, sizeof text->subtitle, "%s%s%s%s", input->device, *input->sweep->regime ? ", " : "",
             input->sweep->regime, bands ? "; bands: p20 to p80" : "");
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
    data_header(file, title,
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
        data_band(file, last, fp16 / (fp16 + dequant->us), fp16 / (fp16 + dequant->p20_us),
                  fp16 / (fp16 + dequant->p80_us));
        rows++;
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
        if (p->problem.op == OP_AWQ_DEQUANT) {
            rows += put_dequant(file, sweep, p);
        } else if (fp16) {
            data_band(file, p->problem.m, fp16 / p->us, fp16 / p->p20_us, fp16 / p->p80_us);
            rows++;
        }
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

int figure_speedup(const struct figure_input *input, const char *directory, struct figure_text *text,
                   struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    struct series series = {.count = 0};
    char title[96];
    if (gather_series(sweep, is_int4, &series, error)) return -1;
    for (int layer = 0; layer < sweep->layer_count; layer++) {
        if (!has_pair(sweep, layer)) continue;
        FILE *file = data_open(directory, "speedup", ++text->panels, error);
        if (!file) return -1;
        layer_title(&sweep->layers[layer], title);
        put_ideal(file, sweep, layer, title);
        for (int s = 0; s < series.count; s++) {
            fprintf(file, "\n\n");
            data_header(file, title, series.label[s]);
            if (!put_speedups(file, sweep, layer, series.label[s])) data_none(file);
        }
        if (data_close(file, "speedup", error)) return -1;
    }
    if (!text->panels) return figure_missing(error, "no layer has both marlin_gemm and fp16_gemm at the same M");
    sweep_text(input, "Speed-up of int4 over the best fp16 kernel", true, text);
    return 0;
}

/* --- TFLOP/s against M --- */

static double tflops(const struct results_point *point, double us) {
    return problem_flops(&point->problem) / us / 1e6;
}

static int put_tflops(FILE *file, const struct results_sweep *sweep, int layer, const char *series) {
    char label[SERIES_TEXT];
    int rows = 0;
    for (int i = 0; i < sweep->count; i++) {
        const struct results_point *p = &sweep->points[i];
        if (p->layer != layer || !is_gemm(p) || strcmp(series, point_label(p, label))) continue;
        data_band(file, p->problem.m, tflops(p, p->us), tflops(p, p->p20_us), tflops(p, p->p80_us));
        rows++;
    }
    return rows;
}

/* A flat line over the layer's range of m. */
static void put_ceiling(FILE *file, const struct results_sweep *sweep, int layer, const char *title) {
    char label[SERIES_TEXT] = "matrix ceiling: not in the file";
    double ceiling = sweep->matrix_tflops ? sweep->matrix_tflops : NAN;
    if (sweep->matrix_tflops) snprintf(label, sizeof label, "measured matrix ceiling: %.3g TFLOP/s", ceiling);
    data_header(file, title, label);
    for (int i = 0; i < sweep->count; i++)
        if (sweep->points[i].layer == layer) fprintf(file, "%d %.6g\n", sweep->points[i].problem.m, ceiling);
}

static bool has_gemm(const struct results_sweep *sweep, int layer) {
    for (int i = 0; i < sweep->count; i++)
        if (sweep->points[i].layer == layer && is_gemm(&sweep->points[i])) return true;
    return false;
}

int figure_tflops(const struct figure_input *input, const char *directory, struct figure_text *text,
                  struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    struct series series = {.count = 0};
    char title[96];
    if (gather_series(sweep, is_gemm, &series, error)) return -1;
    for (int layer = 0; layer < sweep->layer_count; layer++) {
        if (!has_gemm(sweep, layer)) continue;
        FILE *file = data_open(directory, "tflops", ++text->panels, error);
        if (!file) return -1;
        layer_title(&sweep->layers[layer], title);
        put_ceiling(file, sweep, layer, title);
        for (int s = 0; s < series.count; s++) {
            fprintf(file, "\n\n");
            data_header(file, title, series.label[s]);
            if (!put_tflops(file, sweep, layer, series.label[s])) data_none(file);
        }
        if (data_close(file, "tflops", error)) return -1;
    }
    if (!text->panels) return figure_missing(error, "no marlin_gemm and no fp16_gemm was measured");
    sweep_text(input, "Rate of the matrix products", true, text);
    return 0;
}

/* --- roofline --- */

int figure_roofline(const struct figure_input *input, const char *directory, struct figure_text *text,
                    struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    struct series series = {.count = 0};
    char label[SERIES_TEXT];
    if (gather_series(sweep, is_gemm, &series, error)) return -1;
    if (!series.count) return figure_missing(error, "no marlin_gemm and no fp16_gemm was measured");
    if (!sweep->read_gbs || !sweep->matrix_tflops)
        return figure_missing(error, "the context lacks the measured ceilings read_gbs and matrix_tflops");
    FILE *file = data_open(directory, "roofline", text->panels = 1, error);
    if (!file) return -1;
    for (int s = 0; s < series.count; s++) {
        if (s) fprintf(file, "\n\n");
        data_header(file, "", series.label[s]);
        for (int i = 0; i < sweep->count; i++) {
            const struct results_point *p = &sweep->points[i];
            if (!is_gemm(p) || strcmp(series.label[s], point_label(p, label))) continue;
            fprintf(file, "%.6g %.6g\n", problem_flops(&p->problem) / problem_bytes(&p->problem), tflops(p, p->us));
        }
    }
    sweep_text(input, "Roofline: every measured shape and M, best configuration", false, text);
    return data_close(file, "roofline", error);
}

/* --- the spread of the samples --- */

/* Half a percent each. What is beyond 99 % would take the room of all others. */
enum { ECDF_STEPS = 200, ECDF_LAST = 198 };

/* Of all repetitions, sorted; NULL without any. */
static float *find_samples(const struct samples *samples, const char *name, int *count) {
    float *all = NULL;
    *count = 0;
    for (int i = 0; i < samples->count; i++) {
        const struct samples_row *row = &samples->rows[i];
        if (strcmp(row->name, name)) continue;
        all = reallocarray(all, (size_t)(*count + row->count), sizeof *all);
        if (!all) abort();
        memcpy(all + *count, row->us, (size_t)row->count * sizeof *all);
        *count += row->count;
    }
    if (all) measure_sort(all, *count);
    return all;
}

/* How many samples were drawn. */
static int put_ecdf(FILE *file, const struct samples *samples, const struct results_point *point) {
    int count;
    float *us = find_samples(samples, point->name, &count);
    for (int i = 0; us && i <= ECDF_LAST; i++) {
        double share = (double)i / ECDF_STEPS;
        fprintf(file, "%.6g %.6g\n", measure_quantile(us, count, share) / measure_median(us, count), share);
    }
    free(us);
    return count;
}

/* Dequantising does not depend on it. */
static bool is_at(const struct results_point *point, int m) {
    return point->problem.m == m || !is_gemm(point);
}

static int write_ecdf(const struct figure_input *input, int layer, int m, const struct series *series,
                      const char *directory, int panel, struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    char title[96], label[SERIES_TEXT];
    FILE *file = data_open(directory, "ecdf", panel, error);
    if (!file) return -1;
    layer_title(&sweep->layers[layer], title);
    data_header(file, title, "median");
    fprintf(file, "1 0\n1 1\n");
    for (int s = 0; s < series->count; s++) {
        int drawn = 0;
        fprintf(file, "\n\n");
        data_header(file, title, series->label[s]);
        for (int i = 0; i < sweep->count && !drawn; i++)
            if (sweep->points[i].layer == layer && is_at(&sweep->points[i], m) &&
                !strcmp(series->label[s], kernel_label(&sweep->points[i], label)))
                drawn = put_ecdf(file, input->samples, &sweep->points[i]);
        if (!drawn) data_none(file);
    }
    return data_close(file, "ecdf", error);
}

static bool has_samples(const struct figure_input *input, int layer, int m) {
    int count = 0;
    for (int i = 0; i < input->sweep->count && !count; i++) {
        const struct results_point *point = &input->sweep->points[i];
        if (point->layer == layer && point->problem.m == m) free(find_samples(input->samples, point->name, &count));
    }
    return count > 0;
}

int figure_ecdf(const struct figure_input *input, const char *directory, struct figure_text *text,
                struct error *error) {
    const struct results_sweep *sweep = input->sweep;
    struct series series = {.count = 0};
    char label[SERIES_TEXT], title[96];
    int m = input->m ? input->m : sweep->count ? sweep->points[0].problem.m : 0;
    for (int i = 0; i < sweep->count; i++)
        if (is_at(&sweep->points[i], m) && add_series(&series, kernel_label(&sweep->points[i], label), error))
            return -1;
    for (int layer = 0; layer < sweep->layer_count; layer++)
        if (has_samples(input, layer, m) && write_ecdf(input, layer, m, &series, directory, ++text->panels, error))
            return -1;
    if (!text->panels) return figure_missing(error, "no row of sweep.json at this M has samples");
    snprintf(title, sizeof title, "Samples at M = %d over their median, up to the 99th percentile", m);
    sweep_text(input, title, false, text);
    return 0;
}
