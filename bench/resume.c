#include "bench/resume.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/cbench.h"

enum { MOST_NAME = 512 };

struct resume {
    const char *path;
    char part[4096], fresh[4096]; /* fresh: what becomes the file */
    json_t *root;
    bool cut;         /* the file ends in the middle of it */
    json_t *measured; /* name -> its first row, or null if one of its rows failed */
};

/* --- reading, also what was cut off --- */

static char *read_text(const char *path, size_t *length, struct error *error) {
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    size_t room = 0;
    ssize_t found = file ? getdelim(&text, &room, EOF, file) : -1;
    bool failed = !file || ferror(file);
    if (failed) error_set(error, "%s: %s", path, strerror(errno));
    if (file) fclose(file);
    if (!failed && found >= 0) {
        *length = (size_t)found;
        return text;
    }
    if (!failed) error_set(error, "%s: the file is empty", path);
    free(text);
    return NULL;
}

/* Ends the text behind its last whole row, or before the first one. NULL if it has no list of rows. */
static json_t *parse_cut(char *text) {
    static const char list[] = "\"benchmarks\": [", row[] = "\n    }", ending[] = "]}";
    char *begin = strstr(text, list), *end = begin ? begin + strlen(list) : NULL;
    for (char *next = end; next && (next = strstr(next, row));) end = next += strlen(row);
    if (!end) return NULL;
    size_t length = (size_t)(end - text);
    char *whole = malloc(length + sizeof ending);
    if (!whole) return NULL;
    memcpy(whole, text, length);
    memcpy(whole + length, ending, sizeof ending);
    json_t *root = json_loads(whole, 0, NULL);
    free(whole);
    return root;
}

/* A row has a name and a kind, and a sweep's file says its device. */
static bool is_sweep(const json_t *root) {
    const json_t *list = json_object_get(root, "benchmarks"), *row;
    size_t i;
    if (!json_is_array(list) || !json_is_string(json_object_get(json_object_get(root, "context"), "device")))
        return false;
    json_array_foreach(list, i, row) {
        if (!json_is_string(json_object_get(row, "name")) || !json_is_string(json_object_get(row, "run_type")))
            return false;
    }
    return true;
}

static json_t *load(const char *path, bool *cut, struct error *error) {
    json_error_t json;
    size_t length;
    char *text = read_text(path, &length, error);
    if (!text) return NULL;
    json_t *root = json_loadb(text, length, 0, &json);
    *cut = !root;
    if (*cut) root = parse_cut(text);
    free(text);
    if (!root)
        error_set(error, "%s, line %d: %s; remove it, or name another file", path, json.line, json.text);
    else if (!is_sweep(root))
        error_set(error, "%s is not the JSON of a sweep; remove it, or name another file", path);
    else
        return root;
    json_decref(root);
    return NULL;
}

/* --- rows --- */

/* As the sweep names its points. */
static const char *row_name(const json_t *row, char name[MOST_NAME]) {
    const char *full = json_string_value(json_object_get(row, "name")), *end = strstr(full, CBENCH_ENDING);
    snprintf(name, MOST_NAME, "%.*s", end ? (int)(end - full) : (int)strlen(full), full);
    return name;
}

static bool is_run(const json_t *row) {
    return !strcmp(json_string_value(json_object_get(row, "run_type")), "iteration");
}

/* One repetition that failed, and the point is not measured. */
static int index_rows(struct resume *resume, struct error *error) {
    json_t *row;
    size_t i;
    char name[MOST_NAME];
    json_decref(resume->measured);
    resume->measured = json_object();
    json_array_foreach(json_object_get(resume->root, "benchmarks"), i, row) {
        bool failed = json_is_true(json_object_get(row, "error_occurred"));
        if (!is_run(row)) continue;
        if (!failed && json_object_get(resume->measured, row_name(row, name))) continue;
        if (json_object_set_new(resume->measured, row_name(row, name), failed ? json_null() : json_incref(row)))
            return error_set(error, "%s: out of memory", resume->path);
    }
    return 0;
}

static const json_t *find_row(const struct resume *resume, const char *name) {
    const json_t *row = json_object_get(resume->measured, name);
    return json_is_object(row) ? row : NULL;
}

bool resume_has(const struct resume *resume, const char *name) {
    return find_row(resume, name) != NULL;
}

void resume_forget(struct resume *resume, const char *name) {
    json_object_del(resume->measured, name);
}

double resume_counter(const struct resume *resume, const char *name, const char *counter) {
    return json_number_value(json_object_get(find_row(resume, name), counter));
}

/* --- the part into the file --- */

/* All rows of the file whose names are not the part's, then the part's. */
static json_t *join_rows(const json_t *old, const json_t *new) {
    json_t *all = json_array(), *names = json_object(), *row;
    bool failed = !all || !names;
    char name[MOST_NAME];
    size_t i;
    json_array_foreach(new, i, row) failed |= json_object_set_new(names, row_name(row, name), json_true()) != 0;
    json_array_foreach(old, i, row) {
        if (!json_object_get(names, row_name(row, name))) failed |= json_array_append(all, row) != 0;
    }
    failed |= json_array_extend(all, (json_t *)new) != 0;
    json_decref(names);
    if (!failed) return all;
    json_decref(all);
    return NULL;
}

/* Google Benchmark counts families from 0 in every file. */
static void number_families(json_t *rows) {
    const char *last = "";
    json_int_t family = -1;
    json_t *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        const char *name = json_string_value(json_object_get(row, "run_name"));
        if (!name) continue;
        family += strcmp(name, last) != 0;
        last = name;
        json_object_set_new(row, "family_index", json_integer(family));
    }
}

/* When the file was gone on with, behind when that had been done before. */
static void note_date(json_t *context, const json_t *part) {
    const char *before = json_string_value(json_object_get(context, "resumed"));
    const char *date = json_string_value(json_object_get(json_object_get(part, "context"), "date"));
    if (date)
        json_object_set_new(context, "resumed", json_sprintf("%s%s%s", before ? before : "", before ? ", " : "", date));
}

static int replace_file(struct resume *resume, struct error *error) {
    FILE *file = fopen(resume->fresh, "w");
    bool failed = !file || json_dumpf(resume->root, file, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) ||
                  fputc('\n', file) == EOF || fflush(file) || fsync(fileno(file));
    int cause = errno;
    if (file) failed |= fclose(file) != 0;
    if (!failed && !rename(resume->fresh, resume->path)) {
        resume->cut = false;
        return 0;
    }
    if (!failed) cause = errno;
    unlink(resume->fresh);
    return error_set(error, "%s: %s; what is measured is kept, and the same command goes on with it", resume->path,
                     strerror(cause));
}

/* An empty part is of a run that ended before its first row. */
static bool has_part(const struct resume *resume) {
    FILE *file = fopen(resume->part, "r");
    bool has = file && fgetc(file) != EOF;
    if (file) fclose(file);
    return has;
}

int resume_finish(struct resume *resume, struct error *error) {
    bool part_cut;
    if (!has_part(resume)) {
        unlink(resume->part);
        return resume->cut ? replace_file(resume, error) : 0;
    }
    json_t *part = load(resume->part, &part_cut, error);
    if (!part) return -1;
    json_t *rows = join_rows(json_object_get(resume->root, "benchmarks"), json_object_get(part, "benchmarks"));
    note_date(json_object_get(resume->root, "context"), part);
    json_decref(part);
    if (!rows) return error_set(error, "%s: out of memory", resume->path);
    number_families(rows);
    json_object_set_new(resume->root, "benchmarks", rows);
    if (replace_file(resume, error) || index_rows(resume, error)) return -1;
    unlink(resume->part);
    return 0;
}

/* --- opening --- */

int resume_open(const char *path, struct resume **result, struct error *error) {
    struct resume *resume = calloc(1, sizeof *resume);
    *result = resume;
    if (!resume) return error_set(error, "out of memory");
    resume->path = path;
    size_t room = sizeof resume->part;
    if ((size_t)snprintf(resume->part, room, "%s" RESUME_SUFFIX, path) >= room)
        return error_set(error, "the name of the file is too long: %s" RESUME_SUFFIX, path);
    snprintf(resume->fresh, sizeof resume->fresh, "%s.new", path);
    resume->root = load(path, &resume->cut, error);
    return resume->root && !index_rows(resume, error) ? resume_finish(resume, error) : -1;
}

void resume_free(struct resume *resume) {
    if (!resume) return;
    json_decref(resume->measured);
    json_decref(resume->root);
    free(resume);
}

static const char *context_text(const struct resume *resume, const char *key) {
    const char *text = json_string_value(json_object_get(json_object_get(resume->root, "context"), key));
    return text ? text : "";
}

int resume_check(const struct resume *resume, const struct context *context, struct error *error) {
    for (int i = 0; i < context->count; i++) {
        const char *key = context->entries[i].key, *here = context->entries[i].value;
        if (!context->entries[i].identity || !strcmp(context_text(resume, key), here)) continue;
        return error_set(
            error,
            "%s was measured with %s '%s', here it is '%s': rows of both cannot stand in one file. Run the "
            "same command with another --benchmark_out, then `tilebook compare` the two",
            resume->path, key, context_text(resume, key), here);
    }
    return 0;
}

int resume_ceilings(const struct resume *resume, struct ceilings *ceilings, struct error *error) {
    const char *const keys[] = {"read_gbs", "copy_gbs", "matrix_tflops"};
    double *const values[] = {&ceilings->read_gbs, &ceilings->copy_gbs, &ceilings->matrix_tflops};
    for (int i = 0; i < 3; i++) {
        *values[i] = strtod(context_text(resume, keys[i]), NULL);
        if (!(*values[i] > 0 && *values[i] < 1e12))
            return error_set(error, "%s: the context's %s is '%s', and no rate; remove it, or name another file",
                             resume->path, keys[i], context_text(resume, keys[i]));
    }
    return 0;
}

/* --- the files beside it --- */

/* A whole line of a measured point. */
static bool stays(const struct resume *resume, char *line, size_t length) {
    size_t name = strcspn(line, " ");
    if (line[length - 1] != '\n' || name == length) return false;
    line[name] = 0;
    bool has = resume_has(resume, line);
    line[name] = ' ';
    return has;
}

static void copy_lines(const struct resume *resume, FILE *from, FILE *to) {
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, from)) > 0)
        if (stays(resume, line, (size_t)length)) fwrite(line, 1, (size_t)length, to);
    free(line);
}

/* The header is a line too. */
static int check_header(FILE *file, const char *path, const char *header, struct error *error) {
    char *line = NULL;
    size_t room = 0, length = strlen(header);
    bool same = getline(&line, &room, file) == (ssize_t)length + 1 && !strncmp(line, header, length);
    free(line);
    return same ? 0 : error_set(error, "%s does not begin with '%s'; remove it, or name another file", path, header);
}

int resume_lines(const struct resume *resume, const char *path, const char *header, FILE **file, struct error *error) {
    char fresh[4096];
    FILE *old = fopen(path, "r");
    *file = NULL;
    if (old && check_header(old, path, header, error)) {
        fclose(old);
        return -1;
    }
    snprintf(fresh, sizeof fresh, "%s.new", path);
    *file = fopen(fresh, "w");
    if (*file) fprintf(*file, "%s\n", header);
    if (*file && old) copy_lines(resume, old, *file);
    if (old) fclose(old);
    if (*file && !fflush(*file) && !ferror(*file) && !rename(fresh, path)) return 0;
    error_set(error, "%s: %s", fresh, strerror(errno));
    if (*file) fclose(*file);
    *file = NULL;
    unlink(fresh);
    return -1;
}
