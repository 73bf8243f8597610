/* JSON files of a model directory: read whole within a limit; errors name the file and the field. */
#ifndef TILEBOOK_DECODER_JSONFILE_H
#define TILEBOOK_DECODER_JSONFILE_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "kernels/error.h"

struct jsonfile {
    json_t *root;        /* an object */
    char path[PATH_MAX]; /* for messages */
};

/* "DIRECTORY/NAME" into path; -1 if that is too long. */
int jsonfile_path(const char *directory, const char *name, char path[PATH_MAX], struct error *error);
/* Whether directory/name can be opened. */
bool jsonfile_exists(const char *directory, const char *name);
/* Errors: not there, not a plain file, empty, larger than `limit` bytes, not JSON (line and column), not an object. */
int jsonfile_read(const char *directory, const char *name, size_t limit, struct jsonfile *file, struct error *error);
void jsonfile_close(struct jsonfile *file);

/* The fields of `object`, an object of this file. A missing or null field leaves *value as it is and is an
 * error only where `required`. The text's pointer lives as long as the file is open. */
int jsonfile_integer(const struct jsonfile *file, const json_t *object, const char *field, bool required, int low,
                     int high, int *value, struct error *error);
int jsonfile_number(const struct jsonfile *file, const json_t *object, const char *field, bool required, double low,
                    double high, double *value, struct error *error);
int jsonfile_bool(const struct jsonfile *file, const json_t *object, const char *field, bool required, bool *value,
                  struct error *error);
int jsonfile_string(const struct jsonfile *file, const json_t *object, const char *field, bool required,
                    const char **value, struct error *error);
/* "PATH: FIELD: found VALUE; accepted: ACCEPTED"; -1. The value is printed as JSON, cut when long. */
int jsonfile_refuse(const struct jsonfile *file, const char *field, const json_t *value, struct error *error,
                    const char *accepted, ...) __attribute__((format(printf, 5, 6)));

#endif
