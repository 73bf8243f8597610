/* The search for the best configuration of one problem. It neither measures nor stores: a callback does. */
#ifndef TILEBOOK_SEARCH_H
#define TILEBOOK_SEARCH_H

#include "kernels/kernel.h"

/* How a trial ended. Only TRIAL_OK has times and may win. */
enum trial_status {
    TRIAL_OK,
    TRIAL_CORRECTNESS, /* ran, but the output differs from the reference */
    TRIAL_CONSTRAINT,  /* refused: not legal, or more memory than there is */
    TRIAL_COMPILE,     /* the device code does not compile or load */
    TRIAL_RUNTIME,     /* launch or measuring failed, or took the process along */
    TRIAL_TIMEOUT,     /* not done when its time was up */
    TRIAL_STATUSES,
};
const char *trial_status_name(enum trial_status status);

struct trial_result {
    enum trial_status status;
    char message[256]; /* why it failed; "" if it did not */
    double us, p20_us, p80_us, min_us;
    double low_us, high_us; /* 95% interval of the median */
    double error;           /* relative, against the reference; 0 if it never ran */
    double seconds;         /* what the trial cost, all told */
    int samples;
    float *sample_us;         /* malloc'ed; may be NULL when the trial comes from a store */
    char stop[16], clock[16]; /* as in struct measurement */
    int sm_mhz, memory_mhz, celsius;
    double watts;
    unsigned long long throttle;
};

struct trial {
    const struct kernel *kernel;
    struct config config;
    bool is_default;  /* the built-in default of this problem */
    double elapsed_s; /* cost of this trial and those before it in this search */
    struct trial_result result;
};

/* Where a trial was ahead of the incumbent beyond the noise, those that may replace it are measured by turns with it:
 * the incumbent, the incumbent again, then the fastest trials that do not lie beyond the noise from the first. Of nine
 * rounds one outlier at each side decides nothing (median_interval). */
enum { FINALISTS = 3, FINAL_ROUNDS = 9 };
struct finals {
    int count;               /* of finalists; 0: none was needed, or the search was stopped before */
    int trial[FINALISTS];    /* which they are */
    struct trial_result run; /* its status, message, seconds and throttle; us and what follows are not set */
    double us[FINALISTS];    /* medians of the rounds */
    double ratio[FINALISTS]; /* to the incumbent's, median of the rounds */
    bool faster[FINALISTS];  /* beyond the noise */
    double incumbent_us;
};

struct calibration;

/* What a search need not come to by itself; passed over where it is not legal. */
struct search_start {
    const struct kernel *kernel;
    struct config config;
    bool always; /* whatever the limits */
};

/* How the legal space is gone through. Whatever comes before it (search_run) is the same. */
enum strategy {
    STRATEGY_GUIDED,     /* by the estimate, from the ninth trial on by turns with the leader's neighbours */
    STRATEGY_RACING,     /* the same; a trial ends as soon as it is beaten by the leader */
    STRATEGY_RANDOM,     /* each with the same chance, in an order that is always the same */
    STRATEGY_EXHAUSTIVE, /* by the estimate alone */
    STRATEGIES,
};
const char *strategy_name(enum strategy strategy);
int strategy_parse(const char *text, enum strategy *strategy, struct error *error);

struct search {
    const struct device *device;
    const struct kernel *const *kernels; /* ends with NULL; those of other ops and backends are skipped */
    struct problem problem;
    enum strategy strategy;
    const struct calibration *calibration; /* of the estimates behind the default; NULL for none */
    const struct search_start *starts;     /* tried first, in this order */
    int start_count;
    const struct trial *known; /* not NULL: in place of a search these are tried; the first is the incumbent */
    int known_count;
    int m_low;            /* the winner must be legal from here up to problem.m */
    int trials;           /* at most; 0 for no limit */
    double seconds;       /* no trial starts when the costs add up to this; 0 for no limit */
    int finalists;        /* in a final, at most; 0 for FINALISTS */
    double final_seconds; /* of a final, about; fewer finalists and shorter rounds, or none, fit in; 0 for no limit */
    /* Fills the result; what takes longer than beaten_us (if not 0) beyond the noise need not be known any better. Not
     * 0 ends the search: the trial is not recorded and search_run returns that. */
    int (*trial)(void *context, const struct kernel *kernel, const struct problem *problem, const struct config *config,
                 double beaten_us, struct trial_result *result);
    /* Told what will probably be tried before long, as far as the limits let it, the soonest first; may be NULL. */
    void (*expect)(void *context, const struct kernel *kernel, const struct problem *problem,
                   const struct config *config);
    /* Measures `count` arms by turns, as supervisor_rounds does; not 0 ends the search. NULL: trials alone decide, as
     * they do where there is no time for a final. */
    int (*final)(void *context, const struct problem *problem, const struct trial *const *arms, int count,
                 double round_s, struct trial_result *result);
    void *context;
};

struct search_result {
    struct trial *trials; /* in the order they ran */
    int count, capacity;
    int best;      /* index of the winner; -1 if nothing worked */
    int baseline;  /* index of the built-in default; -1 if there is none, or none yet */
    int incumbent; /* what only a faster one replaces, beyond the noise: the default, or the first known; -1 likewise */
    int ties;      /* other trials within the noise of the winner */
    struct finals finals;
};

/* Tries, in this order: the built-in default and every kernel without parameters (always, whatever the
 * limits); the starts; the legal space as the strategy says; neighbours are legal and one parameter a step away. The
 * choice depends on nothing but the strategy, the calibration, the starts and the results: a search that is fed stored
 * results takes the same path, and one with larger limits goes on from there. `result` is valid and to be freed
 * whatever is returned. -1 if the device has no kernel for the problem; 0 with no trials if no configuration of any is
 * legal, and `error` says why there is no default. */
int search_run(const struct search *search, struct search_result *result, struct error *error);
/* Tries nothing: tells search->expect what search_run would try first, and *space how many configurations are legal. */
int search_outline(const struct search *search, long *space, struct error *error);
void search_result_free(struct search_result *result);
/* Another trial that worked in the winner's place; ties are then those within its noise, neither faster nor slower. */
void search_replace(struct search_result *result, int trial);
/* Microseconds of the winner, which must be there, and of the default (0 if it did not work): by turns where they were
 * in the final, else of their trials. */
double search_best_us(const struct search_result *result);
double search_default_us(const struct search_result *result);
/* What the incumbent loses to the best, as a share of that: by turns where they were in a final, and 0 unless it is
 * beyond the noise. */
double search_regret(const struct search_result *result);

/* True if a's time lies below b's beyond the noise: the middle 60% of samples or the medians' 95% intervals
 * do not touch, and the medians differ by more than 1%. */
bool trial_faster(const struct trial_result *a, const struct trial_result *b);

#endif
