/* Reads what sweep and tune leave behind, for the figures. */
#ifndef TILEBOOK_PLOTS_RESULTS_H
#define TILEBOOK_PLOTS_RESULTS_H

#include <jansson.h>
#include <stddef.h>

#include "kernels/error.h"
#include "kernels/kernel.h"

enum { RESULTS_NAME = 512 };

/* The best configuration of one kernel on one problem. */
struct results_point {
    struct problem problem;
    char kernel[64];           /* "marlin_gemm/mma" */
    int layer;                 /* index into results_sweep.layers */
    int order;                 /* as found in the file */
    double us, p20_us, p80_us; /* us: median; a file without the others has it in their place */
    char name[RESULTS_NAME];   /* of its row, without what Google Benchmark adds */
};

struct results_layer {
    char name[40];
    int k, n;
    enum epilogue epilogue; /* of its GEMMs, which all have the same, and the same norm */
    bool norm, has_gemm;
};

struct results_sweep {
    char device[160];               /* "NVIDIA H100 80GB HBM3 (sm_90a)" */
    char regime[160];               /* "cache cold, launch stream" */
    double read_gbs, matrix_tflops; /* measured ceilings; 0 if the file has none */
    struct results_layer *layers;   /* in the file's order */
    int layer_count;
    struct results_point *points; /* by m, then in the file's order */
    int count;
};

/* The JSON of `tilebook sweep`. Failed benchmarks and aggregates are left out; of several configurations the
 * fastest stays. Errors name the file, the benchmark and the field. */
int results_read_sweep(const char *path, struct results_sweep *sweep, struct error *error);
void results_free_sweep(struct results_sweep *sweep);

struct results_trial {
    char op[24], kernel[64], configuration[MAX_CONFIG_TEXT];
    int k, n, group, m, order;
    double us; /* 0 unless the trial's status is "ok" */
};

struct results_trials {
    struct results_trial *list; /* by op, k, n, group, m, then order */
    int count;
};

/* trials.csv of `tilebook tune`; its columns may come in any order. Errors name the file and the line. */
int results_read_trials(const char *path, struct results_trials *trials, struct error *error);
void results_free_trials(struct results_trials *trials);
bool results_same_problem(const struct results_trial *a, const struct results_trial *b);

/* --- report.csv, and peers.csv beside it --- */

struct results_row {
    enum op op;
    char layer[40], kernel[64];
    int k, n, m;
    bool zeros;
    double us, floor_us, cublas_us; /* 0: no value, but for us */
    double p20_us, p80_us;          /* us where the file has none */
};

struct results_peer {
    char kernel[40];
    int k, n, m;
    double us;
    int file; /* of those that were read: a run of its own */
};

/* Of the file's first regime, the first int4 group size, and without an epilogue: what one figure can compare. */
struct results_report {
    char regime[64];          /* "cold stream cupti" */
    int group;                /* 0 if there is no int4 row */
    struct results_row *rows; /* by m, the fastest first */
    int count;
    struct results_layer *layers; /* in the file's order */
    int layer_count;
    struct results_peer *peers; /* by m, then in the file's order */
    int peer_count, peer_files;
};

/* The CSV of `tilebook sweep --report`. */
int results_read_report(const char *path, struct results_report *report, struct error *error);
/* kernel,layer,k,n,m,us of another run; its "cublas" is what its others are compared with. Adds to a report. */
int results_read_peers(const char *path, struct results_report *report, struct error *error);
void results_free_report(struct results_report *report);

/* --- profile.jsonl --- */

enum { RESULTS_OPS = 15 };

/* A decoded token; times in us. */
struct results_token {
    char label[80];
    double us[RESULTS_OPS]; /* of each op */
    double gap_us;          /* in which nothing ran */
};

struct results_profiles {
    char device[160]; /* and the clock, of the last token */
    char ops[RESULTS_OPS][24];
    int op_count;
    struct results_token *tokens; /* in the file's order */
    int count;
};

/* Lines of `tilebook decode --profile --json`. */
int results_read_profiles(const char *path, struct results_profiles *profiles, struct error *error);
void results_free_profiles(struct results_profiles *profiles);

/* --- against.jsonl --- */

/* How many times the tok/s of another table one gives, and between which two the 95% interval lies. */
struct results_ratio {
    double tok_s, against_tok_s, speedup, low, high;
};

struct results_match {
    char label[80];
    struct results_ratio decode, prefill;
};

struct results_matches {
    char against[64]; /* the other table, of the last match; without its folder */
    struct results_match *matches;
    int count;
};

/* Lines of `tilebook decode --bench --against TABLE --json`. */
int results_read_matches(const char *path, struct results_matches *matches, struct error *error);
void results_free_matches(struct results_matches *matches);

/* --- common --- */

/* Calls `read` for each line's JSON (NULL: it is none); errors get the line's number. */
int results_read_lines(const char *path, int (*read)(const json_t *object, void *context, struct error *error),
                       void *context, struct error *error);
/* Room for one more element of an array that doubles. */
void *results_grow(void *array, int count, size_t size);

#endif
