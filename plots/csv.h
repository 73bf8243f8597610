/* Reads comma-separated files with a header: plain fields, no quotes. */
#ifndef TILEBOOK_PLOTS_CSV_H
#define TILEBOOK_PLOTS_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"

enum { CSV_FIELDS = 64 };

/* Takes a line's fields, in the order of the columns that were asked for. */
typedef int csv_row(void *data, char *const fields[], struct error *error);

/* Calls `row` for every line behind the header, which must name `count` columns, in any order and among others. Errors
 * name the file and the line. */
int csv_read(const char *path, const char *const columns[], int count, csv_row *row, void *data, struct error *error);

/* A whole number from 0. */
int csv_whole(const char *text, const char *column, int *value, struct error *error);
/* 1 to size - 1 characters. */
int csv_text(const char *text, const char *column, char *value, size_t size, struct error *error);
/* Positive; with `optional` an empty field is 0. */
int csv_positive(const char *text, const char *column, bool optional, double *value, struct error *error);

#endif
