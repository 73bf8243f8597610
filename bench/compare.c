#include "bench/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- statistics --- */

enum verdict compare_verdict(double ratio, double floor) {
    return ratio > 1 + floor ? VERDICT_SLOWER : 1 / ratio > 1 + floor ? VERDICT_FASTER : VERDICT_TIE;
}

/* Equal values of one side from `from` on. */
static int run_length(const float *sorted, int count, int from, float value) {
    int end = from;
    while (end < count && sorted[end] == value) end++;
    return end - from;
}

double compare_mann_whitney(float *a, int a_count, float *b, int b_count) {
    double n = a_count, m = b_count, all = n + m, rank_sum = 0, ties = 0;
    measure_sort(a, a_count);
    measure_sort(b, b_count);
    for (int i = 0, j = 0; i < a_count || j < b_count;) {
        float value = j == b_count || (i < a_count && a[i] < b[j]) ? a[i] : b[j];
        double in_a = run_length(a, a_count, i, value), in_b = run_length(b, b_count, j, value), equal = in_a + in_b;
        rank_sum += in_a * ((double)i + j + (equal + 1) / 2);
        ties += equal * equal * equal - equal;
        i += (int)in_a;
        j += (int)in_b;
    }
    double off = fabs(rank_sum - n * (n + 1) / 2 - n * m / 2) - 0.5; /* U from its mean */
    double variance = n * m / 12 * (all + 1 - ties / (all * (all - 1)));
    return variance > 0 && off > 0 ? erfc(off / sqrt(2 * variance)) : 1;
}

/* The 97.5% quantile of Student's t; beyond the table within 0.1%. */
static double student(int freedom) {
    static const double table[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                   2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                                   2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    int known = sizeof table / sizeof *table;
    return freedom <= known ? table[freedom - 1] : 1.960 + 2.45 / freedom;
}

struct compare_total compare_geometric_mean(const double *ratios, int count, double margin) {
    double mean = 0, squares = 0;
    for (int i = 0; i < count; i++) mean += log(ratios[i]) / count;
    struct compare_total total = {.ratio = exp(mean)};
    if (count == 1) return total;
    for (int i = 0; i < count; i++) squares += pow(log(ratios[i]) - mean, 2);
    double half = student(count - 1) * sqrt(squares / (count - 1) / count);
    total.low = exp(mean - half);
    total.high = exp(mean + half);
    if (total.low > 1 || total.high < 1) total.verdict = compare_verdict(total.ratio, margin);
    return total;
}

static struct compare_side side_of(float *us, int count) {
    measure_sort(us, count);
    return (struct compare_side){.us = measure_median(us, count),
                                 .p20_us = measure_quantile(us, count, 0.2),
                                 .p80_us = measure_quantile(us, count, 0.8),
                                 .samples = count};
}

/* `work` has room for five times `rounds`. */
static void fill_rounds(const float *a, const float *again, const float *b, int rounds, double margin, float *work,
                        struct compare_row *row) {
    float *between = work, *within = work + rounds, *both = work + 2 * rounds, *other = work + 4 * rounds;
    int low, high;
    median_interval(rounds, &low, &high);
    for (int r = 0; r < rounds; r++) {
        between[r] = (float)log(b[r] / sqrt((double)a[r] * again[r]));
        within[r] = (float)log((double)again[r] / a[r]);
        both[r] = a[r];
        both[rounds + r] = again[r];
        other[r] = b[r];
    }
    measure_sort(between, rounds);
    measure_sort(within, rounds);
    row->a = side_of(both, 2 * rounds);
    row->b = side_of(other, rounds);
    row->a.samples = rounds;
    row->basis = BASIS_ROUNDS;
    row->ratio = exp(measure_median(between, rounds));
    row->low = exp(between[low]);
    row->high = exp(between[high]);
    row->noise = expm1(fmax(fabs(within[low]), fabs(within[high])));
    row->verdict = row->low > 1 || row->high < 1 ? compare_verdict(row->ratio, fmax(margin, row->noise)) : VERDICT_TIE;
}

int compare_rounds(const float *a, const float *again, const float *b, int rounds, double margin,
                   struct compare_row *row, struct error *error) {
    int low, high;
    if (median_interval(rounds, &low, &high)) return error_set(error, "%d rounds: at least 6 give an interval", rounds);
    float *work = calloc(5 * (size_t)rounds, sizeof *work);
    if (!work) return error_set(error, "out of memory");
    fill_rounds(a, again, b, rounds, margin, work, row);
    free(work);
    return 0;
}

/* --- the lists --- */

/* Room for one more, which doubles; the list itself if it is there already. */
static void *grow(void *list, int count, size_t size) {
    if (count & (count - 1)) return list;
    return realloc(list, (count ? 2 * (size_t)count : 1) * size);
}

struct compare_row *compare_add_row(struct compare *compare, const char *name) {
    char *copy = strdup(name);
    struct compare_row *rows = copy ? grow(compare->rows, compare->count, sizeof *rows) : NULL;
    if (!rows) {
        free(copy);
        return NULL;
    }
    compare->rows = rows;
    rows[compare->count] = (struct compare_row){.name = copy};
    return &rows[compare->count++];
}

struct compare_missing *compare_add_missing(struct compare *compare, const char *name, const char *why) {
    struct compare_missing *list = grow(compare->missing, compare->missing_count, sizeof *list);
    if (!list) return NULL;
    compare->missing = list;
    struct compare_missing *missing = &list[compare->missing_count++];
    *missing = (struct compare_missing){.name = strdup(name), .why = strdup(why)};
    return missing->name && missing->why ? missing : NULL;
}

int compare_finish(struct compare *compare, struct error *error) {
    if (!compare->count) return error_set(error, "there is no row to compare");
    double *ratios = calloc((size_t)compare->count, sizeof *ratios);
    if (!ratios) return error_set(error, "out of memory");
    for (int i = 0; i < compare->count; i++) ratios[i] = compare->rows[i].ratio;
    compare->total = compare_geometric_mean(ratios, compare->count, compare->margin);
    if (compare->count == 1) compare->total.verdict = compare->rows[0].verdict;
    free(ratios);
    return 0;
}

bool compare_regressed(const struct compare *compare) {
    for (int i = 0; i < compare->count; i++)
        if (compare->rows[i].verdict == VERDICT_SLOWER) return true;
    for (int i = 0; i < compare->missing_count; i++)
        if (compare->missing[i].worse) return true;
    return false;
}

void compare_free(struct compare *compare) {
    for (int i = 0; i < compare->count; i++) free(compare->rows[i].name);
    for (int i = 0; i < compare->missing_count; i++) {
        free(compare->missing[i].name);
        free(compare->missing[i].why);
    }
    free(compare->rows);
    free(compare->missing);
    *compare = (struct compare){.count = 0};
}
