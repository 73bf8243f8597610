#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plots/data.h"

int figure_missing(struct error *error, const char *what) {
    error_set(error, "%s", what);
    return 1;
}

FILE *data_open(const char *directory, const char *name, int number, struct error *error) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s-%d.dat", directory, name, number);
    FILE *file = fopen(path, "w");
    if (!file) error_set(error, "%s: %s", path, strerror(errno));
    return file;
}

int data_close(FILE *file, const char *name, struct error *error) {
    bool bad = ferror(file);
    bad |= fclose(file) != 0;
    if (bad) return error_set(error, "writing the data of %s: %s", name, strerror(errno));
    return 0;
}

/* Names come from result files: quotes and control characters must not end the string. */
void data_text(FILE *file, const char *text) {
    fputc('"', file);
    for (; *text; text++) fputc(*text == '"' || *text == '\\' || (unsigned char)*text < ' ' ? '\'' : *text, file);
    fputs("\" ", file);
}

void data_header(FILE *file, const char *panel, const char *line) {
    data_text(file, panel);
    data_text(file, line);
    fputc('\n', file);
}

void data_band(FILE *file, int m, double value, double one, double other) {
    fprintf(file, "%d %.6g %.6g %.6g\n", m, value, fmin(one, other), fmax(one, other));
}

void data_none(FILE *file) {
    fputs("NaN NaN NaN NaN\n", file);
}
