#include "bench/decoder/plans.h"

#include <stdlib.h>
#include <unistd.h>

#include "kernels/ahead.h"
#include "kernels/choice.h"

/* Prompts of many lengths have thousands of entries, which a layer looks up several times. */
enum { BUCKETS = 1024 };

struct entry {
    struct problem problem;
    struct choice choice;
    bool norms;        /* the kernel does the problem's norm */
    bool replaces;     /* for that it stands in for one that does not */
    struct plan *plan; /* NULL until it is prepared */
    int next;          /* of its bucket; -1: none */
};

struct plans {
    struct device *device;
    const struct tile_table *table;
    struct ahead *ahead; /* NULL: nothing is compiled, or by whom it asks for it */
    struct entry *entries;
    int count;
    int buckets[BUCKETS]; /* the entry that came last to each; -1: none */
    void *workspace;
    size_t workspace_bytes;
};

struct plans *plans_create(struct device *device, const struct tile_table *table) {
    struct plans *plans = calloc(1, sizeof *plans);
    if (!plans) return NULL;
    plans->device = device;
    plans->table = table;
    if (device->backend == BACKEND_CUDA)
        plans->ahead = ahead_create(device, plan_compile, (int)sysconf(_SC_NPROCESSORS_ONLN));
    for (int i = 0; i < BUCKETS; i++) plans->buckets[i] = -1;
    return plans;
}

void plans_destroy(struct plans *plans) {
    if (!plans) return;
    ahead_destroy(plans->ahead);
    for (int i = 0; i < plans->count; i++) plan_destroy(plans->entries[i].plan);
    device_free(plans->device, plans->workspace);
    free(plans->entries);
    free(plans);
}

const struct tile_table *plans_table(const struct plans *plans) {
    return plans->table;
}

/* Of many rows the built-in default is that for a few more, four numbers between two powers of two: prompts of all
 * lengths would else have configurations, and compilations, of their own. */
static struct problem rounded(struct problem problem) {
    int step = 1;
    problem.norm = false;
    if (problem.m <= 16) return problem;
    while (step * 8 < problem.m) step *= 2;
    problem.m = (problem.m + step - 1) / step * step;
    return problem;
}

static int choose_default(const struct plans *plans, const struct problem *problem, struct choice *choice,
                          struct error *error) {
    const struct problem more = rounded(*problem);
    for (int i = 0; i < plans->count; i++) {
        const struct entry *other = &plans->entries[i];
        const struct problem others = rounded(other->problem);
        if (other->choice.how < CHOICE_NO_ROW || !problem_equal(&others, &more)) continue;
        if (config_legal(plans->device, other->choice.kernel, problem, &other->choice.config, NULL)) continue;
        choice->kernel = other->choice.kernel;
        choice->config = other->choice.config;
        return 0;
    }
    if (!choice_default(plans->device, kernel_list(), &more, choice, error) &&
        !config_legal(plans->device, choice->kernel, problem, &choice->config, NULL))
        return 0;
    return choice_default(plans->device, kernel_list(), problem, choice, error);
}

/* What the entry's plan computes: without the norm, where the kernel has none. */
static struct problem planned(const struct entry *entry) {
    struct problem problem = entry->problem;
    problem.norm = entry->norms;
    return problem;
}

/* Without the norm, which no table knows. */
static int choose(const struct plans *plans, const struct problem *problem, struct choice *choice,
                  struct error *error) {
    struct problem plain = *problem;
    plain.norm = false;
    *choice = (struct choice){.how = CHOICE_NO_TABLE};
    if (plans->table) choice_look_up(plans->device, kernel_list(), plans->table, &plain, choice);
    return choice->kernel ? 0 : choose_default(plans, &plain, choice, error);
}

/* A norm of its own costs a step at least this long, microseconds. */
static const double norm_us = 1.5;

static double estimate(const struct plans *plans, const struct problem *problem, const struct choice *choice) {
    return choice->kernel->estimate ? choice->kernel->estimate(plans->device, problem, &choice->config) : 0;
}

/* The kernel that is best without the norm takes it too, if it can; else one that can does, if it is not slower by more
 * than the norm takes. */
static void find_norm(const struct plans *plans, struct entry *entry) {
    const struct problem *p = &entry->problem;
    struct choice *chosen = &entry->choice, other;
    struct error error;
    entry->norms = p->norm && !config_legal(plans->device, chosen->kernel, p, &chosen->config, NULL);
    if (!p->norm || entry->norms || choice_default(plans->device, kernel_list(), p, &other, &error)) return;
    if (estimate(plans, p, &other) > estimate(plans, p, chosen) + norm_us) return;
    chosen->kernel = other.kernel;
    chosen->config = other.config;
    entry->norms = entry->replaces = true;
}

/* A row whose kernel does not compile is as good as none. */
static int create_plan(struct plans *plans, struct entry *entry, struct error *error) {
    struct problem p = planned(entry);
    struct choice *choice = &entry->choice;
    if (plans->ahead) ahead_take(plans->ahead, choice->kernel, &p, &choice->config);
    if (!plan_create(plans->device, choice->kernel, &p, &choice->config, &entry->plan, error)) return 0;
    if (choice->how != CHOICE_ROW && choice->how != CHOICE_ABOVE) return -1;
    choice->how = CHOICE_REFUSED;
    snprintf(choice->why, sizeof choice->why, "%.200s", error->text);
    entry->norms = entry->replaces = false;
    struct problem plain = planned(entry);
    if (choose_default(plans, &plain, choice, error)) return -1;
    find_norm(plans, entry);
    p = planned(entry);
    return plan_create(plans->device, choice->kernel, &p, &choice->config, &entry->plan, error);
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

static int bucket_of(const struct problem *problem) {
    return (int)((31u * (unsigned)problem->m + (unsigned)(problem->n / 64)) % BUCKETS);
}

static struct entry *find(const struct plans *plans, const struct problem *problem) {
    for (int i = plans->buckets[bucket_of(problem)]; i >= 0; i = plans->entries[i].next)
        if (problem_equal(&plans->entries[i].problem, problem)) return &plans->entries[i];
    return NULL;
}

static int add(struct plans *plans, const struct problem *problem, struct error *error) {
    struct entry *entries = realloc(plans->entries, (size_t)(plans->count + 1) * sizeof *entries);
    if (!entries) return error_set(error, "out of memory");
    plans->entries = entries;
    int *bucket = &plans->buckets[bucket_of(problem)];
    struct entry entry = {.problem = *problem, .next = *bucket};
    struct choice *choice = &entry.choice;
    if (choose(plans, problem, choice, error)) return -1;
    find_norm(plans, &entry);
    const struct problem p = planned(&entry);
    if (plans->ahead) ahead_announce(plans->ahead, choice->kernel, &p, &choice->config);
    *bucket = plans->count;
    plans->entries[plans->count++] = entry;
    return 0;
}

int plans_expect(struct plans *plans, const struct problem *problem, struct error *error) {
    return find(plans, problem) ? 0 : add(plans, problem, error);
}

/* The workspace is fitted for plans that are there too: it may have been lost when it could not grow. */
int plans_prepare(struct plans *plans, const struct problem *problem, struct error *error) {
    if (plans_expect(plans, problem, error)) return -1;
    struct entry *entry = find(plans, problem);
    if (!entry->plan && create_plan(plans, entry, error)) return -1;
    return fit_workspace(plans, entry->plan->workspace_bytes, error);
}

bool plans_norms(struct plans *plans, const struct problem *problem) {
    struct error error;
    return problem->norm && !plans_expect(plans, problem, &error) && find(plans, problem)->norms;
}

int plans_run(struct plans *plans, const struct problem *problem, struct operands operands, struct error *error) {
    if (plans_prepare(plans, problem, error)) return -1;
    operands.workspace = plans->workspace;
    return plan_run(find(plans, problem)->plan, &operands, error);
}

const void *plans_memory(const struct plans *plans) {
    return plans->workspace;
}

size_t plans_workspace(const struct plans *plans) {
    return plans->workspace_bytes;
}

void plans_print(const struct plans *plans, FILE *stream) {
    for (int i = 0; i < plans->count; i++) {
        const struct choice *choice = &plans->entries[i].choice;
        const struct problem *p = &plans->entries[i].problem;
        char name[64], configuration[MAX_CONFIG_TEXT];
        bool tuned = !plans->entries[i].replaces && (choice->how == CHOICE_ROW || choice->how == CHOICE_ABOVE);
        fprintf(stream, "%-11s k=%d n=%d m=%d %s %s %s", op_name(p->op), p->k, p->n, p->m,
                kernel_full_name(choice->kernel, name), config_text(choice->kernel, &choice->config, configuration),
                tuned ? "tuned" : "default");
        if (plans->entries[i].norms) fputs(", with the norm of x", stream);
        if (choice->how == CHOICE_ABOVE) fprintf(stream, ": the last row, for m up to %ld", choice->row->m_high);
        if (choice->how == CHOICE_NO_ROW) fputs(": no row in the table", stream);
        if (choice->how == CHOICE_REFUSED)
            fprintf(stream, ": the table's row (%s %s) was refused: %s", choice->row->kernel,
                    choice->row->configuration, choice->why);
        fputc('\n', stream);
    }
}

int plans_misses(const struct plans *plans, struct misses *misses, struct error *error) {
    for (int i = 0; i < plans->count; i++) {
        struct problem plain = plans->entries[i].problem;
        plain.norm = false;
        if (misses_note(misses, &plain, plans->entries[i].choice.how, error)) return -1;
    }
    return 0;
}
