/* What was looked up in a tile table and not found there, or found by fallback only: a text file that decoder and sweep
 * append to and `tilebook tune --from-misses` reads.
 *
 *     # tilebook misses 1
 *     # op        k    n    g   zeros epilogue m  why
 *     marlin_gemm 5120 7168 128 1     bias     37 above
 *
 * why: "above" the last row's range, which was used; "no-row" of this op and shape; "refused": the row cannot run here;
 * "no-table". */
#ifndef TILEBOOK_MISSES_H
#define TILEBOOK_MISSES_H

#include "kernels/choice.h"

struct miss {
    struct problem problem;
    enum choice_how how;
};

struct misses {
    struct miss *list;
    int count;
};

/* Remembers it, unless it is a hit or known. -1 when out of memory. */
int misses_note(struct misses *misses, const struct problem *problem, enum choice_how how, struct error *error);
/* All of a file, each once; "FILE:LINE: ..." for what is no miss. */
int misses_read(const char *path, struct misses *misses, struct error *error);
/* Appends to the file those that it does not have; *added counts them. It is made if need be, by the first miss. */
int misses_append(const char *path, const struct misses *misses, int *added, struct error *error);
void misses_free(struct misses *misses);

#endif
