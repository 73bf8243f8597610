/* `tilebook sweep --markdown FILE`: a table for a pull request, a row a point. */
#ifndef TILEBOOK_MARKDOWN_H
#define TILEBOOK_MARKDOWN_H

#include "bench/context.h"
#include "bench/rows.h"

/* What was measured on, then the head of the table; with `beside` for rows that have floor_us and cublas_us. */
void markdown_begin(FILE *file, const struct context *context, bool beside);
/* A row without us is of a point that failed. Errors are left to ferror. */
void markdown_put(FILE *file, const struct row *row, const struct ceilings *ceilings, bool beside);

#endif
