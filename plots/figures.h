/* The figures: what each needs, and the plain data files that its gnuplot script reads. */
#ifndef TILEBOOK_PLOTS_FIGURES_H
#define TILEBOOK_PLOTS_FIGURES_H

#include <stdbool.h>

#include "bench/samples.h"
#include "bench/states.h"
#include "plots/results.h"

struct figure_input {
    const struct results_sweep *sweep;
    const struct results_trials *trials;
    const struct results_report *report;
    const struct samples *samples;
    const struct states *states;
    const struct results_profiles *profiles;
    const struct results_matches *matches;
    const char *device; /* for titles */
    const char *x, *y;  /* the heat map's parameters; NULL: those that matter most */
    int m;              /* of the spread of samples; 0: the least */
};

/* What a script gets besides the data files DIRECTORY/NAME-1.dat ... NAME-PANELS.dat. */
struct figure_text {
    char title[256], subtitle[256];
    int panels;
};

/* Writes the data files into `directory`. 1 and why if the input does not hold what the figure shows, -1 on
 * failure. */
typedef int figure_writer(const struct figure_input *input, const char *directory, struct figure_text *text,
                          struct error *error);
figure_writer figure_speedup, figure_tflops, figure_roofline; /* sweep_figures.c */
figure_writer figure_ecdf;                                    /* sweep_figures.c */
figure_writer figure_card;                                    /* card_figure.c */
figure_writer figure_heatmap, figure_convergence;             /* trial_figures.c */
figure_writer figure_peers, figure_floor;                     /* report_figures.c */
figure_writer figure_token;                                   /* token_figure.c */
figure_writer figure_against;                                 /* against_figure.c */

/* sweep.json, trials.csv, report.csv, sweep.json.samples, sweep.json.states, profile.jsonl, against.jsonl */
enum source {
    SOURCE_SWEEP,
    SOURCE_TRIALS,
    SOURCE_REPORT,
    SOURCE_SAMPLES,
    SOURCE_STATES,
    SOURCE_PROFILE,
    SOURCE_AGAINST,
    SOURCE_COUNT
};

struct figure {
    const char *name; /* of the script, too */
    const char *help;
    enum source source;
    figure_writer *write;
};

extern const struct figure figures[];
extern const int figure_count;

#endif
