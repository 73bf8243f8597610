#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plots/data.h"

/* What a line shows: of one layer and M the fastest kernel that belongs to it. */
struct line {
    const char *label;
    enum op op;
    bool zeros, library; /* library: cuBLASLt instead of our kernels */
};

static const struct line lines[] = {
    {"int4, zero points", OP_MARLIN_GEMM, true, false},
    {"int4, symmetric", OP_MARLIN_GEMM, false, false},
    {"fp16", OP_FP16_GEMM, false, false},
    {"cuBLASLt fp16", OP_FP16_GEMM, false, true},
};
enum { INT4_LINES = 2, LINES = sizeof lines / sizeof *lines };

static bool belongs(const struct results_row *row, const struct results_layer *layer, const struct line *line) {
    return row->op == line->op && row->k == layer->k && row->n == layer->n && !strcmp(row->layer, layer->name) &&
           row->zeros == line->zeros && !strcmp(row->kernel, "fp16_gemm/cublaslt") == line->library;
}

enum { FLOOR_M = 64 }; /* beyond it arithmetic decides */

/* What is drawn of a row that takes `us`; 0 if the row has not got it. */
typedef double row_value(const struct results_row *row, double us);

static double speedup(const struct results_row *row, double us) {
    return row->cublas_us / us;
}

static double over_floor(const struct results_row *row, double us) {
    return row->floor_us > 0 ? us / row->floor_us : 0;
}

/* Of the rows of an M the first is the fastest. How many rows were written. */
static int put_line(FILE *file, const struct results_report *report, const struct results_layer *layer,
                    const struct line *line, int most_m, row_value *value) {
    int rows = 0, last = 0;
    for (int i = 0; i < report->count; i++) {
        const struct results_row *row = &report->rows[i];
        if (row->m == last || row->m > most_m || !belongs(row, layer, line) || !(value(row, row->us) > 0)) continue;
        last = row->m;
        data_band(file, last, value(row, row->us), value(row, row->p20_us), value(row, row->p80_us));
        rows++;
    }
    return rows;
}

static bool has_line(const struct results_report *report, const struct results_layer *layer, int first, int count,
                     int most_m, row_value *value) {
    for (int i = 0; i < report->count; i++)
        for (int l = first; l < first + count; l++)
            if (report->rows[i].m <= most_m && belongs(&report->rows[i], layer, &lines[l]) &&
                value(&report->rows[i], report->rows[i].us) > 0)
                return true;
    return false;
}

static void layer_title(const struct results_layer *layer, char text[96]) {
    snprintf(text, 96, "%s: K = %d, N = %d", layer->name, layer->k, layer->n);
}

static void next_block(FILE *file, const char *title, const char *label) {
    fprintf(file, "\n\n");
    data_header(file, title, label);
}

/* --- speed-up over cuBLASLt, beside the peers --- */

/* Of a kernel that only reads the weights. */
static double floor_speedup(const struct results_row *row, double us) {
    (void)us;
    return row->floor_us > 0 ? row->cublas_us / row->floor_us : 0;
}

/* Kernels of other ops are none of an int4 product's. */
static bool is_peer(const struct results_peer *peer) {
    return strcmp(peer->kernel, "cublas") && strcmp(peer->kernel, "awq_dequant");
}

/* cuBLAS in the run of a peer's row, on the same problem; 0: it is not there. */
static double peer_cublas_us(const struct results_report *report, const struct results_peer *row) {
    for (int i = 0; i < report->peer_count; i++) {
        const struct results_peer *peer = &report->peers[i];
        if (peer->file == row->file && peer->k == row->k && peer->n == row->n && peer->m == row->m &&
            !strcmp(peer->kernel, "cublas"))
            return peer->us;
    }
    return 0;
}

/* By the denominator of the peer's own run. */
static void put_peer(FILE *file, const struct results_report *report, const struct results_layer *layer,
                     const char *kernel) {
    int rows = 0;
    for (int i = 0; i < report->peer_count; i++) {
        const struct results_peer *peer = &report->peers[i];
        if (peer->k != layer->k || peer->n != layer->n || strcmp(peer->kernel, kernel)) continue;
        double cublas = peer_cublas_us(report, peer);
        if (!(cublas > 0)) continue;
        data_band(file, peer->m, cublas / peer->us, cublas / peer->us, cublas / peer->us);
        rows++;
    }
    if (!rows) data_none(file);
}

static bool named_before(const struct results_report *report, int index) {
    for (int i = 0; i < index; i++)
        if (!strcmp(report->peers[i].kernel, report->peers[index].kernel)) return true;
    return false;
}

static int write_peers(const struct results_report *report, const struct results_layer *layer, const char *directory,
                       int panel, struct error *error) {
    char title[96];
    FILE *file = data_open(directory, "peers", panel, error);
    if (!file) return -1;
    layer_title(layer, title);
    data_header(file, title, "read floor");
    if (!put_line(file, report, layer, &lines[0], FLOOR_M, floor_speedup) &&
        !put_line(file, report, layer, &lines[1], FLOOR_M, floor_speedup))
        data_none(file);
    for (int l = 0; l < INT4_LINES; l++) {
        next_block(file, title, lines[l].label);
        if (!put_line(file, report, layer, &lines[l], INT32_MAX, speedup)) data_none(file);
    }
    for (int i = 0; i < report->peer_count; i++) {
        if (!is_peer(&report->peers[i]) || named_before(report, i)) continue;
        next_block(file, title, report->peers[i].kernel);
        put_peer(file, report, layer, report->peers[i].kernel);
    }
    return data_close(file, "peers", error);
}

int figure_peers(const struct figure_input *input, const char *directory, struct figure_text *text,
                 struct error *error) {
    const struct results_report *report = input->report;
    for (int i = 0; i < report->layer_count; i++)
        if (has_line(report, &report->layers[i], 0, INT4_LINES, INT32_MAX, speedup) &&
            write_peers(report, &report->layers[i], directory, ++text->panels, error))
            return -1;
    if (!text->panels) return figure_missing(error, "no int4 row of report.csv has cublas_us, which a GPU gives");
    snprintf(text->title, sizeof text->title, "Speed-up of int4 over cuBLASLt fp16");
    snprintf(text->subtitle, sizeof text->subtitle, "%s, %s, group %d%s", input->device, report->regime, report->group,
             report->peer_count ? "; broken lines: peers, by their own run; bands: p20 to p80" : "; bands: p20 to p80");
    return 0;
}

/* --- time over the read floor --- */

/* What this project asks of its int4 kernels on an H100: at most so many times the floor. */
static const struct {
    const char *layer;
    double to_16, to_64; /* tokens */
} bounds[] = {{"qkv", 1.2, 1.8}, {"o", 1.25, 1.8}, {"gate_up", 1.1, 1.5}, {"down", 1.1, 1.5}};

/* A step half way between 16 and 32, the last M of the one and the first of the other. */
static void put_bounds(FILE *file, const struct results_layer *layer) {
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (!strcmp(bounds[i].layer, layer->name)) {
            fprintf(file, "1 %g\n%g %g\n", bounds[i].to_16, sqrt(16 * 32), bounds[i].to_16);
            fprintf(file, "%g %g\n%d %g\n", sqrt(16 * 32), bounds[i].to_64, FLOOR_M, bounds[i].to_64);
            return;
        }
    data_none(file);
}

static int write_floor(const struct results_report *report, const struct results_layer *layer, const char *directory,
                       int panel, struct error *error) {
    char title[96];
    FILE *file = data_open(directory, "floor", panel, error);
    if (!file) return -1;
    layer_title(layer, title);
    data_header(file, title, "bound for int4");
    put_bounds(file, layer);
    for (int l = 0; l < LINES; l++) {
        next_block(file, title, lines[l].label);
        if (!put_line(file, report, layer, &lines[l], FLOOR_M, over_floor)) data_none(file);
    }
    return data_close(file, "floor", error);
}

int figure_floor(const struct figure_input *input, const char *directory, struct figure_text *text,
                 struct error *error) {
    const struct results_report *report = input->report;
    for (int i = 0; i < report->layer_count; i++)
        if (has_line(report, &report->layers[i], 0, LINES, FLOOR_M, over_floor) &&
            write_floor(report, &report->layers[i], directory, ++text->panels, error))
            return -1;
    if (!text->panels)
        return figure_missing(error, "no row of report.csv up to M = 64 has floor_us, which a GPU gives");
    snprintf(text->title, sizeof text->title, "Time over that of only reading the same weights");
    snprintf(text->subtitle, sizeof text->subtitle, "%s, %s%s; bands: p20 to p80", input->device, report->regime,
             report->group ? "" : ", fp16 only");
    return 0;
}
