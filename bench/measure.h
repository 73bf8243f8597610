/* The one measuring procedure (README of this folder): every time of this project comes from here. */
#ifndef TILEBOOK_MEASURE_H
#define TILEBOOK_MEASURE_H

#include <stdbool.h>

#include "bench/cupti.h"
#include "bench/instance.h"
#include "bench/nvml.h"

/* How calls reach the device: one by one; many of them as one graph; the same with kernels that may start before the
 * one ahead has ended (programmatic dependent launch), as far as they can. */
enum regime { REGIME_STREAM, REGIME_GRAPH, REGIME_PDL };
/* "stream", "graph", "pdl" */
const char *regime_name(enum regime regime);
int regime_parse(const char *text, enum regime *regime, struct error *error);
/* 0 if the device can do it: the CPU only "stream", GPUs before compute capability 9.0 no "pdl". */
int regime_check(enum regime regime, const struct device *device, struct error *error);

struct measure_options {
    double warmup_seconds; /* at least; until the clock settles */
    double min_seconds, max_seconds;
    int min_samples, max_samples;
    double interval;  /* stop when the 95% interval of the median is narrower than this share of it */
    double beaten_us; /* stop when it lies above this; 0 for none */
    double pace;      /* share of the time in which samples are taken, the device rests between; 0: back to back */
    enum regime regime;
};
/* For sweeps: thorough. For searches: quick. Both in the stream. */
extern const struct measure_options measure_thorough, measure_quick;

/* The card at a moment of a measurement. */
struct measure_state {
    double unix_s;
    struct gpu_state card;
};

struct measurement {
    double median_us, p20_us, p80_us, min_us; /* kernel time of one call, summed over its kernels; pdl: span_us */
    double low_us, high_us;                   /* 95% interval of the median */
    double span_us; /* median of first start to last end of a call; in graphs of that of all, over their number */
    /* A call's share of a batch's time, with what lies between two calls: by CUPTI from the first kernel's start to the
     * last one's end, and by events around the batch. 0 on the CPU. */
    double batch_us, event_us;
    int samples;
    int calls; /* in a sample; `samples` and all times are of one */
    enum regime regime;
    double pace;       /* 0: back to back */
    const char *stop;  /* "interval", "samples", "time", "noise" (more samples did not narrow it), "beaten" */
    const char *clock; /* "cupti", "events" (CUPTI was held by another tool), "monotonic" */
    int sm_mhz, memory_mhz, celsius; /* NVML after the samples; 0 if unknown */
    double watts;
    unsigned long long throttle; /* NVML's reasons, or-ed over the samples */
    float *sample_us;            /* `samples` of them, in order */
    struct measure_state
        *states; /* from the warm-up to the last sample, a tenth of a second apart; none without NVML */
    int state_count;
};

/* Times plan on the instance: copies in rotation when it is cold, inside graphs too. Fits the workspace; does not
 * verify. */
int measure(struct instance *instance, const struct plan *plan, const struct measure_options *options,
            struct measurement *measurement, struct error *error);
/* Times launches of a graph as a whole: us is the span, from the first kernel's start to the last one's end. `regime`
 * is the one it was recorded in. */
int measure_graph(struct device *device, const struct device_graph *graph, enum regime regime,
                  const struct measure_options *options, struct measurement *measurement, struct error *error);
void measurement_free(struct measurement *measurement);

/* The ceilings of this device, measured here and now: read bandwidth (GB/s), copy bandwidth (GB/s, bytes
 * read plus written), and the fp16 matrix rate (TFLOP/s: best baseline kernel of fp16_gemm at 4096^3; on
 * the CPU the best default at a smaller cube). About a second on a GPU. */
struct ceilings {
    double read_gbs, copy_gbs, matrix_tflops;
    struct gpu_state state; /* after them; the reasons or-ed over the matrix samples */
};
int measure_ceilings(struct device *device, struct ceilings *ceilings, struct error *error);
/* The two of the bandwidth alone; a tenth of a second on a GPU. */
int measure_bandwidth(struct device *device, struct ceilings *ceilings, struct error *error);

/* --- the procedure apart from its clock --- */

struct measure_sample {
    float us, span_us, batch_us, event_us;
};
/* Takes `count` samples, one after the other. */
typedef int measure_sampler(void *context, int count, struct measure_sample *samples, struct error *error);

/* Calls in a graph: a multiple of the copies, so that the next launch goes on with the rotation. */
int measure_graph_calls(int copies);
/* What the records of `calls` calls say of one; batch_us and event_us stay 0. Where kernels overlap the span is their
 * time: the sum counts twice what two of them wait for. -1 unless the calls have equally many kernels. */
int measure_share(const struct cupti_sample *records, int calls, bool by_span, struct measure_sample *sample,
                  struct error *error);

/* Warms up, samples until there is a reason to stop, and fills in what follows from the samples alone. A sample is of
 * so many calls. */
int measure_with(measure_sampler *take, void *context, int calls, const struct measure_options *options,
                 struct measurement *measurement, struct error *error);

/* Seconds of the host's monotonic clock. */
double measure_now(void);

void measure_sort(float *values, int count);
/* Of `count` sorted values, at least one; the quantile is the least that `share` of them do not exceed. */
double measure_median(const float *sorted, int count);
double measure_quantile(const float *sorted, int count, double share);

/* The 95% confidence interval of a median lies between the values of ranks *low and *high (from 0, of
 * `count` sorted ones): the narrowest symmetric pair with P(Binomial(count, 1/2) <= low) <= 2.5%.
 * -1 below six values: even their extremes do not cover 95%. */
int median_interval(int count, int *low, int *high);

#endif
