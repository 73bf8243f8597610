#include "bench/misses.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 256, HOWS = CHOICE_NO_TABLE + 1 };

static const char magic[] = "# tilebook misses 1\n";
static const char columns[] = "# op        k     n      g   zeros epilogue m    why\n";
static const char *const how_names[HOWS] = {"hit", "above", "no-row", "refused", "no-table"};

static bool known(const struct misses *misses, const struct problem *problem) {
    for (int i = 0; i < misses->count; i++)
        if (problem_equal(&misses->list[i].problem, problem)) return true;
    return false;
}

int misses_note(struct misses *misses, const struct problem *problem, enum choice_how how, struct error *error) {
    if (how == CHOICE_ROW || known(misses, problem)) return 0;
    struct miss *list = realloc(misses->list, (size_t)(misses->count + 1) * sizeof *list);
    if (!list) return error_set(error, "out of memory");
    misses->list = list;
    list[misses->count++] = (struct miss){*problem, how};
    return 0;
}

static int parse_line(const char *line, struct miss *miss, struct error *error) {
    struct problem *p = &miss->problem;
    char op[24], epilogue[24], why[24], more;
    int zeros;
    if (sscanf(line, "%23s %d %d %d %d %23s %d %23s %c", op, &p->k, &p->n, &p->group, &zeros, epilogue, &p->m, why,
               &more) != 8)
        return error_set(error, "a miss has: op k n g zeros epilogue m why");
    if (op_parse(op, &p->op, error) || epilogue_parse(epilogue, &p->epilogue, error)) return -1;
    p->zeros = zeros;
    int how = CHOICE_ABOVE;
    while (how < HOWS && strcmp(why, how_names[how])) how++;
    if (how == HOWS) return error_set(error, "'%s' is not one of above, no-row, refused, no-table", why);
    miss->how = (enum choice_how)how;
    return problem_check(p, error);
}

static int read_lines(FILE *file, const char *path, struct misses *misses, struct error *error) {
    char line[LINE];
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        struct miss miss = {.how = CHOICE_ROW};
        if (number == 1 && strcmp(line, magic))
            return error_set(error, "%s:1: not a list of misses, which begins with '%.*s'", path,
                             (int)strlen(magic) - 1, magic);
        if (*line == '#' || *line == '\n') continue;
        if (parse_line(line, &miss, error) || misses_note(misses, &miss.problem, miss.how, error))
            return error_prefix(error, "%s:%d", path, number);
    }
    return ferror(file) ? error_set(error, "%s: %s", path, strerror(errno)) : 0;
}

int misses_read(const char *path, struct misses *misses, struct error *error) {
    FILE *file = fopen(path, "r");
    *misses = (struct misses){.count = 0};
    if (!file) return error_set(error, "%s: %s", path, strerror(errno));
    int status = read_lines(file, path, misses, error);
    fclose(file);
    if (status) misses_free(misses);
    return status;
}

/* In one write, so that those who append at the same time do not mix their lines. */
static int append(const char *path, const char *text, size_t bytes, struct error *error) {
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    bool bad = file < 0 || write(file, text, bytes) != (ssize_t)bytes;
    int cause = errno;
    if (file >= 0 && close(file) && !bad) bad = true, cause = errno;
    return bad ? error_set(error, "%s: %s", path, strerror(cause)) : 0;
}

int misses_append(const char *path, const struct misses *misses, int *added, struct error *error) {
    struct misses before = {.count = 0};
    char *text = NULL;
    size_t bytes = 0;
    *added = 0;
    if (!access(path, F_OK) && misses_read(path, &before, error)) return -1;
    FILE *stream = open_memstream(&text, &bytes);
    if (stream && access(path, F_OK)) fprintf(stream, "%s%s", magic, columns);
    for (int i = 0; stream && i < misses->count; i++) {
        const struct problem *p = &misses->list[i].problem;
        if (known(&before, p)) continue;
        fprintf(stream, "%-11s %-5d %-6d %-3d %d     %-8s %-4d %s\n", op_name(p->op), p->k, p->n, p->group, p->zeros,
                epilogue_name(p->epilogue), p->m, how_names[misses->list[i].how]);
        ++*added;
    }
    int status = !stream || fclose(stream) ? error_set(error, "out of memory") : 0;
    if (!status && *added) status = append(path, text, bytes, error);
    free(text);
    misses_free(&before);
    return status;
}

void misses_free(struct misses *misses) {
    free(misses->list);
    *misses = (struct misses){.count = 0};
}
