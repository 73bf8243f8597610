#include "bench/lines.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes the end off a line of `length` bytes; NULL, or what is wrong with it. */
static const char *take_end(char *line, size_t length) {
    if (line[length - 1] != '\n') return "it is cut off";
    line[length - 1] = 0;
    return strlen(line) == length - 1 ? NULL : "it has a byte 0";
}

int lines_read(const char *path, const char *header, lines_take *take, void *context, struct error *error) {
    char *line = NULL;
    const char *wrong = NULL;
    size_t room = 0;
    ssize_t length;
    bool other = false;
    int number = 0;
    FILE *file = fopen(path, "r");
    if (!file) return error_set(error, "%s: %s", path, strerror(errno));
    while (!wrong && !other && (length = getline(&line, &room, file)) > 0) {
        wrong = take_end(line, (size_t)length);
        if (++number == 1)
            other = !wrong && strcmp(line, header);
        else if (!wrong)
            wrong = take(context, line);
    }
    if (!wrong && ferror(file)) wrong = strerror(errno);
    if (!wrong && !number) wrong = "the file is empty";
    fclose(file);
    free(line);
    if (other) return error_set(error, "%s, line 1: it is not '%s'", path, header);
    return wrong ? error_set(error, "%s, line %d: %s", path, number, wrong) : 0;
}
