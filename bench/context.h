/* What the JSON of a sweep says of itself in "context": by this a file is known again. */
#ifndef TILEBOOK_CONTEXT_H
#define TILEBOOK_CONTEXT_H

#include "bench/sweep.h"

enum { CONTEXT_ENTRIES = 24 };

struct context {
    struct {
        const char *key;
        char value[NVML_STATE];
        bool identity; /* rows of another value must not stand in one file */
    } entries[CONTEXT_ENTRIES];
    int count;
};

/* The ceilings and the card's state are those that the sweep has by now. */
void context_of(const struct sweep *sweep, struct context *context);

#endif
