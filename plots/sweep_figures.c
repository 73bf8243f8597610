#include <math.h>
#include <stdio.h>
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
    size_t used = strlen(text);
    if (layer->epilogue) snprintf(text + used, 96 - used, ", %s", epilogue_name(layer->epilogue));
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
            if (!put_speedups(file, sweep, layer, series.label[s])) fprintf(file, "NaN NaN\n");
        }
        if (data_close(file, "speedup", error)) return -1;
    }
    if (!text->panels) return figure_missing(error, "no layer has both marlin_gemm and fp16_gemm at the same M");
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
            if (!put_tflops(file, sweep, layer, series.label[s])) fprintf(file, "NaN NaN\n");
        }
        if (data_close(file, "tflops", error)) return -1;
    }
    if (!text->panels) return figure_missing(error, "no marlin_gemm and no fp16_gemm was measured");
    sweep_text(input, "Rate of the matrix products", text);
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
            fprintf(file, "%.6g %.6g\n", problem_flops(&p->problem) / problem_bytes(&p->problem), tflops(p));
        }
    }
    sweep_text(input, "Roofline: every measured shape and M, best configuration", text);
    return data_close(file, "roofline", error);
}
