/* `tilebook compare A B`: two files of results, with their samples where those lie beside them. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/cbench.h"
#include "bench/compare.h"
#include "bench/samples.h"

enum { MOST_EXPECTED = 1000000000 }; /* and SAMPLES_MOST more are still an int */

static const double alpha = 0.05;

/* A row, its repetitions taken together. */
struct point {
    char name[SAMPLES_NAME], clock[SAMPLES_CLOCK];
    bool failed;
    int repetitions, expected; /* expected: samples, as the JSON counts them */
    double us, p20_us, p80_us; /* mean of the medians, least and greatest */
    float *sample_us;          /* of all repetitions, or NULL */
    int samples;
};

struct results {
    const char *path;
    json_t *root, *index; /* index: name -> number of the point */
    struct point *points;
    int count, throttled; /* throttled: entries, of an impaired card */
};

static void results_free(struct results *results) {
    for (int i = 0; i < results->count; i++) free(results->points[i].sample_us);
    free(results->points);
    json_decref(results->index);
    json_decref(results->root);
}

static struct point *find_point(const struct results *results, const char *name) {
    const json_t *number = json_object_get(results->index, name);
    return number ? &results->points[json_integer_value(number)] : NULL;
}

static const char *context_of(const struct results *results, const char *key) {
    const char *text = json_string_value(json_object_get(json_object_get(results->root, "context"), key));
    return text ? text : "";
}

/* --- reading the JSON --- */

/* The point of this name, made if need be; NULL without memory. `points` has room for every entry. */
static struct point *get_point(struct results *results, const char *name) {
    struct point *point = find_point(results, name);
    if (point) return point;
    if (json_object_set_new(results->index, name, json_integer(results->count))) return NULL;
    point = &results->points[results->count++];
    snprintf(point->name, sizeof point->name, "%s", name);
    return point;
}

static int add_figures(struct results *results, struct point *point, const json_t *entry, struct error *error) {
    double us = json_number_value(json_object_get(entry, "us"));
    double p20 = json_number_value(json_object_get(entry, "p20_us"));
    double p80 = json_number_value(json_object_get(entry, "p80_us"));
    double samples = json_number_value(json_object_get(entry, "samples"));
    const char *label = json_string_value(json_object_get(entry, "label"));
    const char *clock = label ? strstr(label, "clock=") : NULL;
    if (!(p20 > 0 && p20 <= us && us <= p80 && p80 < 1e12 && samples >= 1 && samples <= SAMPLES_MOST))
        return error_set(
            error, "row %s: expected 0 < p20_us <= us <= p80_us and samples from 1 to %d, found %g, %g, %g and %g",
            point->name, SAMPLES_MOST, p20, us, p80, samples);
    if (point->expected > MOST_EXPECTED) return error_set(error, "row %s: too many repetitions", point->name);
    point->us = (point->us * point->repetitions + us) / (point->repetitions + 1);
    point->p20_us = point->repetitions ? fmin(point->p20_us, p20) : p20;
    point->p80_us = fmax(point->p80_us, p80);
    point->expected += (int)samples;
    point->repetitions++;
    results->throttled += json_number_value(json_object_get(entry, "throttled")) > 0;
    if (clock) snprintf(point->clock, sizeof point->clock, "%.*s", (int)strcspn(clock + 6, " "), clock + 6);
    return 0;
}

static int add_entry(struct results *results, const json_t *entry, struct error *error) {
    const char *full = json_string_value(json_object_get(entry, "name"));
    const char *type = json_string_value(json_object_get(entry, "run_type"));
    char name[SAMPLES_NAME];
    if (!full || !type) return error_set(error, "an entry of \"benchmarks\" has no \"name\" or no \"run_type\"");
    if (strcmp(type, "iteration")) return 0;
    const char *end = strstr(full, CBENCH_ENDING);
    int length = end ? (int)(end - full) : (int)strnlen(full, SAMPLES_NAME);
    if (length >= SAMPLES_NAME) return error_set(error, "a name is longer than %d characters", SAMPLES_NAME - 1);
    snprintf(name, sizeof name, "%.*s", length, full);
    struct point *point = get_point(results, name);
    if (!point) return error_set(error, "out of memory, or a name that is not UTF-8");
    if (!json_is_true(json_object_get(entry, "error_occurred"))) return add_figures(results, point, entry, error);
    point->failed = true;
    return 0;
}

static int read_json(struct results *results, struct error *error) {
    json_error_t json;
    results->root = json_load_file(results->path, 0, &json);
    if (!results->root) return error_set(error, "line %d: %s", json.line, json.text);
    const json_t *list = json_object_get(results->root, "benchmarks"), *entry;
    if (!*context_of(results, "device") || !json_is_array(list))
        return error_set(error,
                         "it is not a result of `tilebook sweep --benchmark_out=FILE`: it lacks \"benchmarks\" or "
                         "the context's \"device\"");
    results->index = json_object();
    results->points = calloc(json_array_size(list) + 1, sizeof *results->points);
    if (!results->points || !results->index) return error_set(error, "out of memory");
    size_t i;
    json_array_foreach(list, i, entry) if (add_entry(results, entry, error)) return -1;
    if (!results->count) return error_set(error, "it has no rows (aggregates alone are none)");
    return 0;
}

/* --- reading the samples --- */

static int append(struct point *point, const struct samples_row *row, struct error *error) {
    size_t count = (size_t)point->samples + (size_t)row->count;
    if (count > (size_t)point->expected)
        return error_set(error, "row %s: more samples than the %d of the JSON", point->name, point->expected);
    float *all = realloc(point->sample_us, count * sizeof *all);
    if (!all) return error_set(error, "out of memory");
    memcpy(all + point->samples, row->us, (size_t)row->count * sizeof *all);
    point->sample_us = all;
    point->samples = (int)count;
    return 0;
}

/* A file of samples that another run wrote must not decide anything. */
static int check_samples(const struct point *point, struct error *error) {
    if (!point->samples) return 0;
    if (point->samples != point->expected)
        return error_set(error, "row %s: %d samples, %d in the JSON", point->name, point->samples, point->expected);
    double median = measure_median(point->sample_us, point->samples);
    if (median >= 0.999 * point->p20_us - 0.001 && median <= 1.001 * point->p80_us + 0.001) return 0;
    return error_set(error, "row %s: their median is %.4f us, and not between p20_us and p80_us of the JSON",
                     point->name, median);
}

static int take_samples(struct results *results, const struct samples *samples, struct error *error) {
    for (int i = 0; i < samples->count; i++) {
        struct point *point = find_point(results, samples->rows[i].name);
        if (point && append(point, &samples->rows[i], error)) return -1;
    }
    for (int i = 0; i < results->count; i++) {
        struct point *point = &results->points[i];
        if (point->samples) measure_sort(point->sample_us, point->samples);
        if (check_samples(point, error)) return -1;
    }
    return 0;
}

static int read_samples(struct results *results, FILE *words, struct error *error) {
    char path[4096];
    struct samples samples;
    if (samples_path(results->path, path, sizeof path, error)) return -1;
    if (access(path, F_OK)) {
        fprintf(words, "%s has no samples beside it (%s): p20 to p80 decide\n", results->path, path);
        return 0;
    }
    int result = samples_read(path, &samples, error);
    if (!result && (result = take_samples(results, &samples, error)))
        error_prefix(error, "%s does not belong to %s; remove it to compare without samples", path, results->path);
    samples_free(&samples);
    return result;
}

static int results_read(const char *path, struct results *results, FILE *words, struct error *error) {
    *results = (struct results){.path = path};
    if (read_json(results, error)) return error_prefix(error, "%s", path);
    return read_samples(results, words, error);
}

/* --- what the two have in common --- */

static bool differs(const struct results *a, const struct results *b, const char *key, FILE *words) {
    const char *first = context_of(a, key), *second = context_of(b, key);
    if (!strcmp(first, second)) return false;
    fprintf(words, "the two differ in %s: A has '%s', B has '%s'\n", key, first, second);
    return true;
}

static int check_contexts(const struct results *a, const struct results *b, bool force, FILE *words,
                          struct error *error) {
    static const char *const of_device[] = {"device", "architecture", "multiprocessors"};
    static const char *const others[] = {"uuid", "software", "cupti", "kernels", "launch",
                                         "pace", "cache",    "data",  "seed"};
    bool other_device = false;
    for (size_t i = 0; i < sizeof of_device / sizeof *of_device; i++)
        other_device |= differs(a, b, of_device[i], words);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) differs(a, b, others[i], words);
    if (a->throttled || b->throttled)
        fprintf(words, "rows measured on a throttled card: %d in A, %d in B\n", a->throttled, b->throttled);
    if (!other_device || force) return 0;
    return error_set(error, "%s and %s are of different devices; --force compares them all the same", a->path, b->path);
}

static struct compare_side side(const struct point *point, bool from_samples) {
    if (!from_samples) return (struct compare_side){point->us, point->p20_us, point->p80_us, point->expected};
    return (struct compare_side){.us = measure_median(point->sample_us, point->samples),
                                 .p20_us = measure_quantile(point->sample_us, point->samples, 0.2),
                                 .p80_us = measure_quantile(point->sample_us, point->samples, 0.8),
                                 .samples = point->samples};
}

static void decide(struct compare_row *row, struct point *a, struct point *b, double margin) {
    bool from_samples = a->samples && b->samples;
    row->a = side(a, from_samples);
    row->b = side(b, from_samples);
    row->basis = from_samples ? BASIS_SAMPLES : BASIS_QUANTILES;
    row->ratio = row->b.us / row->a.us;
    if (from_samples) row->p = compare_mann_whitney(a->sample_us, a->samples, b->sample_us, b->samples);
    bool apart = from_samples ? row->p < alpha : row->a.p80_us < row->b.p20_us || row->b.p80_us < row->a.p20_us;
    row->verdict = apart ? compare_verdict(row->ratio, margin) : VERDICT_TIE;
}

static int compare_points(struct compare *compare, struct point *a, struct point *b, int *clocks, struct error *error) {
    if (b && !a->failed && !b->failed) {
        struct compare_row *row = compare_add_row(compare, a->name);
        if (!row) return error_set(error, "out of memory");
        decide(row, a, b, compare->margin);
        *clocks += strcmp(a->clock, b->clock) != 0;
        return 0;
    }
    const char *why = !b ? "only in A" : !b->failed ? "failed in A" : a->failed ? "failed in both" : "failed in B";
    struct compare_missing *missing = compare_add_missing(compare, a->name, why);
    if (!missing) return error_set(error, "out of memory");
    missing->worse = b && b->failed && !a->failed;
    return 0;
}

static int compare_results(struct results *a, struct results *b, FILE *words, struct compare *compare,
                           struct error *error) {
    int clocks = 0;
    for (int i = 0; i < a->count; i++)
        if (compare_points(compare, &a->points[i], find_point(b, a->points[i].name), &clocks, error)) return -1;
    for (int i = 0; i < b->count; i++)
        if (!find_point(a, b->points[i].name) && !compare_add_missing(compare, b->points[i].name, "only in B"))
            return error_set(error, "out of memory");
    if (clocks) fprintf(words, "rows timed by different clocks in A and B: %d\n", clocks);
    if (!compare->count)
        return error_set(error, "no row is measured in both %s and %s: rows are the same if their names are", a->path,
                         b->path);
    return compare_finish(compare, error);
}

int compare_files(const char *path_a, const char *path_b, double margin, bool force, FILE *words,
                  struct compare *compare, struct error *error) {
    struct results a = {.path = path_a}, b = {.path = path_b};
    *compare = (struct compare){.margin = margin};
    int result = results_read(path_a, &a, words, error) || results_read(path_b, &b, words, error) ||
                 check_contexts(&a, &b, force, words, error) || compare_results(&a, &b, words, compare, error);
    results_free(&a);
    results_free(&b);
    return result ? -1 : 0;
}
