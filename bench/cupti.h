/* CUPTI activity records as a clock. Opened at run time. */
#ifndef TILEBOOK_CUPTI_H
#define TILEBOOK_CUPTI_H

#include <stdint.h>

#include "kernels/device.h"

/* One call of an operation, as the records tell it. */
struct cupti_sample {
    double sum_us;       /* kernel times added up */
    double span_us;      /* first start to last end */
    uint64_t start, end; /* of the same; ns on a clock that all samples share */
    int kernels;
    uint64_t names; /* sum of the hashes of the kernels' names: those that overlap may start in another order */
};

/* Attaches to the process; -1 and why when CUPTI is missing or held by another tool. Once per process;
 * later calls give the same answer. */
int cupti_open(struct error *error);
/* From now on only kernels of this GPU are kept, where several run what a sample enqueues. */
void cupti_watch(const struct device *device);
/* Brackets the enqueueing of sample `index`: its kernels are tagged with the external correlation id. */
int cupti_begin(uint64_t index, struct error *error);
int cupti_end(struct error *error);
/* After the device is idle: the samples `first` ... `first + count - 1`. Missing, zero or dropped records and
 * names that differ between samples are errors. */
int cupti_collect(uint64_t first, int count, struct cupti_sample *samples, struct error *error);
/* The kernels of these samples, by sample and start, however many each has; the caller frees. */
struct cupti_kernel;
int cupti_kernels(uint64_t first, int count, struct cupti_kernel **kernels, size_t *kernel_count, struct error *error);
/* "cupti 13.0"; "" when not attached. */
const char *cupti_version(void);

/* --- what the records say, apart from where they come from; times in ns --- */

struct cupti_kernel {
    uint64_t start, end;
    uint64_t name;     /* hash */
    const char *label; /* the name; CUPTI keeps it */
    uint64_t sample;
    uint32_t correlation;
};

/* The launch with this correlation id belongs to that sample. */
struct cupti_tag {
    uint64_t sample;
    uint32_t correlation;
};

struct cupti_log {
    struct cupti_kernel *kernels;
    struct cupti_tag *tags;
    size_t kernel_count, kernel_room, tag_count, tag_room;
    size_t lost; /* records that CUPTI dropped or that found no memory */
};

void cupti_log_kernel(struct cupti_log *log, uint32_t correlation, uint64_t start, uint64_t end, const char *name);
void cupti_log_tag(struct cupti_log *log, uint32_t correlation, uint64_t sample);
/* As cupti_collect; records may have come in any order. Empties the log. */
int cupti_log_samples(struct cupti_log *log, uint64_t first, int count, struct cupti_sample *samples,
                      struct error *error);
/* As cupti_kernels. */
int cupti_log_kernels(struct cupti_log *log, uint64_t first, int count, struct cupti_kernel **kernels,
                      size_t *kernel_count, struct error *error);
void cupti_log_free(struct cupti_log *log);

#endif
