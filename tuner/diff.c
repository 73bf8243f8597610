#include "tuner/diff.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool same_key(const struct tile_row *a, const struct tile_row *b) {
    return !strcmp(a->op, b->op) && a->k == b->k && a->n == b->n && a->group == b->group;
}

/* The row whose range holds m, else the one that begins next above it; NULL if there is none. Rows are sorted. */
static const struct tile_row *find_from(const struct tile_table *table, const struct tile_row *key, long m) {
    for (size_t r = 0; r < table->count; r++)
        if (same_key(&table->rows[r], key) && table->rows[r].m_high >= m) return &table->rows[r];
    return NULL;
}

static enum diff_kind kind_of(const struct tile_row *a, const struct tile_row *b, long low, long high) {
    if (!a || !b) return a ? DIFF_ONLY_A : DIFF_ONLY_B;
    if (!strcmp(a->kernel, b->kernel) && !strcmp(a->configuration, b->configuration)) return DIFF_SAME;
    if (a->tie || b->tie) return DIFF_TIE;
    return 8 * (high - low + 1) <= low ? DIFF_BORDER : DIFF_OTHER;
}

static int add_part(struct diff *diff, const struct tile_row *a, const struct tile_row *b, long low, long high) {
    struct diff_part part = {kind_of(a, b, low, high), a, b, low, high, 0};
    if (!(diff->count & (diff->count - 1))) {
        size_t room = diff->count ? 2 * (size_t)diff->count : 1;
        struct diff_part *parts = reallocarray(diff->parts, room, sizeof *parts);
        if (!parts) return -1;
        diff->parts = parts;
    }
    if (a && b && a->m_high == high && b->m_high == high && a->us > 0 && b->us > 0) part.ratio = b->us / a->us;
    diff->parts[diff->count++] = part;
    diff->kinds[part.kind]++;
    return 0;
}

/* A row, part by part, beside what the other table has at the same m. `swapped`: the row is b's, and only what a lacks
 * is new. */
static int add_row(struct diff *diff, const struct tile_row *row, const struct tile_table *others, bool swapped) {
    for (long m = row->m_low, high; m <= row->m_high; m = high + 1) {
        const struct tile_row *other = find_from(others, row, m);
        bool beside = other && other->m_low <= m;
        high = other ? (beside ? other->m_high : other->m_low - 1) : row->m_high;
        if (high > row->m_high) high = row->m_high;
        if (swapped ? !beside && add_part(diff, NULL, row, m, high)
                    : add_part(diff, row, beside ? other : NULL, m, high))
            return -1;
    }
    return 0;
}

static double distance(const struct diff_part *part) {
    return fabs(log(part->ratio));
}

static void summarize(struct diff *diff) {
    double sum = 0;
    for (int i = 0; i < diff->count; i++) {
        const struct diff_part *part = &diff->parts[i];
        if (!(part->ratio > 0)) continue;
        diff->compared++;
        sum += log(part->ratio);
        if (!diff->most || distance(part) > distance(diff->most)) diff->most = part;
    }
    diff->ratio = diff->compared ? exp(sum / diff->compared) : 1;
}

int diff_tables(const struct tile_table *a, const struct tile_table *b, struct diff *diff) {
    int status = 0;
    *diff = (struct diff){.parts = NULL};
    for (size_t r = 0; r < a->count && !status; r++) status = add_row(diff, &a->rows[r], b, false);
    for (size_t r = 0; r < b->count && !status; r++) status = add_row(diff, &b->rows[r], a, true);
    summarize(diff);
    return status;
}

static bool apart(const struct diff_part *part, double margin) {
    return part->ratio > 0 && distance(part) > log1p(margin);
}

bool diff_agree(const struct diff *diff, double margin) {
    if (diff->kinds[DIFF_OTHER] || diff->kinds[DIFF_ONLY_A] || diff->kinds[DIFF_ONLY_B]) return false;
    return !diff->most || !apart(diff->most, margin);
}

static void print_row(const struct tile_row *row, FILE *stream) {
    if (row)
        fprintf(stream, "%s %s, %.2f us at m=%ld", row->kernel, row->configuration, row->us, row->m_high);
    else
        fputs("no row", stream);
}

void diff_print(const struct diff *diff, double margin, FILE *stream) {
    static const char *const kinds[DIFF_KINDS] = {"same", "tie", "border", "other", "only in A", "only in B"};
    for (int i = 0; i < diff->count; i++) {
        const struct diff_part *part = &diff->parts[i];
        const struct tile_row *row = part->a ? part->a : part->b;
        if (part->kind == DIFF_SAME && !apart(part, margin)) continue;
        fprintf(stream, "%s %ld %ld %ld m %ld-%ld: %s", row->op, row->k, row->n, row->group, part->m_low, part->m_high,
                kinds[part->kind]);
        if (part->ratio > 0) fprintf(stream, ", B takes %.3f of A's time", part->ratio);
        fputs("\n  A ", stream);
        print_row(part->a, stream);
        fputs("\n  B ", stream);
        print_row(part->b, stream);
        fputc('\n', stream);
    }
}

void diff_free(struct diff *diff) {
    free(diff->parts);
    *diff = (struct diff){.parts = NULL};
}
