/* A temporary model directory for tests: files are written into it by name; it goes away at the end. */
#ifndef TILEBOOK_TESTS_MODEL_DIR_H
#define TILEBOOK_TESTS_MODEL_DIR_H

#include <dirent.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static inline void model_dir_make(char directory[64]) {
    strcpy(directory, "/tmp/tilebook-test-XXXXXX");
    assert_non_null(mkdtemp(directory));
}

static inline void model_dir_write(const char *directory, const char *name, const void *bytes, size_t count) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static inline void model_dir_text(const char *directory, const char *name, const char *text) {
    model_dir_write(directory, name, text, strlen(text));
}

static inline void model_dir_delete(const char *directory, const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    unlink(path);
}

/* The directory with its plain files. */
static inline void model_dir_remove(const char *directory) {
    DIR *list = opendir(directory);
    for (struct dirent *entry; list && (entry = readdir(list));) model_dir_delete(directory, entry->d_name);
    if (list) closedir(list);
    rmdir(directory);
}

/* The error text holds all of these, separated by '|'; prints it where one is missing. */
static inline void assert_says(const char *text, const char *parts) {
    char copy[512], *rest = copy;
    snprintf(copy, sizeof copy, "%s", parts);
    for (char *part; (part = strsep(&rest, "|"));)
        if (!strstr(text, part)) fail_msg("the message lacks '%s': %s", part, text);
}

#endif
