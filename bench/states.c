#include "bench/states.h"

#include <stdlib.h>
#include <string.h>

#include "bench/lines.h"

void states_put(FILE *file, const char *name, const struct measurement *m) {
    if (!m->state_count) return;
    fprintf(file, "%s %d", name, m->state_count);
    for (int i = 0; i < m->state_count; i++) {
        const struct gpu_state *card = &m->states[i].card;
        fprintf(file, " %.2f,%d,%d,%.1f,%d,%llx", m->states[i].unix_s, card->sm_mhz, card->memory_mhz, card->watts,
                card->celsius, card->throttle);
    }
    fputc('\n', file);
}

/* --- reading --- */

static bool read_state(const char *word, struct measure_state *state) {
    struct gpu_state *card = &state->card;
    int used = 0;
    return sscanf(word, "%lf,%d,%d,%lf,%d,%llx%n", &state->unix_s, &card->sm_mhz, &card->memory_mhz, &card->watts,
                  &card->celsius, &card->throttle, &used) == 6 &&
           !word[used] && state->unix_s > 0 && state->unix_s < 1e11;
}

/* NULL, or what is wrong. The line loses its spaces. */
static const char *read_row(char *line, struct states_row *row) {
    char *rest = line, *end;
    const char *name = strsep(&rest, " "), *number = strsep(&rest, " ");
    long count = number ? strtol(number, &end, 10) : 0;
    if (!*name || count < 1 || *end || !rest) return "expected NAME N and N states, separated by single spaces";
    /* Before memory is taken for it: a state is eleven characters and a space at least. */
    if (strlen(rest) < 12 * (size_t)count - 1) return "it has fewer states than it says";
    *row = (struct states_row){strdup(name), (int)count, calloc((size_t)count, sizeof *row->list)};
    if (!row->name || !row->list) return "out of memory";
    for (int i = 0; i < row->count; i++) {
        const char *word = strsep(&rest, " ");
        if (!word || !read_state(word, &row->list[i]))
            return "a state is not SECONDS,SM,MEMORY,WATTS,CELSIUS,REASONS, or there are fewer than it says";
    }
    return rest ? "it has more states than it says" : NULL;
}

static struct states_row *add_row(struct states *states) {
    struct states_row *rows = reallocarray(states->rows, (size_t)states->count + 1, sizeof *rows);
    if (!rows) return NULL;
    states->rows = rows;
    rows[states->count] = (struct states_row){.count = 0};
    return &rows[states->count++];
}

static const char *take_line(void *states, char *line) {
    struct states_row *row = add_row(states);
    return row ? read_row(line, row) : "out of memory";
}

int states_read(const char *path, struct states *states, struct error *error) {
    *states = (struct states){.count = 0};
    return lines_read(path, STATES_HEADER, take_line, states, error);
}

void states_free(struct states *states) {
    for (int i = 0; i < states->count; i++) {
        free(states->rows[i].name);
        free(states->rows[i].list);
    }
    free(states->rows);
    *states = (struct states){.count = 0};
}
