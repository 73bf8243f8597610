#include "tuner/starts.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/choice.h"

int starts_add(struct starts *starts, const struct kernel *kernel, const struct config *config, bool always,
               struct error *error) {
    if (!(starts->count & (starts->count - 1))) {
        size_t room = starts->count ? 2 * (size_t)starts->count : 1;
        struct search_start *list = reallocarray(starts->list, room, sizeof *list);
        if (!list) return error_set(error, "out of memory");
        starts->list = list;
    }
    starts->list[starts->count++] = (struct search_start){kernel, *config, always};
    return 0;
}

struct replay {
    struct starts *starts;
    const struct kernel *const *kernels;
    struct error *error;
};

static int add_stored(void *context, const char *kernel, const char *configuration) {
    const struct replay *replay = context;
    char name[64];
    struct config config;
    for (int i = 0; replay->kernels[i]; i++)
        if (!strcmp(kernel, kernel_full_name(replay->kernels[i], name)) &&
            !config_parse(replay->kernels[i], configuration, &config, NULL))
            return starts_add(replay->starts, replay->kernels[i], &config, false, replay->error);
    return 0;
}

int starts_add_stored(struct starts *starts, struct store *store, const struct store_scope *scope,
                      const struct kernel *const *kernels, const struct problem *problem, struct error *error) {
    struct replay replay = {starts, kernels, error};
    return store_replay(store, scope, problem, add_stored, &replay, error);
}

int starts_add_rows(struct starts *starts, const struct tile_table *table, const struct device *device,
                    const struct kernel *const *kernels, const struct problem *problem, bool *taken,
                    struct error *error) {
    struct choice own, choice;
    struct problem at = *problem;
    choice_look_up(device, kernels, table, problem, &own);
    if (!own.row) return 0;
    const long m[] = {problem->m, own.row->m_low - 1, own.row->m_high + 1};
    for (int i = 0; i < 3; i++) {
        at.m = (int)m[i];
        if (at.m < 1) continue;
        choice_look_up(device, kernels, table, &at, &choice);
        bool again = i && choice.row == own.row; /* above the last row lies itself */
        if (!choice.kernel || again || config_legal(device, choice.kernel, problem, &choice.config, NULL)) continue;
        if (starts_add(starts, choice.kernel, &choice.config, !i, error)) return -1;
        if (taken) taken[choice.row - table->rows] = true;
    }
    return 0;
}

void starts_free(struct starts *starts) {
    free(starts->list);
    *starts = (struct starts){.list = NULL};
}
