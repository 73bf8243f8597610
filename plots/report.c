#include <stdlib.h>
#include <string.h>

#include "plots/csv.h"
#include "plots/results.h"

/* --- report.csv --- */

enum column { OP, LAYER, K, N, GROUP, ZEROS, M, EPILOGUE, REGIME, KERNEL, US, P20, P80, FLOOR_US, CUBLAS_US, COLUMNS };
static const char *const columns[COLUMNS] = {"op",    "layer", "k",        "n",        "group",
                                             "zeros", "m",     "epilogue", "regime",   "kernel",
                                             "us",    "p20",   "p80",      "floor_us", "cublas_us"};

static void add_layer(struct results_report *report, const struct results_row *row) {
    for (int i = 0; i < report->layer_count; i++) {
        const struct results_layer *layer = &report->layers[i];
        if (layer->k == row->k && layer->n == row->n && !strcmp(layer->name, row->layer)) return;
    }
    report->layers = results_grow(report->layers, report->layer_count, sizeof *report->layers);
    struct results_layer *layer = &report->layers[report->layer_count++];
    *layer = (struct results_layer){.k = row->k, .n = row->n};
    memcpy(layer->name, row->layer, sizeof layer->name);
}

/* The first regime and the first group that come along decide; *group is 0 for fp16. */
static bool is_compared(struct results_report *report, const char *regime, const char *epilogue, int group) {
    if (strcmp(epilogue, "none")) return false;
    if (!*report->regime) memcpy(report->regime, regime, sizeof report->regime);
    if (group && !report->group) report->group = group;
    return !strcmp(report->regime, regime) && (!group || report->group == group);
}

static int read_numbers(char *const fields[], struct results_row *row, int *group, struct error *error) {
    int zeros = 0;
    const struct {
        enum column column;
        int *value;
    } numbers[] = {{K, &row->k}, {N, &row->n}, {M, &row->m}, {GROUP, group}, {ZEROS, &zeros}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (csv_whole(fields[numbers[i].column], columns[numbers[i].column], numbers[i].value, error)) return -1;
    row->zeros = zeros;
    if (csv_positive(fields[US], "us", false, &row->us, error)) return -1;
    if (csv_positive(fields[P20], "p20", true, &row->p20_us, error)) return -1;
    if (csv_positive(fields[P80], "p80", true, &row->p80_us, error)) return -1;
    if (!row->p20_us || !row->p80_us) row->p20_us = row->p80_us = row->us;
    if (csv_positive(fields[FLOOR_US], "floor_us", true, &row->floor_us, error)) return -1;
    return csv_positive(fields[CUBLAS_US], "cublas_us", true, &row->cublas_us, error);
}

static int read_row(void *data, char *const fields[], struct error *error) {
    struct results_report *report = data;
    struct results_row row = {.us = 0};
    char regime[sizeof report->regime] = "";
    int group = 0;
    if (op_parse(fields[OP], &row.op, error) || csv_text(fields[LAYER], "layer", row.layer, sizeof row.layer, error) ||
        csv_text(fields[KERNEL], "kernel", row.kernel, sizeof row.kernel, error) ||
        csv_text(fields[REGIME], "regime", regime, sizeof regime, error) || read_numbers(fields, &row, &group, error))
        return -1;
    if (!is_compared(report, regime, fields[EPILOGUE], group)) return 0;
    add_layer(report, &row);
    report->rows = results_grow(report->rows, report->count, sizeof row);
    report->rows[report->count++] = row;
    return 0;
}

static int by_m_and_us(const void *a, const void *b) {
    const struct results_row *p = a, *q = b;
    return p->m != q->m ? (p->m > q->m) - (p->m < q->m) : (p->us > q->us) - (p->us < q->us);
}

int results_read_report(const char *path, struct results_report *report, struct error *error) {
    *report = (struct results_report){.count = 0};
    if (csv_read(path, columns, COLUMNS, read_row, report, error)) {
        results_free_report(report);
        return -1;
    }
    if (report->count) qsort(report->rows, (size_t)report->count, sizeof *report->rows, by_m_and_us);
    return 0;
}

/* --- peers.csv --- */

static const char *const peer_columns[] = {"kernel", "k", "n", "m", "us"};

static int read_peer(void *data, char *const fields[], struct error *error) {
    struct results_report *report = data;
    struct results_peer peer = {.file = report->peer_files};
    if (csv_text(fields[0], "kernel", peer.kernel, sizeof peer.kernel, error) ||
        csv_whole(fields[1], "k", &peer.k, error) || csv_whole(fields[2], "n", &peer.n, error) ||
        csv_whole(fields[3], "m", &peer.m, error) || csv_positive(fields[4], "us", false, &peer.us, error))
        return -1;
    /* A stable order by m: each goes behind those of its m. */
    report->peers = results_grow(report->peers, report->peer_count, sizeof peer);
    int at = report->peer_count++;
    for (; at && report->peers[at - 1].m > peer.m; at--) report->peers[at] = report->peers[at - 1];
    report->peers[at] = peer;
    return 0;
}

int results_read_peers(const char *path, struct results_report *report, struct error *error) {
    int status = csv_read(path, peer_columns, sizeof peer_columns / sizeof *peer_columns, read_peer, report, error);
    report->peer_files++;
    return status;
}

void results_free_report(struct results_report *report) {
    free(report->rows);
    free(report->layers);
    free(report->peers);
    *report = (struct results_report){.count = 0};
}
