/* Two tile tables beside each other: of two runs, or of before and after. */
#ifndef TILEBOOK_DIFF_H
#define TILEBOOK_DIFF_H

#include <stdbool.h>
#include <stdio.h>

#include "kernels/tiles.h"

enum diff_kind {
    DIFF_SAME,   /* kernel and configuration */
    DIFF_TIE,    /* others, and one of the rows counts ties */
    DIFF_BORDER, /* others, but for less than an eighth of m: borders are placed no finer */
    DIFF_OTHER,
    DIFF_ONLY_A, /* the other table has no row */
    DIFF_ONLY_B,
    DIFF_KINDS,
};

/* Neighbouring m for which each table has one row. */
struct diff_part {
    enum diff_kind kind;
    const struct tile_row *a, *b; /* NULL without */
    long m_low, m_high;
    double ratio; /* of b's time to a's where both rows end at m_high, which is where they were measured; else 0 */
};

struct diff {
    struct diff_part *parts; /* in a's order, then what only b has */
    int count, kinds[DIFF_KINDS];
    int compared;                 /* parts with a ratio */
    double ratio;                 /* their geometric mean; 1 without */
    const struct diff_part *most; /* the one whose ratio is furthest from 1; NULL without */
};

/* -1 without memory. The tables must outlive the parts. */
int diff_tables(const struct tile_table *a, const struct tile_table *b, struct diff *diff);
/* Whether they say the same, but for ties and borders, and no time differs by more than `margin`. */
bool diff_agree(const struct diff *diff, double margin);
/* A line for each part that is not the same or whose times differ by more than `margin`. */
void diff_print(const struct diff *diff, double margin, FILE *stream);
void diff_free(struct diff *diff);

#endif
