/* report.csv: a row a point beside what it is compared with; sweeps append to it. */
#ifndef TILEBOOK_ROWS_H
#define TILEBOOK_ROWS_H

#include <stdio.h>

#include "kernels/kernel.h"

#define ROWS_HEADER "op,layer,k,n,group,zeros,m,epilogue,regime,kernel,config,us,p20,p80,floor_us,cublas_us"

struct row {
    const char *layer, *regime; /* "cold stream cupti": the cache, how calls are launched, the clock */
    const char *kernel, *config;
    const struct problem *problem;
    double us, p20_us, p80_us;
    double floor_us, cublas_us; /* 0: no value, an empty field */
    bool throttled;             /* measured on an impaired card; no field of the report */
};

/* Opens a report to append rows; a new or empty one gets the header. -1 if the file is anything but a report whose last
 * line is whole: it is left as it was. */
int rows_open(const char *path, FILE **file, struct error *error);
/* One line, in the file when this returns. */
int rows_put(FILE *file, const struct row *row, struct error *error);

#endif
