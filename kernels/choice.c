#include "kernels/choice.h"

#include <stdio.h>
#include <string.h>

static const struct kernel *find(const struct kernel *const *kernels, const char *full_name) {
    char name[64];
    while (*kernels && strcmp(full_name, kernel_full_name(*kernels, name))) kernels++;
    return *kernels;
}

void choice_look_up(const struct device *device, const struct kernel *const *kernels, const struct tile_table *table,
                    const struct problem *problem, struct choice *choice) {
    const struct problem *p = problem;
    struct error why = {"there is no such kernel here"};
    *choice = (struct choice){.how = CHOICE_NO_ROW};
    choice->row = tiles_find(table, op_name(p->op), p->k, p->n, p->group, p->m);
    if (!choice->row) return;
    const struct kernel *kernel = find(kernels, choice->row->kernel);
    if (kernel && kernel->backend != device->backend) error_set(&why, "it does not run on %s", device->id);
    if (kernel && kernel->backend == device->backend &&
        !config_parse(kernel, choice->row->configuration, &choice->config, &why) &&
        !config_legal(device, kernel, problem, &choice->config, &why)) {
        choice->kernel = kernel;
        choice->how = p->m > choice->row->m_high ? CHOICE_ABOVE : CHOICE_ROW;
        return;
    }
    choice->how = CHOICE_REFUSED;
    snprintf(choice->why, sizeof choice->why, "%s", why.text);
}

/* A peer only stands in: its estimate says nothing beside those of others. */
static bool better(const struct kernel *a, double a_us, const struct kernel *b, double b_us) {
    return a->peer == b->peer ? a_us < b_us : b->peer;
}

int choice_default(const struct device *device, const struct kernel *const *kernels, const struct problem *problem,
                   struct choice *choice, struct error *error) {
    double least = 0;
    char text[128];
    choice->kernel = NULL;
    error_set(error, "no kernel for %s on %s", problem_text(problem, text), device->id);
    for (; *kernels; kernels++) {
        struct config config;
        if ((*kernels)->op != problem->op || (*kernels)->backend != device->backend) continue;
        if (config_default(device, *kernels, problem, &config, choice->kernel ? NULL : error)) continue;
        double estimate = (*kernels)->estimate(device, problem, &config);
        if (choice->kernel && !better(*kernels, estimate, choice->kernel, least)) continue;
        least = estimate;
        choice->kernel = *kernels;
        choice->config = config;
    }
    return choice->kernel ? 0 : -1;
}

int choice_make(const struct device *device, const struct kernel *const *kernels, const struct tile_table *table,
                const struct problem *problem, struct choice *choice, struct error *error) {
    *choice = (struct choice){.how = CHOICE_NO_TABLE};
    if (table) choice_look_up(device, kernels, table, problem, choice);
    return choice->kernel ? 0 : choice_default(device, kernels, problem, choice, error);
}
