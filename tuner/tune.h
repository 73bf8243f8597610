/* Tuning a list of problems on one device (many.h: on several): plan, search each, make the table. */
#ifndef TILEBOOK_TUNE_H
#define TILEBOOK_TUNE_H

#include <signal.h>

#include "bench/misses.h"
#include "bench/nvml.h"
#include "bench/shapes.h"
#include "kernels/tiles.h"
#include "bench/progress.h"
#include "kernels/ahead.h"
#include "tuner/starts.h"
#include "tuner/supervisor.h"

/* One point of the table: a problem, and how far down its row reaches. */
struct tune_item {
    struct problem problem;
    int m_low;
    struct search_result result;
    char skipped[256]; /* why nothing could be tried; "" else */
    long space;        /* legal configurations; 0 where no budget is shared */
    bool inserted;     /* between the planned m */
    bool held_out;     /* such a one, to test a row at */
    double regret;     /* what that row lost there, as a share of the best known time */
    bool in_service;   /* its winner was chosen in the decoder's chain (service.h) */
};

/* A table whose configurations are tried first: of this device and these sources or of others. */
struct tune_start {
    const struct tile_table *table; /* NULL without */
    const char *path;
};
enum { TUNE_STARTS = 2 };

struct tune {
    struct supervisor *supervisor; /* open; its kernels are searched */
    const struct device *device;   /* the supervisor's */
    struct store_scope scope;
    struct store *store;
    struct progress *progress;
    struct tune_item *items;
    int count;
    int trials;  /* limit of one problem; 0 for none */
    bool refine; /* place borders between the items' m, and test rows at others (ranges.h) */
    bool forget; /* what is stored of a problem, before it is searched */
    int devices; /* that processes of this host tune on at once and share its cores for; 0 for one */
    enum strategy strategy;
    int finalists;                  /* of a problem, at most; 0 for FINALISTS */
    struct measure_options measure; /* of a trial; scope.regime says its regime */
    double budget_s;                /* of all, stored trials included; 0 for none */
    ahead_compiler *compile;        /* ahead of the trials; NULL for none */
    struct tune_start starts[TUNE_STARTS];
    bool patch;                               /* the items mend a table and do not replace its rows */
    const volatile sig_atomic_t *interrupted; /* not 0: no further trial starts */

    /* filled by tune_run */
    int inserted;            /* items that ranges_refine added */
    int fresh;               /* trials that this run measured */
    struct ahead *ahead;     /* compiles what will be tried; NULL without `compile` */
    double started_s;        /* monotonic */
    double spent_s;          /* costs of all trials so far, stored ones too */
    int current;             /* item that is being searched */
    int order;               /* trials of the current item so far */
    double best_us;          /* of the current item; 0 without */
    struct nvml_watch watch; /* of the trials with times, stored ones too */
    struct error error;
};

/* Which problems: each op that is on, for each shape (those that are not quantised: fp16_gemm only), at each
 * m; awq_dequant has m = 1 only. Quantised ones have zero points, the costlier case. group <= 0 is one group
 * for all of K. Where `head_m` is not 0, the shape "lm_head" stops at the first m that reaches it. Shapes
 * that differ only by name are tuned once. */
struct tune_plan {
    const struct shapes *shapes;
    const int *m;
    int m_count, head_m, group;
    bool ops[OP_COUNT];
};
int tune_plan(struct tune *tune, const struct tune_plan *plan, struct error *error);
/* Or the misses alone, as a patch. Where one problem was missed with zero points and without, or with several
 * epilogues, one of them is tuned: a row serves all. */
int tune_plan_misses(struct tune *tune, const struct misses *misses, struct error *error);

enum { TUNE_DONE, TUNE_INTERRUPTED, TUNE_SKIPPED };

/* For ranges.c: one more item before items[at], of the same op and shape and with another m, whose candidates are
 * known. 0 and it is there, with a winner; else it is not: TUNE_INTERRUPTED, TUNE_SKIPPED (nothing works at this m),
 * -1. */
int tune_insert(struct tune *tune, int at, int m, const struct trial *known, int known_count);
/* Whether a and b are in the same rows' (op, k, n, group). */
bool tune_neighbours(const struct tune_item *a, const struct tune_item *b);

/* Seconds of the current item's search and final: what is left of the budget, by the logarithms of the legal spaces of
 * this item and those behind it: the estimate orders them, and the smallest is to have trials too. */
double tune_share(const struct tune *tune);
/* Says how many rows of the starts belong to the items; -1 without memory. */
int tune_tell_starts(const struct tune *tune, struct error *error);
/* Searches every item, taking stored trials from the store. TUNE_DONE, TUNE_INTERRUPTED, or -1. */
int tune_run(struct tune *tune, struct error *error);
/* The table of what was found: neighbours with the same winner are one row. Rows of `before` (may be NULL)
 * for other (op, k, n, group) are kept if they were measured in the same regime; in a patch also what the others say
 * of m that no new row reaches, which begins where the row that it mends does, or behind the one below. *missing counts
 * the items without a winner; the next larger m covers them, or nothing does. The regime says TUNE_IN_SERVICE if a
 * row up to SERVICE_M may be slower alone than another, since it was chosen between the decoder's other kernels, and
 * ends in TUNE_THROTTLED if an impaired card measured a winner, a default that it is held against, or perhaps a kept
 * row. */
enum { SERVICE_M = 64 };
#define TUNE_IN_SERVICE ", in service"
#define TUNE_THROTTLED ", throttled"
int tune_table(const struct tune *tune, const struct tile_table *before, struct tile_table *table, int *missing,
               struct error *error);
bool tune_throttled(const char *regime);
bool tune_in_service(const char *regime);
/* One line a trial, with a header line; configurations as in the table. */
void tune_write_csv(const struct tune *tune, FILE *stream);
/* Geometric mean of default time over winner's time. */
double tune_speedup(const struct tune *tune);
/* Trials of that status, of all items. */
int tune_count(const struct tune *tune, enum trial_status status);
void tune_free(struct tune *tune);

#endif
