/* `tilebook compare`: which of two is faster, row by row and over all. A is the baseline, ratios are B's time over
 * A's, and a difference that is not beyond doubt and not beyond the floor is a tie. */
#ifndef TILEBOOK_COMPARE_H
#define TILEBOOK_COMPARE_H

#include <signal.h>
#include <stdio.h>

#include "bench/sweep.h"

enum verdict { VERDICT_TIE, VERDICT_FASTER, VERDICT_SLOWER }; /* B is */
enum compare_format { FORMAT_TEXT, FORMAT_CSV, FORMAT_MARKDOWN, FORMAT_JSON };

/* What decided a row: a test on all samples; p20..p80 of each, which must not overlap; the ratios of interleaved
 * rounds. */
enum compare_basis { BASIS_SAMPLES, BASIS_QUANTILES, BASIS_ROUNDS };

struct compare_side {
    double us, p20_us, p80_us; /* of all samples; of the medians of all rounds */
    int samples;               /* or rounds */
};

struct compare_row {
    char *name;
    struct compare_side a, b;
    enum compare_basis basis;
    double ratio;
    double low, high; /* rounds: its 95% interval; else 0 */
    double p;         /* samples: of the test; else 0 */
    double noise;     /* rounds: what A against itself may differ by, as a share; else 0 */
    enum verdict verdict;
};

/* What is not in both, or failed. */
struct compare_missing {
    char *name, *why;
    bool worse; /* A has it and B failed, or it could not be measured */
};

/* The geometric mean of the ratios; low and high are its 95% interval, 0 for one row. */
struct compare_total {
    double ratio, low, high;
    enum verdict verdict;
};

struct compare {
    double margin; /* least share that is a difference */
    int count, missing_count;
    struct compare_row *rows;
    struct compare_missing *missing;
    struct compare_total total;
};

/* Results of `tilebook sweep --benchmark_out=FILE`. What differs between them is said on `words`; of two devices only
 * with `force`. -1 also if no row is in both. For compare_free, also after an error. */
int compare_files(const char *a, const char *b, double margin, bool force, FILE *words, struct compare *compare,
                  struct error *error);

/* Points of two sweeps on one device with the same problems, one of each to a row, measured against each other: each
 * round measures A, A again and B in random order. Ends early when *stop is not 0. Warnings go to a->words. */
int compare_arms(struct sweep *a, struct sweep *b, int rounds, double margin, const volatile sig_atomic_t *stop,
                 struct compare *compare, struct error *error);

void compare_free(struct compare *compare);

/* True if B is slower in a row, or worse in what is missing. */
bool compare_regressed(const struct compare *compare);
int compare_format_parse(const char *text, enum compare_format *format, struct error *error);
/* `a` and `b` say what the two are. */
int compare_write(FILE *file, const struct compare *compare, enum compare_format format, const char *a, const char *b,
                  struct error *error);

/* --- the statistics alone --- */

/* Slower where ratio > 1 + floor, faster where 1 / ratio > 1 + floor, so that exchanging A and B exchanges the two. */
enum verdict compare_verdict(double ratio, double floor);

/* Two-sided p of Mann and Whitney's U: do the values of one tend to exceed the other's? The normal approximation with
 * corrections for ties and continuity, as scipy has it. Sorts both. */
double compare_mann_whitney(float *a, int a_count, float *b, int b_count);

/* With Student's t on the logarithms: the rows are taken as a sample of what could have been compared. A verdict needs
 * an interval that excludes 1; one row's is its own, which the caller sets. count >= 1. */
struct compare_total compare_geometric_mean(const double *ratios, int count, double margin);

/* Fills all but the name from the medians of each round in which the arms were A, A again and B. The ratio is the
 * median over rounds of B against the geometric mean of both A; the interval is that of the median. The noise is the
 * far end of the same interval for A against A. The verdict needs an interval that excludes 1 and a ratio beyond margin
 * and noise. -1 below six rounds. */
int compare_rounds(const float *a, const float *again, const float *b, int rounds, double margin,
                   struct compare_row *row, struct error *error);

/* Both grow by one, zeroed but for the copied texts; NULL without memory. */
struct compare_row *compare_add_row(struct compare *compare, const char *name);
struct compare_missing *compare_add_missing(struct compare *compare, const char *name, const char *why);
/* Sets the total from the rows. */
int compare_finish(struct compare *compare, struct error *error);

#endif
