/* CUPTI activity records as a clock. Opened at run time. */
#ifndef TILEBOOK_CUPTI_H
#define TILEBOOK_CUPTI_H

#include <stdint.h>

#include "kernels/device.h"

/* One call of an operation, as the records tell it. */
struct cupti_sample {
    double sum_us;    /* kernel times added up */
    double span_us;   /* first start to last end */
    int kernels;
    uint64_t names;   /* hash of the kernels' names in order */
};

/* Attaches to the process; -1 and why when CUPTI is missing or held by another tool. Once per process;
 * later calls give the same answer. */
int cupti_open(struct error *error);
/* Brackets the enqueueing of sample `index`: its kernels are tagged with the external correlation id. */
int cupti_begin(uint64_t index, struct error *error);
int cupti_end(struct error *error);
/* After the device is idle: the samples `first` ... `first + count - 1`. Missing, zero or dropped records and
 * names that differ between samples are errors. */
int cupti_collect(uint64_t first, int count, struct cupti_sample *samples, struct error *error);
/* "cupti 13.0"; "" when not attached. */
const char *cupti_version(void);

#endif
