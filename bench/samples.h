/* Every sample of a sweep, beside its JSON: a text file with a line a row,
 *     NAME CLOCK CALLS N V1 ... VN
 * separated by single spaces. Vi is the i-th sample in whole nanoseconds and covers CALLS calls, so that one call took
 * Vi / CALLS: no clock here is finer. Repetitions are lines of the same name. The first line is SAMPLES_HEADER. */
#ifndef TILEBOOK_SAMPLES_H
#define TILEBOOK_SAMPLES_H

#include <stdio.h>

#include "bench/measure.h"

#define SAMPLES_HEADER "# tilebook samples 1: name clock calls n, then n samples in ns"
#define SAMPLES_SUFFIX ".samples" /* behind the name of the JSON file */

enum { SAMPLES_NAME = 512, SAMPLES_CLOCK = 16, SAMPLES_MOST = 1000000 };

struct samples_row {
    char *name, *clock;
    int count;
    float *us; /* of one call, in the order they were taken */
};

struct samples {
    int count;
    struct samples_row *rows;
};

/* The name of the file that belongs to the JSON file `json`; -1 if it does not fit into `size` bytes. */
int samples_path(const char *json, char *path, size_t size, struct error *error);
/* Errors are left to ferror. The name and the clock have no spaces. */
void samples_put(FILE *file, const char *name, const struct measurement *measurement);
/* All or nothing. Errors name the line. For samples_free, also after an error. */
int samples_read(const char *path, struct samples *samples, struct error *error);
void samples_free(struct samples *samples);

#endif
