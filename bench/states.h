/* The card while a sweep ran, beside its JSON: a text file with a line a row,
 *     NAME N S1 ... SN
 * separated by single spaces. A state Si is UNIX_SECONDS,SM_MHZ,MEMORY_MHZ,WATTS,CELSIUS,REASONS with NVML's throttle
 * reasons in hexadecimal digits. Repetitions are lines of the same name. The first line is STATES_HEADER. */
#ifndef TILEBOOK_STATES_H
#define TILEBOOK_STATES_H

#include <stdio.h>

#include "bench/measure.h"

#define STATES_HEADER "# tilebook states 1: name n, then n of unix seconds,sm MHz,memory MHz,W,C,throttle reasons"
#define STATES_SUFFIX ".states" /* behind the name of the JSON file */

struct states_row {
    char *name;
    int count;
    struct measure_state *list; /* in the order of time */
};

struct states {
    int count;
    struct states_row *rows;
};

/* Nothing for a measurement without states. The name has no spaces; errors are left to ferror. */
void states_put(FILE *file, const char *name, const struct measurement *measurement);
/* All or nothing. Errors name the line. For states_free, also after an error. */
int states_read(const char *path, struct states *states, struct error *error);
void states_free(struct states *states);

#endif
