#include "bench/samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/lines.h"

int samples_path(const char *json, char *path, size_t size, struct error *error) {
    if ((size_t)snprintf(path, size, "%s" SAMPLES_SUFFIX, json) < size) return 0;
    return error_set(error, "the name of the file is too long: %s" SAMPLES_SUFFIX, json);
}

void samples_put(FILE *file, const char *name, const struct measurement *m) {
    fprintf(file, "%s %s %d %d", name, m->clock, m->calls, m->samples);
    for (int i = 0; i < m->samples; i++) fprintf(file, " %lld", llround(m->sample_us[i] * 1e3 * m->calls));
    fputc('\n', file);
}

/* --- reading --- */

/* The next word of at most `most` characters, ended in place; NULL if there is none, or a longer one. */
static char *next_word(char **cursor, size_t most) {
    char *word = *cursor;
    size_t length = strcspn(word, " ");
    if (!length || length > most) return NULL;
    *cursor += length;
    if (**cursor) *(*cursor)++ = 0;
    return word;
}

/* A whole number from 1 to `most`: digits alone. -1 otherwise. */
static long long next_number(char **cursor, long long most) {
    long long value = 0;
    const char *word = next_word(cursor, 15);
    if (!word || strspn(word, "0123456789") != strlen(word)) return -1;
    for (; *word; word++) value = 10 * value + (*word - '0');
    return value >= 1 && value <= most ? value : -1;
}

/* NULL, or what is wrong. The line loses its spaces. */
static const char *read_row(char *line, struct samples_row *row) {
    char *cursor = line, *name = next_word(&cursor, SAMPLES_NAME - 1), *clock = next_word(&cursor, SAMPLES_CLOCK - 1);
    if (!name || !clock) return "expected NAME CLOCK CALLS N and N samples, separated by single spaces";
    long long calls = next_number(&cursor, 1000000), count = next_number(&cursor, SAMPLES_MOST);
    if (calls < 0 || count < 0) return "calls and the number of samples are from 1 to 1000000";
    /* Before memory is taken for it: a sample is a digit and a space at least. */
    if (strlen(cursor) < 2 * (size_t)count - 1) return "it has fewer samples than it says";
    *row = (struct samples_row){strdup(name), strdup(clock), (int)count, calloc((size_t)count, sizeof *row->us)};
    if (!row->name || !row->clock || !row->us) return "out of memory";
    for (int i = 0; i < row->count; i++) {
        long long ns = next_number(&cursor, 999999999999999);
        if (ns < 0) return "a sample is not a whole number of nanoseconds, or there are fewer than it says";
        row->us[i] = (float)((double)ns / 1e3 / (double)calls);
    }
    return *cursor ? "it has more samples than it says" : NULL;
}

static struct samples_row *add_row(struct samples *samples) {
    if (!(samples->count & (samples->count - 1))) {
        size_t room = samples->count ? 2 * (size_t)samples->count : 1;
        struct samples_row *rows = realloc(samples->rows, room * sizeof *rows);
        if (!rows) return NULL;
        samples->rows = rows;
    }
    struct samples_row *row = &samples->rows[samples->count++];
    *row = (struct samples_row){.count = 0};
    return row;
}

static const char *take_line(void *samples, char *line) {
    struct samples_row *row = add_row(samples);
    return row ? read_row(line, row) : "out of memory";
}

int samples_read(const char *path, struct samples *samples, struct error *error) {
    *samples = (struct samples){.count = 0};
    return lines_read(path, SAMPLES_HEADER, take_line, samples, error);
}

void samples_free(struct samples *samples) {
    for (int i = 0; i < samples->count; i++) {
        free(samples->rows[i].name);
        free(samples->rows[i].clock);
        free(samples->rows[i].us);
    }
    free(samples->rows);
    *samples = (struct samples){.count = 0};
}
