#include "tuner/lint.h"

#include <stdarg.h>
#include <string.h>

#include "kernels/kernel.h"
#include "tuner/tune.h"

struct lint {
    const struct tile_table *table;
    const struct device *device;
    lint_report *report;
    void *context;
    int findings;
};

static void finding(struct lint *lint, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void finding(struct lint *lint, const char *format, ...) {
    char line[1200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    lint->report(lint->context, line);
    lint->findings++;
}

/* "marlin_gemm 5120 7168 128 m 1-8" */
static const char *row_text(const struct tile_row *row, char text[160]) {
    snprintf(text, 160, "%s %ld %ld %ld m %ld-%ld", row->op, row->k, row->n, row->group, row->m_low, row->m_high);
    return text;
}

static bool same_key(const struct tile_row *a, const struct tile_row *b) {
    return !strcmp(a->op, b->op) && a->k == b->k && a->n == b->n && a->group == b->group;
}

/* Both ends and the middle of the range, and above the last one. */
static void check_lookups(struct lint *lint, size_t index) {
    const struct tile_table *table = lint->table;
    const struct tile_row *row = &table->rows[index];
    char text[160];
    bool first = !index || !same_key(row - 1, row), last = index + 1 == table->count || !same_key(row, row + 1);
    const long points[] = {row->m_low, row->m_low + (row->m_high - row->m_low) / 2, row->m_high,
                           last ? row->m_high + 1 : row->m_high};
    for (int i = 0; i < 4; i++) {
        if (tiles_find(table, row->op, row->k, row->n, row->group, points[i]) == row) continue;
        finding(lint, "%s: a lookup of m=%ld gives another row; sort the table with `tilebook table export`",
                row_text(row, text), points[i]);
        return;
    }
    if (first && row->m_low > 1)
        finding(lint,
                "%s: no row for m below %ld, which fall back to the default; run `tilebook tune --shapes %ldx%ld`",
                row_text(row, text), row->m_low, row->k, row->n);
}

static void check_legal(struct lint *lint, const struct tile_row *row, const struct kernel *kernel,
                        const struct problem *problem, const struct config *config) {
    char text[160];
    struct error why;
    struct problem at = *problem;
    for (int end = 0; end < 2; end++) {
        at.m = (int)(end ? row->m_high : row->m_low);
        if (!config_legal(lint->device, kernel, &at, config, &why)) continue;
        finding(lint, "%s: not legal at m=%d on this device: %s; run `tilebook tune --shapes %ldx%ld --fresh`",
                row_text(row, text), at.m, why.text, row->k, row->n);
        return;
    }
}

static void check_row(struct lint *lint, const struct tile_row *row) {
    char text[160];
    struct error why;
    struct config config;
    struct problem problem = {.m = (int)row->m_high, .n = (int)row->n, .k = (int)row->k, .group = (int)row->group};
    row_text(row, text);
    if (op_parse(row->op, &problem.op, &why)) {
        finding(lint, "%s: %s; see `tilebook kernels`", text, why.text);
        return;
    }
    problem.zeros = problem.op != OP_FP16_GEMM;
    const struct kernel *kernel = kernel_find(row->kernel);
    if (problem_check(&problem, &why))
        finding(lint, "%s: %s; remove the row", text, why.text);
    else if (!kernel || kernel->op != problem.op)
        finding(lint, "%s: there is no kernel '%s' for %s; see `tilebook kernels %s`", text, row->kernel, row->op,
                row->op);
    else if (lint->device && kernel->backend != lint->device->backend)
        finding(lint, "%s: %s does not run on %s; see `tilebook kernels %s`", text, row->kernel, lint->device->id,
                row->op);
    else if (config_parse(kernel, row->configuration, &config, &why))
        finding(lint, "%s: %s; see `tilebook kernels %s`", text, why.text, row->op);
    else if (lint->device)
        check_legal(lint, row, kernel, &problem, &config);
    if (row->default_us > 0 && row->us > row->default_us && !row->tie)
        finding(lint, "%s: %.2f us is slower than the default's %.2f us; run `tilebook tune --shapes %ldx%ld --fresh`",
                text, row->us, row->default_us, row->k, row->n);
}

int lint_table(const struct tile_table *table, const struct device *device, lint_report *report, void *context) {
    struct lint lint = {table, device, report, context, 0};
    char message[TILES_MESSAGE];
    if (!table->count) finding(&lint, "the table has no rows; run `tilebook tune`");
    if (tune_throttled(table->regime))
        finding(&lint, "measured on a throttled card; tune again with `tilebook tune --fresh`");
    if (device &&
        tiles_match(table, device->name, device->architecture, device->multiprocessors, device->kernels, message))
        finding(&lint, "%s", message);
    for (size_t i = 0; i < table->count; i++) {
        check_lookups(&lint, i);
        check_row(&lint, &table->rows[i]);
    }
    return lint.findings;
}
