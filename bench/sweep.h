/* What a sweep runs: a point is one kernel with one configuration on one problem. */
#ifndef TILEBOOK_SWEEP_H
#define TILEBOOK_SWEEP_H

#include <stdio.h>

#include "bench/measure.h"
#include "bench/misses.h"
#include "bench/progress.h"
#include "bench/shapes.h"
#include "bench/yardsticks.h"

enum { SWEEP_CONFIGS = 64, SWEEP_NAME = 320 };

struct sweep_options {
    const char *ops;     /* "all" or op,op,... */
    const char *kernels; /* full names separated by commas; NULL: all of the ops on the device */
    const char *shapes, *m;
    const char *configs[SWEEP_CONFIGS]; /* "all", "table", "default" or name=value,... */
    int config_count;                   /* 0: as "default", or from the table if there is one */
    int group;                          /* 0: one for all of K; -1: as the shapes say */
    enum epilogue epilogue;             /* of all GEMMs, unless: */
    bool model_epilogues;               /* each shape's own */
    bool norm;                          /* of x, by the GEMM: kernels that can alone */
    bool bf16;                          /* all GEMMs */
    bool zeros, cold;
    int chain; /* layers of the chain that is measured in the points' place; 0: the points */
    uint64_t seed;
    struct misses *misses; /* NULL, or where what the table has no row for is noted */
};

struct sweep_point {
    struct sweep *sweep;
    const struct kernel *kernel;
    struct problem problem;
    struct config config;
    const char *refused; /* why it must not run; NULL: it may */
    bool measured;       /* by an earlier sweep that this one goes on with: it does not run again */
    char layer[24];
    char name[SWEEP_NAME]; /* OP/KERNEL/LAYER/k:K/n:N/g:G/z:0|1/m:M[/e:EPILOGUE|norm|norm+EPILOGUE][/t:bf16]/CONFIG */
};

/* How far CUPTI and events are apart, by rows that take long enough for events. */
struct sweep_clocks {
    int rows, near;
    double worst; /* share */
    const char *name;
};

struct sweep {
    struct device *device;
    struct sweep_options options;
    const struct tile_table *table;   /* or NULL */
    struct measure_options measuring; /* set by the caller before anything runs */
    struct ceilings ceilings;         /* likewise */
    double deadline;                  /* likewise; on the clock of progress_now; 0 for none */
    int shares;                       /* likewise; runs to come, each with a share of the time to the deadline */
    int runs;                         /* likewise; 0: no progress is shown */
    int ran;
    double began_s, said_s;   /* when the first run began; when a log last heard of the progress */
    struct progress progress; /* likewise */
    FILE *csv;                /* likewise; NULL for none */
    FILE *report;             /* likewise, of rows_open: then points get their yardsticks too */
    FILE *markdown;           /* likewise, of markdown_begin */
    FILE *samples;            /* likewise, behind SAMPLES_HEADER */
    FILE *states;             /* likewise, behind STATES_HEADER */
    FILE *words;              /* likewise; for warnings */
    bool repeated;            /* likewise; Google Benchmark will aggregate repetitions */
    struct sweep_point *points;
    struct ahead *ahead; /* compiles what the next points need, the first `planned` of them; or NULL */
    int planned;
    struct sweep_chains *chains; /* in place of the points, `count` too; or NULL */
    int count, room;
    int left_out;          /* problems that a peer does not take */
    struct error left_why; /* of the first of them */
    int failures;          /* runs that failed */
    bool report_failed;    /* a row could not be written */
    struct yardsticks yardsticks;
    struct nvml_watch watch; /* of the others */
    struct sweep_clocks clocks;
    struct instance *instance; /* of the last point: neighbours share it */
};

/* Enumerates the points. Errors are the user's: an unknown name, a shape that an op cannot take, a
 * configuration that is not legal (configurations of "all" that are not are left out). */
int sweep_create(struct device *device, const struct sweep_options *options, const struct tile_table *table,
                 struct sweep **sweep, struct error *error);
/* Data in sweep->instance and a plan, fitted and verified; the caller destroys it (NULL on failure). */
int sweep_make(struct sweep_point *point, struct plan **plan, double *relative_error, struct error *error);
/* Registers all points that are not measured with Google Benchmark. */
void sweep_register(struct sweep *sweep);
/* What a point does with its measurement: a warning if it is the first of an impaired card, the row, its lines
 * in the CSV and in the report. */
struct cbench_state;
void sweep_report(struct cbench_state *state, struct sweep_point *point, const struct measurement *m,
                  double relative_error);
/* A line in the markdown: the point's names and these figures; without us it failed. */
struct row;
void sweep_tabulate(const struct sweep_point *point, const struct row *figures);
/* Whether rows get the figures beside them: a report was asked for, and it is a GPU. */
bool sweep_has_beside(const struct sweep *sweep);
/* What every row's label begins with, then `more`. */
void sweep_label(struct cbench_state *state, const struct measurement *m, const char *more);
/* Says on sweep->words that the card is impaired. */
void sweep_warn(const struct sweep *sweep, unsigned long long reasons);
/* What must be known of a whole sweep, on sweep->words: a throttled card, failures, points that were left out, whether
 * the two clocks agree. */
void sweep_summarize(const struct sweep *sweep);
void sweep_destroy(struct sweep *sweep);

/* --- for chains (sweep_chain.c) --- */

/* A run begins, or has ended: shows how far the sweep is and how long it still takes. */
void sweep_show(struct sweep *sweep, const char *name);
void sweep_ran(struct sweep *sweep);
/* Whether --op, --kernel and the device leave this kernel in. */
bool sweep_selects(const struct sweep *sweep, const struct kernel *kernel);
/* How long the next run may sample: what is left of the time, shared among the runs that are left. */
struct measure_options sweep_measuring(struct sweep *sweep);
int sweep_add_chains(struct sweep *sweep, const struct shapes *shapes, const int *m, int m_count, struct error *error);
const char *sweep_chain_name(const struct sweep *sweep, int index);
void sweep_register_chains(struct sweep *sweep);
void sweep_free_chains(struct sweep *sweep);

#endif
