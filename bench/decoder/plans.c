#include "bench/decoder/plans.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    struct problem problem;
    struct plan *plan;
    bool tuned;
    char why[384]; /* a table was given, but not used here: the reason */
};

struct plans {
    struct device *device;
    const struct tile_table *table;
    struct entry *entries;
    int count;
    void *workspace;
    size_t workspace_bytes;
};

struct plans *plans_create(struct device *device, const struct tile_table *table) {
    struct plans *plans = calloc(1, sizeof *plans);
    if (plans) *plans = (struct plans){.device = device, .table = table};
    return plans;
}

void plans_destroy(struct plans *plans) {
    if (!plans) return;
    for (int i = 0; i < plans->count; i++) plan_destroy(plans->entries[i].plan);
    device_free(plans->device, plans->workspace);
    free(plans->entries);
    free(plans);
}

/* A row that cannot be used leaves its reason in entry->why. */
static void create_tuned(struct plans *plans, struct entry *entry) {
    const struct problem *p = &entry->problem;
    const struct tile_row *row = tiles_find(plans->table, op_name(p->op), p->k, p->n, p->group, p->m);
    struct config config;
    struct error why = {"this program has no such kernel"};
    if (!row) {
        snprintf(entry->why, sizeof entry->why, "no row in the table");
        return;
    }
    const struct kernel *kernel = kernel_find(row->kernel);
    if (kernel && !config_parse(kernel, row->configuration, &config, &why) &&
        !plan_create(plans->device, kernel, p, &config, &entry->plan, &why))
        entry->tuned = true;
    else
        snprintf(entry->why, sizeof entry->why, "the table's row (%s %s) was refused: %.120s", row->kernel,
                 row->configuration, why.text);
}

/* The registry's first kernel of the op and backend that has a legal configuration. */
static int create_default(struct plans *plans, struct entry *entry, struct error *error) {
    char text[128];
    error_set(error, "no kernel for %s on %s", problem_text(&entry->problem, text), plans->device->id);
    for (const struct kernel *const *kernel = kernel_list(); *kernel; kernel++) {
        struct config config;
        if ((*kernel)->op != entry->problem.op || (*kernel)->backend != plans->device->backend) continue;
        if (!config_default(plans->device, *kernel, &entry->problem, &config, error))
            return plan_create(plans->device, *kernel, &entry->problem, &config, &entry->plan, error);
    }
    return -1;
}

/* Kernels want its counters zero and leave them so. */
static int fit_workspace(struct plans *plans, size_t bytes, struct error *error) {
    if (bytes <= plans->workspace_bytes) return 0;
    device_free(plans->device, plans->workspace);
    plans->workspace_bytes = 0;
    plans->workspace = device_alloc(plans->device, bytes, error);
    if (!plans->workspace) return error_prefix(error, "workspace of the kernels");
    if (device_fill(plans->device, plans->workspace, 0, bytes, error)) return -1;
    plans->workspace_bytes = bytes;
    return 0;
}

static const struct plan *find(const struct plans *plans, const struct problem *problem) {
    for (int i = 0; i < plans->count; i++)
        if (problem_equal(&plans->entries[i].problem, problem)) return plans->entries[i].plan;
    return NULL;
}

static int add(struct plans *plans, const struct problem *problem, struct error *error) {
    struct entry *entries = realloc(plans->entries, (size_t)(plans->count + 1) * sizeof *entries);
    if (!entries) return error_set(error, "out of memory");
    plans->entries = entries;
    struct entry entry = {.problem = *problem};
    if (plans->table) create_tuned(plans, &entry);
    if (!entry.plan && create_default(plans, &entry, error)) return -1;
    plans->entries[plans->count++] = entry;
    return 0;
}

/* The workspace is fitted for plans that are there too: it may have been lost when it could not grow. */
int plans_prepare(struct plans *plans, const struct problem *problem, struct error *error) {
    if (!find(plans, problem) && add(plans, problem, error)) return -1;
    return fit_workspace(plans, find(plans, problem)->workspace_bytes, error);
}

int plans_run(struct plans *plans, const struct problem *problem, struct operands operands, struct error *error) {
    if (plans_prepare(plans, problem, error)) return -1;
    operands.workspace = plans->workspace;
    return plan_run(find(plans, problem), &operands, error);
}

size_t plans_workspace(const struct plans *plans) {
    return plans->workspace_bytes;
}

void plans_print(const struct plans *plans, FILE *stream) {
    for (int i = 0; i < plans->count; i++) {
        const struct entry *entry = &plans->entries[i];
        char name[64], configuration[MAX_CONFIG_TEXT];
        fprintf(stream, "%-11s k=%d n=%d m=%d %s %s %s%s%s\n", op_name(entry->problem.op), entry->problem.k,
                entry->problem.n, entry->problem.m, kernel_full_name(entry->plan->kernel, name),
                config_text(entry->plan->kernel, &entry->plan->config, configuration),
                entry->tuned ? "tuned" : "default", *entry->why ? ": " : "", entry->why);
    }
}
