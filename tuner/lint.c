#include "tuner/lint.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/choice.h"
#include "tuner/tune.h"

struct use {
    long lookups; /* that gave the row */
    bool broken;  /* it cannot be run at any m, which is said already */
};

struct lint {
    const struct tile_table *table;
    const struct device *device;
    lint_report *report;
    void *context;
    int findings;
    struct use *uses; /* of each row */
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

/* --- what a consumer that asks for each m gets --- */

enum { MOST_M = 8192, LAST_M = 65536 /* of ranges that reach further */ };

enum answer { FINE, NO_ROW, GAP, OTHER_ROW, REFUSED };

/* Neighbouring m with the same answer. */
struct stretch {
    enum answer answer;
    const struct tile_row *row; /* that was found; of OTHER_ROW the one that was not */
    long low, high;
    char why[256];
};

static void tell(struct lint *lint, const struct stretch *s, const struct tile_row *key) {
    char text[160], m[48];
    snprintf(m, sizeof m, s->low == s->high ? "%ld" : "%ld-%ld", s->low, s->high);
    if (s->answer == NO_ROW)
        finding(lint, "%s %ld %ld %ld: no row for m %s: the default runs there; run `tilebook tune --shapes %ldx%ld`",
                key->op, key->k, key->n, key->group, m, key->k, key->n);
    if (s->answer == GAP)
        finding(lint, "%s: no row for m %s: this one runs there; run `tilebook tune --shapes %ldx%ld`",
                row_text(s->row, text), m, key->k, key->n);
    if (s->answer == OTHER_ROW)
        finding(lint, "%s: a lookup of m %s gives another row; sort the table with `tilebook table export`",
                row_text(s->row, text), m);
    if (s->answer == REFUSED)
        finding(lint, "%s: not legal at m %s on this device: %s; run `tilebook tune --shapes %ldx%ld --fresh`",
                row_text(s->row, text), m, s->why, key->k, key->n);
}

/* A row other than the one found whose range holds m too. */
static const struct tile_row *find_other(const struct lint *lint, const struct tile_row *found,
                                         const struct tile_row *key, long m) {
    for (size_t i = 0; i < lint->table->count; i++) {
        const struct tile_row *row = &lint->table->rows[i];
        if (row != found && same_key(row, key) && row->m_low <= m && m <= row->m_high) return row;
    }
    return NULL;
}

static bool is_last(const struct lint *lint, const struct tile_row *row) {
    for (size_t i = 0; i < lint->table->count; i++)
        if (same_key(&lint->table->rows[i], row) && lint->table->rows[i].m_low > row->m_high) return false;
    return true;
}

static struct stretch look_up(struct lint *lint, const struct tile_row *key, long m) {
    struct problem problem = {.m = (int)m, .n = (int)key->n, .k = (int)key->k, .group = (int)key->group};
    const struct tile_row *row = tiles_find(lint->table, key->op, key->k, key->n, key->group, m);
    struct stretch s = {.answer = FINE, .row = row, .low = m, .high = m};
    struct choice choice;
    struct use *use = row ? &lint->uses[row - lint->table->rows] : NULL;
    if (use) use->lookups++;
    const struct tile_row *other = find_other(lint, row, key, m);
    if (!row && !other) s.answer = NO_ROW;
    if (row && m > row->m_high && !is_last(lint, row)) s.answer = GAP;
    if (other) s.answer = OTHER_ROW, s.row = other;
    if (s.answer != FINE || !lint->device || use->broken || op_parse(key->op, &problem.op, NULL)) return s;
    problem.zeros = problem.op != OP_FP16_GEMM;
    choice_look_up(lint->device, kernel_list(), lint->table, &problem, &choice);
    if (choice.how != CHOICE_REFUSED) return s;
    s.answer = REFUSED;
    snprintf(s.why, sizeof s.why, "%s", choice.why);
    return s;
}

/* Up to where a consumer may go, and every row. */
static long highest_m(const struct lint *lint, const struct tile_row *key) {
    long highest = strcmp(key->op, op_name(OP_AWQ_DEQUANT)) ? MOST_M : 1;
    for (size_t i = 0; i < lint->table->count; i++) {
        const struct tile_row *row = &lint->table->rows[i];
        if (same_key(row, key) && row->m_high > highest) highest = row->m_high < LAST_M ? row->m_high : LAST_M;
    }
    return highest;
}

/* All m of the rows with this key, whose first one it is. What cannot be run at all is check_row's to say. */
static void replay(struct lint *lint, const struct tile_row *key) {
    struct stretch stretch = look_up(lint, key, 1);
    for (long m = 2, top = highest_m(lint, key); m <= top; m++) {
        struct stretch next = look_up(lint, key, m);
        if (next.answer == stretch.answer && (next.row == stretch.row || next.answer == FINE)) {
            stretch.high = m;
            continue;
        }
        tell(lint, &stretch, key);
        stretch = next;
    }
    tell(lint, &stretch, key);
}

static bool first_of_key(const struct lint *lint, size_t index) {
    const struct tile_row *rows = lint->table->rows;
    for (size_t i = 0; i < index; i++)
        if (same_key(&rows[i], &rows[index])) return false;
    return true;
}

static void check_lookups(struct lint *lint) {
    const struct tile_table *table = lint->table;
    char text[160];
    for (size_t i = 0; i < table->count; i++)
        if (first_of_key(lint, i)) replay(lint, &table->rows[i]);
    for (size_t i = 0; i < table->count; i++)
        if (!lint->uses[i].lookups && table->rows[i].m_low <= LAST_M)
            finding(lint, "%s: no lookup ever gives this row; remove it", row_text(&table->rows[i], text));
}

/* --- what a row says --- */

/* Whether the row can run at all; says why not. */
static bool check_kernel(struct lint *lint, const struct tile_row *row) {
    char text[160];
    struct error why;
    struct config config;
    struct problem problem = {.m = (int)row->m_high, .n = (int)row->n, .k = (int)row->k, .group = (int)row->group};
    int before = lint->findings;
    row_text(row, text);
    if (op_parse(row->op, &problem.op, &why)) {
        finding(lint, "%s: %s; see `tilebook kernels`", text, why.text);
        return false;
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
    return lint->findings == before;
}

static void check_row(struct lint *lint, size_t index) {
    const struct tile_row *row = &lint->table->rows[index];
    char text[160];
    lint->uses[index].broken = !check_kernel(lint, row);
    if (tune_in_service(lint->table->regime) && row->m_high <= SERVICE_M) return;
    if (row->default_us > 0 && row->us > row->default_us && !row->tie)
        finding(lint, "%s: %.2f us is slower than the default's %.2f us; run `tilebook tune --shapes %ldx%ld --fresh`",
                row_text(row, text), row->us, row->default_us, row->k, row->n);
}

int lint_table(const struct tile_table *table, const struct device *device, lint_report *report, void *context) {
    struct lint lint = {table, device, report, context, 0, calloc(table->count + 1, sizeof *lint.uses)};
    char message[TILES_MESSAGE];
    if (!table->count) finding(&lint, "the table has no rows; run `tilebook tune`");
    if (tune_throttled(table->regime))
        finding(&lint, "measured on a throttled card; tune again with `tilebook tune --fresh`");
    if (device &&
        tiles_match(table, device->name, device->architecture, device->multiprocessors, device->kernels, message))
        finding(&lint, "%s", message);
    if (!lint.uses) finding(&lint, "out of memory: the rows are not checked");
    for (size_t i = 0; i < table->count && lint.uses; i++) check_row(&lint, i);
    if (lint.uses) check_lookups(&lint);
    free(lint.uses);
    return lint.findings;
}
