/* For suites that run the program as a user does: a folder of their own, a shell line, what it printed. */
#ifndef TILEBOOK_TESTS_COMMAND_H
#define TILEBOOK_TESTS_COMMAND_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], output[16384];

/* Group fixtures: the folder, and TILEBOOK for the lines. */
static inline int folder_make(void **state) {
    (void)state;
    strcpy(folder, "/tmp/tilebook-test-XXXXXX");
    return mkdtemp(folder) && !setenv("TILEBOOK", "build/tilebook", 0) ? 0 : -1;
}

static inline int folder_remove(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* A file of the folder; valid until the next call. */
static inline const char *in_folder(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* Runs a shell line with @ standing for the folder; the exit code. Both streams go to `output`. */
static inline int shell(const char *line) {
    char command[2048] = "exec 2>&1; ";
    size_t used = strlen(command);
    for (; *line; line++)
        used += (size_t)snprintf(command + used, sizeof command - used, *line == '@' ? "%s" : "%.1s",
                                 *line == '@' ? folder : line);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    output[fread(output, 1, sizeof output - 1, pipe)] = 0;
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The first process that `parent` has started and that has not ended; 0 without. */
static inline pid_t child_of(pid_t parent) {
    char path[64];
    int child = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *file = fopen(path, "r");
    if (file && fscanf(file, "%d", &child) != 1) child = 0;
    if (file) fclose(file);
    return child;
}

/* The exit code, and all of these in the output, separated by '|'. */
static inline void expect_shell(int code, const char *line, const char *texts) {
    char copy[1024], *rest = copy;
    int found = shell(line);
    snprintf(copy, sizeof copy, "%s", texts);
    for (char *text; (text = strsep(&rest, "|"));)
        if (found != code || !strstr(output, text))
            fail_msg("%s: exit code %d, expected %d and '%s' in:\n%s", line, found, code, text, output);
}

/* The same of "tilebook ARGUMENTS". */
static inline void expect(int code, const char *arguments, const char *texts) {
    char line[1536];
    snprintf(line, sizeof line, "$TILEBOOK %s", arguments);
    expect_shell(code, line, texts);
}

#endif
