/* Stores of several machines, or of several runs, as one. */
#ifndef TILEBOOK_MERGE_H
#define TILEBOOK_MERGE_H

#include "kernels/error.h"

/* Rows of all tables: trials, finals, regrets. */
struct merged {
    int rows, added, newer; /* read; not there before; in place of an older one. The others are older and left out */
};

/* Adds to the store `into`, which is made if need be, what `from` has. That stays as it is and may be of an older
 * version. Of two rows with the same key the one that was finished later stays, with its samples and environment; the
 * one that was there if both were at once. All or nothing. */
int merge_store(const char *into, const char *from, struct merged *merged, struct error *error);

#endif
