#include "plots/csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int split(char *line, char *fields[CSV_FIELDS]) {
    int count = 0;
    line[strcspn(line, "\r\n")] = 0;
    while (line && count < CSV_FIELDS) fields[count++] = strsep(&line, ",");
    return count;
}

/* Which field of a line holds each column; the number of fields, or -1. */
static int read_header(char *line, const char *const columns[], int count, int place[], struct error *error) {
    char *fields[CSV_FIELDS];
    int found = split(line, fields);
    for (int c = 0; c < count; c++) {
        place[c] = -1;
        for (int f = 0; f < found; f++)
            if (!strcmp(fields[f], columns[c])) place[c] = f;
        if (place[c] < 0) return error_set(error, "the header has no column '%s'", columns[c]);
    }
    return found;
}

/* *line_number is where it stopped. */
static int read_lines(FILE *file, const char *const columns[], int count, csv_row *row, void *data, int *line_number,
                      struct error *error) {
    char *line = NULL, *fields[CSV_FIELDS], *wanted[CSV_FIELDS];
    size_t size = 0;
    int place[CSV_FIELDS], width = 0, status = 0;
    while (!status && getline(&line, &size, file) > 0) {
        if (++*line_number == 1) {
            width = read_header(line, columns, count, place, error);
            status = width < 0 ? -1 : 0;
            continue;
        }
        int found = split(line, fields);
        if (found != width) {
            status = error_set(error, "%d columns; the header has %d", found, width);
            break;
        }
        for (int c = 0; c < count; c++) wanted[c] = fields[place[c]];
        status = row(data, wanted, error);
    }
    free(line);
    return status;
}

int csv_read(const char *path, const char *const columns[], int count, csv_row *row, void *data, struct error *error) {
    FILE *file = fopen(path, "r");
    if (!file) return error_set(error, "%s: %s", path, strerror(errno));
    int line = 0, status = read_lines(file, columns, count, row, data, &line, error);
    fclose(file);
    return status ? error_prefix(error, "%s:%d", path, line) : 0;
}

int csv_whole(const char *text, const char *column, int *value, struct error *error) {
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (end == text || *end || errno || number < 0 || number > 0x7fffffff)
        return error_set(error, "%s is '%.40s', not a whole number", column, text);
    *value = (int)number;
    return 0;
}

int csv_text(const char *text, const char *column, char *value, size_t size, struct error *error) {
    if (!*text || strlen(text) >= size)
        return error_set(error, "%s has %zu characters; 1 to %zu are possible", column, strlen(text), size - 1);
    memcpy(value, text, strlen(text) + 1);
    return 0;
}

int csv_positive(const char *text, const char *column, bool optional, double *value, struct error *error) {
    char *end;
    *value = strtod(text, &end);
    if ((optional && !*text) || (!*end && *value > 0 && isfinite(*value))) return 0;
    return error_set(error, "%s is '%.40s', not a positive number", column, text);
}
