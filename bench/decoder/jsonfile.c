#include "bench/decoder/jsonfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int jsonfile_path(const char *directory, const char *name, char path[PATH_MAX], struct error *error) {
    if (snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX) return 0;
    return error_set(error, "%.200s...: the path is longer than %d bytes", directory, PATH_MAX);
}

bool jsonfile_exists(const char *directory, const char *name) {
    char path[PATH_MAX];
    return !jsonfile_path(directory, name, path, NULL) && !access(path, F_OK);
}

/* The whole file; NULL on error. */
static char *read_all(int fd, const char *path, size_t limit, size_t *bytes, struct error *error) {
    struct stat status;
    if (fstat(fd, &status) || !S_ISREG(status.st_mode)) {
        error_set(error, "%s: not a plain file", path);
        return NULL;
    }
    if (status.st_size <= 0 || (uint64_t)status.st_size > limit) {
        error_set(error, "%s: %lld bytes; accepted: 1 to %zu", path, (long long)status.st_size, limit);
        return NULL;
    }
    char *text = malloc((size_t)status.st_size);
    ssize_t got = 0;
    *bytes = 0;
    while (text && *bytes < (size_t)status.st_size &&
           (got = read(fd, text + *bytes, (size_t)status.st_size - *bytes)) > 0)
        *bytes += (size_t)got;
    if (text && got >= 0) return text;
    error_set(error, "%s: %s", path, text ? strerror(errno) : "out of memory");
    free(text);
    return NULL;
}

int jsonfile_read(const char *directory, const char *name, size_t limit, struct jsonfile *file, struct error *error) {
    file->root = NULL;
    if (jsonfile_path(directory, name, file->path, error)) return -1;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return error_set(error, "%s: %s", file->path, strerror(errno));
    size_t bytes;
    char *text = read_all(fd, file->path, limit, &bytes, error);
    close(fd);
    if (!text) return -1;
    json_error_t where;
    file->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (!file->root)
        return error_set(error, "%s: line %d, column %d: not JSON: %s", file->path, where.line, where.column,
                         where.text);
    if (json_is_object(file->root)) return 0;
    jsonfile_close(file);
    return error_set(error, "%s: not a JSON object", file->path);
}

void jsonfile_close(struct jsonfile *file) {
    json_decref(file->root);
    file->root = NULL;
}

int jsonfile_refuse(const struct jsonfile *file, const char *field, const json_t *value, struct error *error,
                    const char *accepted, ...) {
    char what[256];
    va_list arguments;
    va_start(arguments, accepted);
    vsnprintf(what, sizeof what, accepted, arguments);
    va_end(arguments);
    char *found = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    error_set(error, "%.300s: %.64s: found %.80s%s; accepted: %s", file->path, field, found ? found : "nothing",
              found && strlen(found) > 80 ? "..." : "", what);
    free(found);
    return -1;
}

/* The field, or NULL where it is absent or null; *status is -1 if it had to be there. */
static const json_t *find(const struct jsonfile *file, const json_t *object, const char *field, bool required,
                          const char *accepted, int *status, struct error *error) {
    const json_t *value = json_object_get(object, field);
    *status = 0;
    if (value && !json_is_null(value)) return value;
    if (required) *status = jsonfile_refuse(file, field, value, error, "%s", accepted);
    return NULL;
}

int jsonfile_integer(const struct jsonfile *file, const json_t *object, const char *field, bool required, int low,
                     int high, int *value, struct error *error) {
    int status;
    const json_t *found = find(file, object, field, required, "an integer", &status, error);
    if (!found) return status;
    json_int_t number = json_integer_value(found);
    if (!json_is_integer(found) || number < low || number > high)
        return jsonfile_refuse(file, field, found, error, "an integer from %d to %d", low, high);
    *value = (int)number;
    return 0;
}

int jsonfile_number(const struct jsonfile *file, const json_t *object, const char *field, bool required, double low,
                    double high, double *value, struct error *error) {
    int status;
    const json_t *found = find(file, object, field, required, "a number", &status, error);
    if (!found) return status;
    double number = json_number_value(found);
    if (!json_is_number(found) || !(number >= low && number <= high))
        return jsonfile_refuse(file, field, found, error, "a number from %g to %g", low, high);
    *value = number;
    return 0;
}

int jsonfile_bool(const struct jsonfile *file, const json_t *object, const char *field, bool required, bool *value,
                  struct error *error) {
    int status;
    const json_t *found = find(file, object, field, required, "true or false", &status, error);
    if (!found) return status;
    if (!json_is_boolean(found)) return jsonfile_refuse(file, field, found, error, "true or false");
    *value = json_is_true(found);
    return 0;
}

int jsonfile_string(const struct jsonfile *file, const json_t *object, const char *field, bool required,
                    const char **value, struct error *error) {
    int status;
    const json_t *found = find(file, object, field, required, "a string", &status, error);
    if (!found) return status;
    if (!json_is_string(found)) return jsonfile_refuse(file, field, found, error, "a string");
    *value = json_string_value(found);
    return 0;
}
