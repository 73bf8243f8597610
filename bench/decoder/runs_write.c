#include <math.h>
#include <stddef.h>
#include <string.h>

#include "bench/decoder/runs.h"

enum { IN_JSON = 0, IN_CSV = 1, IN_TABLE = 2, BOTH = 3 }; /* JSON has all */

/* The columns behind the method; what text and markdown lack of them is in their first column. */
static const struct column {
    const char *name, *heading;
    int decimals;
    unsigned where;
    size_t at;
} columns[] = {
    {"batch", "batch", 0, IN_CSV, offsetof(struct runs_row, batch)},
    {"ctx", "context", 0, IN_CSV, offsetof(struct runs_row, ctx)},
    {"prompt", "prompt", 0, IN_CSV, offsetof(struct runs_row, prompt)},
    {"tuned", "tuned", 0, IN_CSV, offsetof(struct runs_row, tuned)},
    {"decode_tok_s", "decode tok/s", 2, BOTH, offsetof(struct runs_row, decode_tok_s)},
    {"prefill_tok_s", "prefill tok/s", 1, BOTH, offsetof(struct runs_row, prefill_tok_s)},
    {"ttft_ms", "first token ms", 2, BOTH, offsetof(struct runs_row, ttft_ms)},
    {"ttft_sd_ms", "", 3, IN_JSON, offsetof(struct runs_row, ttft_sd_ms)},
    {"prefills", "", 0, IN_JSON, offsetof(struct runs_row, prefills)},
    {"mean_ms", "ms/token", 3, IN_TABLE, offsetof(struct runs_row, mean_ms)},
    {"sd_ms", "deviation", 3, IN_TABLE, offsetof(struct runs_row, sd_ms)},
    {"p50_ms", "p50", 3, BOTH, offsetof(struct runs_row, p50_ms)},
    {"p99_ms", "p99", 3, BOTH, offsetof(struct runs_row, p99_ms)},
    {"steps", "n", 0, IN_TABLE, offsetof(struct runs_row, steps)},
    {"gb_s", "GB/s", 1, BOTH, offsetof(struct runs_row, gb_s)},
    {"ceiling_gb_s", "", 1, IN_JSON, offsetof(struct runs_row, ceiling_gb_s)},
    {"share", "% of ceiling", 1, IN_TABLE, offsetof(struct runs_row, share)},
    {"weights_gib", "weights GiB", 3, BOTH, offsetof(struct runs_row, weights_gib)},
    {"kv_gib", "KV GiB", 3, BOTH, offsetof(struct runs_row, kv_gib)},
    {"scratch_gib", "scratch GiB", 3, IN_TABLE, offsetof(struct runs_row, scratch_gib)},
    {"total_gib", "total GiB", 3, BOTH, offsetof(struct runs_row, total_gib)},
    {"perplexity", "perplexity", 4, BOTH, offsetof(struct runs_row, perplexity)},
};
enum { COLUMNS = sizeof columns / sizeof *columns, LEAST_WIDTH = 7 };

static int columns_of(bool perplexity) {
    return perplexity ? COLUMNS : COLUMNS - 1;
}

static double value(const struct runs_row *row, const struct column *column) {
    double number;
    memcpy(&number, (const char *)row + column->at, sizeof number);
    return number;
}

/* The number, or nothing. */
static const char *cell(const struct runs_row *row, const struct column *column, char text[32]) {
    double number = value(row, column);
    *text = 0;
    if (isfinite(number)) snprintf(text, 32, "%.*f", column->decimals, number);
    return text;
}

/* "batch 8, context 512, tuned" */
static const char *configuration(const struct runs_row *row, char text[64]) {
    *text = 0;
    if (isfinite(row->batch))
        snprintf(text, 64, "batch %.0f, context %.0f, %s", row->batch, row->ctx, row->tuned > 0 ? "tuned" : "untuned");
    return text;
}

static int width(const struct column *column) {
    int length = (int)strlen(column->heading);
    return length < LEAST_WIDTH ? LEAST_WIDTH : length;
}

void runs_text_begin(FILE *file, const char *about, bool perplexity) {
    int count = columns_of(perplexity);
    fprintf(file, "%s\n\n%-36s %-12s", about, "configuration", "quantisation");
    for (int i = 0; i < count; i++)
        if (columns[i].where & IN_TABLE) fprintf(file, "  %*s", width(&columns[i]), columns[i].heading);
    fputc('\n', file);
    fflush(file);
}

void runs_text_put(FILE *file, const struct runs_row *row, bool perplexity) {
    int count = columns_of(perplexity);
    char text[64];
    fprintf(file, "%-36s %-12s", configuration(row, text), row->method);
    for (int i = 0; i < count && !*row->note; i++)
        if (columns[i].where & IN_TABLE) fprintf(file, "  %*s", width(&columns[i]), cell(row, &columns[i], text));
    fprintf(file, "%s%s\n", *row->note ? "  " : "", row->note);
    fflush(file);
}

void runs_markdown_begin(FILE *file, const char *about, bool perplexity) {
    int count = columns_of(perplexity);
    fprintf(file, "%s\n\n| configuration | quantisation |", about);
    for (int i = 0; i < count; i++)
        if (columns[i].where & IN_TABLE) fprintf(file, " %s |", columns[i].heading);
    fprintf(file, "\n| --- | --- |");
    for (int i = 0; i < count; i++)
        if (columns[i].where & IN_TABLE) fprintf(file, " ---: |");
    fputc('\n', file);
}

/* A note takes the first cell of the figures, where a bar would end it. */
void runs_markdown_put(FILE *file, const struct runs_row *row, bool perplexity) {
    int count = columns_of(perplexity);
    char text[64];
    fprintf(file, "| %s | %s |", configuration(row, text), row->method);
    if (*row->note) fputc(' ', file);
    for (const char *c = row->note; *c; c++) fprintf(file, *c == '|' ? "\\|" : "%.1s", c);
    if (*row->note) fprintf(file, " |");
    for (int i = 0, first = *row->note != 0; i < count; i++) {
        if (!(columns[i].where & IN_TABLE)) continue;
        if (!first) fprintf(file, " %s |", cell(row, &columns[i], text));
        first = 0;
    }
    fputc('\n', file);
    fflush(file);
}

void runs_csv_begin(FILE *file, enum kv_type kv, bool perplexity) {
    int count = columns_of(perplexity);
    fprintf(file, "method");
    for (int i = 0; i < count; i++)
        if (columns[i].where & IN_CSV) fprintf(file, ",%s", columns[i].name);
    fputs(kv == KV_FP16 ? "\n" : ",kv\n", file);
}

void runs_csv_put(FILE *file, const struct runs_row *row, bool perplexity) {
    int count = columns_of(perplexity);
    char text[32];
    fprintf(file, "%s", row->method);
    for (int i = 0; i < count; i++)
        if (columns[i].where & IN_CSV) fprintf(file, ",%s", cell(row, &columns[i], text));
    if (row->kv != KV_FP16) fprintf(file, ",%s", kv_name(row->kv));
    fputc('\n', file);
    fflush(file);
}

json_t *runs_json(const struct runs_row *row) {
    json_t *object = json_pack("{s:s, s:s}", "method", row->method, "kv", kv_name(row->kv));
    for (int i = 0; object && i < COLUMNS; i++) {
        double number = value(row, &columns[i]);
        if (isfinite(number))
            json_object_set_new(object, columns[i].name,
                                columns[i].decimals ? json_real(number) : json_integer((json_int_t)number));
    }
    if (object && *row->note) json_object_set_new(object, "note", json_string(row->note));
    return object;
}
