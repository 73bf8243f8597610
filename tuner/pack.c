#include "tuner/pack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/choice.h"
#include "kernels/embedded.h"

/* No step of a launch is longer in M. */
enum { MOST_STEP = 1024 };

/* What a table does not say of its device. The rates, of one card of its kind, only order the built-in defaults. */
static const struct {
    int compute_capability;
    size_t shared_sm_bytes;
    double memory_gbs, matrix_tflops;
} cards[] = {
    {80, 164 << 10, 2039, 312}, {86, 100 << 10, 936, 155},    {87, 164 << 10, 205, 43},     {89, 100 << 10, 1008, 330},
    {90, 228 << 10, 3352, 989}, {100, 228 << 10, 8000, 2250}, {103, 228 << 10, 8000, 2500}, {120, 100 << 10, 1792, 419},
};
enum { CARDS = sizeof cards / sizeof *cards, RESERVED_BYTES = 1024 };

static int describe_device(const struct tile_table *table, struct device *device, struct error *error) {
    int capability = 0, card = 0;
    if (sscanf(table->architecture, "sm_%d", &capability) != 1)
        return error_set(error, "the table is for %s (%s), which runs no cubins; a pack needs a GPU's", table->device,
                         table->architecture);
    while (card < CARDS && cards[card].compute_capability != capability) card++;
    if (card == CARDS)
        return error_set(error,
                         "the table is for %s (%s); packs can be made for compute capability 8.0 to 8.9, 9.0, "
                         "10.0, 10.3 and 12.0",
                         table->device, table->architecture);
    *device = (struct device){.backend = BACKEND_CUDA,
                              .compute_capability = capability,
                              .multiprocessors = table->multiprocessors,
                              .shared_sm_bytes = cards[card].shared_sm_bytes,
                              .shared_block_bytes = cards[card].shared_sm_bytes - RESERVED_BYTES,
                              .memory_gbs = cards[card].memory_gbs,
                              .matrix_tflops = cards[card].matrix_tflops};
    snprintf(device->id, sizeof device->id, "%s", table->architecture);
    snprintf(device->architecture, sizeof device->architecture, "%s", table->architecture);
    snprintf(device->name, sizeof device->name, "%s", table->device);
    return 0;
}

/* --- what runs at an M --- */

/* A configuration, and the last M for which it is the one. */
struct pick {
    const struct kernel *kernel; /* NULL: none can run */
    struct config config;
    int last;
};

static bool runs(const struct pack *pack, const struct pick *pick, struct problem problem, int m) {
    problem.m = m;
    return pick->kernel && !problem_check(&problem, NULL) &&
           !config_legal(&pack->device, pick->kernel, &problem, &pick->config, NULL);
}

/* What the row names, if it is one launch of a cubin; else why not. */
static struct pick named(const struct tile_row *row, struct error *why) {
    struct pick pick = {.kernel = kernel_find(row->kernel)};
    error_set(why, "there is no such kernel here");
    if (pick.kernel && !pick.kernel->launch)
        error_set(why, pick.kernel->compile ? "it is several launches" : "it has no cubin");
    if (!pick.kernel || !pick.kernel->launch || config_parse(pick.kernel, row->configuration, &pick.config, why))
        pick.kernel = NULL;
    return pick;
}

/* The built-in default of the kernels that are one launch of a cubin. */
static struct pick default_at(const struct pack *pack, struct problem problem, int m) {
    const struct kernel *ours[MAX_KERNELS + 1];
    struct choice choice;
    int count = 0;
    for (const struct kernel *const *k = kernel_list(); *k; k++)
        if ((*k)->launch) ours[count++] = *k;
    ours[count] = NULL;
    problem.m = m;
    if (choice_default(&pack->device, ours, &problem, &choice, NULL)) return (struct pick){0};
    return (struct pick){.kernel = choice.kernel, .config = choice.config};
}

/* What runs from m on, and how far, at most to `end`. */
static struct pick pick_at(const struct pack *pack, const struct pick *row, const struct problem *problem, int m,
                           int end) {
    struct pick pick = *row;
    bool other = !runs(pack, row, *problem, m);
    if (other) {
        int power = 1;
        while (power < m) power *= 2;
        if (power < end) end = power;
        pick = default_at(pack, *problem, end);
        if (!runs(pack, &pick, *problem, m)) pick = default_at(pack, *problem, m);
    }
    for (pick.last = m; pick.last < end; pick.last++) {
        if (other && runs(pack, row, *problem, pick.last + 1)) break;
        if (pick.kernel && !runs(pack, &pick, *problem, pick.last + 1)) break;
    }
    return pick;
}

/* --- what it launches, as constants --- */

static struct launch launch_at(const struct pack *pack, const struct pick *pick, struct problem problem, int m) {
    struct launch launch = {0};
    problem.m = m;
    pick->kernel->launch(&pack->device, &problem, &pick->config, &launch);
    launch.grid.overlaps = launch.grid.overlaps && pack->device.compute_capability >= 90;
    return launch;
}

static bool same_tensors(const struct pack_row *row, const struct launch *launch, int m) {
    if (row->launch.tensor_count != launch->tensor_count) return false;
    for (int i = 0; i < launch->tensor_count; i++) {
        const struct launch_tensor *a = &row->launch.tensors[i], *b = &launch->tensors[i];
        const struct device_tensor *s = &a->tensor, *t = &b->tensor;
        if (a->operand != b->operand || s->element_bytes != t->element_bytes || s->columns != t->columns ||
            s->box_rows != t->box_rows || s->box_columns != t->box_columns || s->swizzle != t->swizzle ||
            t->rows != (row->rows_are_m[i] ? (size_t)m : s->rows))
            return false;
    }
    return true;
}

static unsigned steps_to(const struct pack_row *row, int m) {
    return (unsigned)((m - row->m_first) / row->m_step);
}

/* Whether the row's constants give this launch, which is that at m, but for its workspace. */
static bool gives(const struct pack_row *row, const struct launch *launch, int m) {
    const struct launch *first = &row->launch;
    for (int i = 0; i < 3; i++)
        if (launch->grid.blocks[i] != first->grid.blocks[i] + steps_to(row, m) * row->blocks_step[i]) return false;
    return launch->shared_bytes == first->shared_bytes && launch->grid.threads == first->grid.threads &&
           launch->grid.cluster == first->grid.cluster && launch->grid.overlaps == first->grid.overlaps &&
           !strcmp(launch->source, first->source) && !strcmp(launch->entry, first->entry) &&
           !strcmp(launch->options, first->options) && same_tensors(row, launch, m);
}

/* The first M behind m with other blocks; 0 if none follows soon. */
static int next_change(const struct pack *pack, const struct pick *pick, const struct problem *problem, int m) {
    struct launch first = launch_at(pack, pick, *problem, m);
    for (int next = m + 1; next <= m + MOST_STEP; next++) {
        struct launch launch = launch_at(pack, pick, *problem, next);
        if (memcmp(launch.grid.blocks, first.grid.blocks, sizeof first.grid.blocks)) return next;
    }
    return 0;
}

/* The steps that the launches behind m seem to go in; none where they stay, or fall. */
static void guess_steps(const struct pack *pack, const struct pick *pick, struct pack_row *row) {
    int m = row->problem.m, change = next_change(pack, pick, &row->problem, m);
    int second = change ? next_change(pack, pick, &row->problem, change) : 0, step = second - change;
    row->m_first = m;
    row->m_step = 1;
    if (!second || change - step > m) return;
    struct launch launch = launch_at(pack, pick, row->problem, change);
    for (int i = 0; i < 3; i++)
        if (launch.grid.blocks[i] < row->launch.grid.blocks[i]) return;
    row->m_first = change - step;
    row->m_step = step;
    for (int i = 0; i < 3; i++) row->blocks_step[i] = launch.grid.blocks[i] - row->launch.grid.blocks[i];
    if (launch.workspace_bytes > row->workspace) row->workspace_step = launch.workspace_bytes - row->workspace;
}

static void find_tensors(const struct pack *pack, const struct pick *pick, struct pack_row *row) {
    int m = row->problem.m;
    struct launch next = launch_at(pack, pick, row->problem, m + 1);
    for (int i = 0; i < row->launch.tensor_count; i++)
        row->rows_are_m[i] =
            row->launch.tensors[i].tensor.rows == (size_t)m && next.tensors[i].tensor.rows == (size_t)m + 1;
}

/* The list with room for one more than its `count`; NULL when out of memory. */
static void *with_room(void *list, int count, size_t bytes) {
    bool full = !(count & (count - 1));
    return full ? realloc(list, (count ? 2 * (size_t)count : 1) * bytes) : list;
}

/* The one that is there, or a new one; -1 when out of memory. */
static int find_function(struct pack *pack, const struct pack_row *row) {
    const struct launch *l = &row->launch;
    struct pack_function function = {row->kernel, row->problem, row->config, *l, ""};
    launch_options(row->kernel, &row->problem, &row->config, l, function.options);
    for (int i = 0; i < pack->function_count; i++) {
        const struct pack_function *f = &pack->functions[i];
        if (!strcmp(f->launch.source, l->source) && !strcmp(f->launch.entry, l->entry) &&
            !strcmp(f->options, function.options) && f->launch.shared_bytes == l->shared_bytes)
            return i;
    }
    struct pack_function *functions = with_room(pack->functions, pack->function_count, sizeof function);
    if (!functions) return -1;
    pack->functions = functions;
    functions[pack->function_count] = function;
    return pack->function_count++;
}

/* What the launch at m needs; up to there the row goes in steps, or has the largest already. */
static void cover_workspace(struct pack_row *row, size_t bytes, int m) {
    if (!row->workspace_is_largest && bytes != row->workspace + steps_to(row, m) * row->workspace_step) {
        row->workspace += steps_to(row, m - 1) * row->workspace_step;
        row->workspace_step = 0;
        row->workspace_is_largest = true;
    }
    if (row->workspace_is_largest && bytes > row->workspace) row->workspace = bytes;
}

/* To the pick's last M, or as far as its constants give the kernel's own launch. */
static void extend(const struct pack *pack, const struct pick *pick, struct pack_row *row) {
    for (; row->m_high < pick->last; row->m_high++) {
        struct launch next = launch_at(pack, pick, row->problem, row->m_high + 1);
        if (!gives(row, &next, row->m_high + 1)) return;
        cover_workspace(row, next.workspace_bytes, row->m_high + 1);
    }
}

/* The row added last, if it is the same configuration's for the M below m. */
static struct pack_row *row_below(struct pack *pack, const struct pick *pick, struct problem problem, int m) {
    struct pack_row *row = pack->row_count ? &pack->rows[pack->row_count - 1] : NULL;
    if (!row || row->m_high != m - 1 || row->kernel != pick->kernel) return NULL;
    problem.m = row->problem.m;
    bool same = problem_equal(&problem, &row->problem) && !memcmp(&row->config, &pick->config, sizeof row->config);
    return same ? row : NULL;
}

/* Rows for all that the pick stands for, from m to its last: as few as steps allow. */
static int add_rows(struct pack *pack, const struct pick *pick, const struct problem *problem, int m) {
    struct pack_row *below = row_below(pack, pick, *problem, m);
    if (below) {
        extend(pack, pick, below);
        m = below->m_high + 1;
    }
    while (m <= pick->last) {
        struct pack_row row = {
            .problem = *problem, .m_high = m, .kernel = pick->kernel, .config = pick->config, .m_step = 1};
        row.problem.m = m;
        row.launch = launch_at(pack, pick, *problem, m);
        row.workspace = row.launch.workspace_bytes;
        guess_steps(pack, pick, &row);
        find_tensors(pack, pick, &row);
        extend(pack, pick, &row);
        row.function = find_function(pack, &row);
        struct pack_row *rows = row.function < 0 ? NULL : with_room(pack->rows, pack->row_count, sizeof row);
        if (!rows) return -1;
        pack->rows = rows;
        rows[pack->row_count++] = row;
        m = row.m_high + 1;
    }
    return 0;
}

/* --- all of a table --- */

struct making {
    struct pack *pack;
    const struct tile_row *row;
    struct pick named;
    bool noted; /* that the row is not, or not always, what is packed */
    pack_note *note;
    void *context;
};

static void note(struct making *making, const char *why) {
    const struct tile_row *row = making->row;
    char line[1024];
    if (making->noted) return;
    making->noted = true;
    snprintf(line, sizeof line, "%s %ldx%ld, m %ld-%ld: %s: %s; packed in its place: built-in defaults", row->op,
             row->k, row->n, row->m_low, row->m_high, row->kernel, why);
    making->note(making->context, line);
}

static int add_problem(struct making *making, struct problem problem, int end) {
    struct error why;
    for (int m = problem.m, last; m <= end; m = last + 1) {
        problem.m = m;
        if (problem_check(&problem, NULL)) return 0;
        struct pick pick = pick_at(making->pack, &making->named, &problem, m, end);
        last = pick.last;
        if (making->named.kernel && m <= making->row->m_high &&
            config_legal(&making->pack->device, making->named.kernel, &problem, &making->named.config, &why))
            note(making, why.text);
        if (pick.kernel && add_rows(making->pack, &pick, &problem, m)) return -1;
    }
    return 0;
}

static int add_row(struct making *making, bool last, unsigned epilogues, struct error *error) {
    const struct tile_row *row = making->row;
    struct problem problem = {
        .m = (int)row->m_low, .n = (int)row->n, .k = (int)row->k, .group = (int)row->group, .zeros = false};
    struct error why;
    int end = last && row->m_high < PACK_MOST_M ? PACK_MOST_M : (int)row->m_high;
    if (op_parse(row->op, &problem.op, error)) return -1;
    making->named = named(row, &why);
    making->noted = false;
    if (!making->named.kernel) note(making, why.text);
    if (problem.op == OP_AWQ_DEQUANT) epilogues = 1 << EPILOGUE_NONE;
    for (int zeros = 0; zeros <= (problem.op != OP_FP16_GEMM); zeros++)
        for (int e = 0; e < EPILOGUE_COUNT; e++) {
            problem.zeros = zeros;
            problem.epilogue = (enum epilogue)e;
            if (epilogues >> e & 1 && add_problem(making, problem, end)) return error_set(error, "out of memory");
        }
    return 0;
}

static int compare_rows(const void *left, const void *right) {
    const struct problem *a = &((const struct pack_row *)left)->problem,
                         *b = &((const struct pack_row *)right)->problem;
    const int x[] = {a->op, a->k, a->n, a->group, a->zeros, a->epilogue, a->m};
    const int y[] = {b->op, b->k, b->n, b->group, b->zeros, b->epilogue, b->m};
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return 0;
}

static bool same_key(const struct tile_row *a, const struct tile_row *b) {
    return !strcmp(a->op, b->op) && a->k == b->k && a->n == b->n && a->group == b->group;
}

int pack_make(const struct tile_table *table, unsigned epilogues, pack_note *note, void *context, struct pack *pack,
              struct error *error) {
    *pack = (struct pack){.table = table};
    if (describe_device(table, &pack->device, error)) return -1;
    if (strcmp(table->kernels, kernels_hash_cuda))
        return error_set(error,
                         "the table was measured with kernels %s, this program has %s; run `tilebook tune` for a table "
                         "of these, or export with the program that made it",
                         table->kernels, kernels_hash_cuda);
    struct making making = {.pack = pack, .note = note, .context = context};
    int status = 0;
    for (size_t i = 0; i < table->count && !status; i++) {
        making.row = &table->rows[i];
        bool last = i + 1 == table->count || !same_key(making.row, making.row + 1);
        status = add_row(&making, last, epilogues, error);
    }
    if (!status && !pack->row_count) status = error_set(error, "no row of the table can be packed");
    if (status)
        pack_free(pack);
    else
        qsort(pack->rows, (size_t)pack->row_count, sizeof *pack->rows, compare_rows);
    return status;
}

void pack_free(struct pack *pack) {
    free(pack->rows);
    free(pack->functions);
    *pack = (struct pack){0};
}
