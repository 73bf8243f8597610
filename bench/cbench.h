/* Google Benchmark for C: as little as the suite needs. */
#ifndef TILEBOOK_CBENCH_H
#define TILEBOOK_CBENCH_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cbench_state; /* valid only while the function that got it runs */

typedef void cbench_function(struct cbench_state *state, void *data);

/* Registers a benchmark under `name` (copied); call before cbench_run. `data` is passed to every call and
 * must outlive cbench_run. The name may carry arguments as Google Benchmark writes them ("op/k:5120/m:16").
 * Manual time, microseconds, one iteration a repetition: the function brings its own statistics. */
void cbench_register(const char *name, cbench_function *function, void *data);

/* True while another iteration is wanted; the loop must run until it says false, unless the state was
 * skipped. */
bool cbench_keep_running(struct cbench_state *state);
/* Seconds of the iteration that just ran; exactly once an iteration. */
void cbench_set_iteration_time(struct cbench_state *state, double seconds);
/* A named figure of this run (name copied). */
void cbench_set_counter(struct cbench_state *state, const char *name, double value);
/* Text shown at the end of the line and in the JSON's "label" (copied). */
void cbench_set_label(struct cbench_state *state, const char *label);
/* Ends this run as an error; keep_running is false from here on. The others go on. */
void cbench_skip_with_error(struct cbench_state *state, const char *message);

/* A key of the JSON's "context" (both copied); call before cbench_run. */
void cbench_add_context(const char *key, const char *value);

/* What Google Benchmark adds to the name of every benchmark of this kind. */
#define CBENCH_ENDING "/iterations:1/manual_time"
/* Whether --benchmark_filter leaves a benchmark of this name in; after cbench_initialize. */
bool cbench_selects(const char *name);

/* Takes the --benchmark_* flags out of argv (argc is updated). */
void cbench_initialize(int *argc, char **argv);
/* From when *flag is not 0 on no further benchmark starts: each that is left is an error, "interrupted", in the output,
 * which so becomes complete. `flag` must outlive cbench_run. */
void cbench_stop_at(const volatile sig_atomic_t *flag);
/* Runs what the filter selects. Returns how many benchmarks ran. */
int cbench_run(void);

#ifdef __cplusplus
}
#endif
#endif
