/* A JSON file of a sweep that another sweep goes on with (`--resume`). While that one runs the file stays as it is:
 * Google Benchmark writes to FILE.part, whose rows then replace those of the same names or come behind the others. What
 * a killed run left is taken up too: a part beside the file, and either of them cut off behind any row. */
#ifndef TILEBOOK_RESUME_H
#define TILEBOOK_RESUME_H

#include <stdio.h>

#include "bench/context.h"

#define RESUME_SUFFIX ".part" /* behind the name of the JSON file */

struct resume;

/* Reads `path`, which must be there, and its part. Errors name the file and what to do. Free it with resume_free. */
int resume_open(const char *path, struct resume **resume, struct error *error);
/* -1 if the rows were measured on another device, with other sources or in another way: what differs, what to run. */
int resume_check(const struct resume *resume, const struct context *context, struct error *error);
/* The ceilings that the rows refer to. */
int resume_ceilings(const struct resume *resume, struct ceilings *ceilings, struct error *error);
/* Whether the point of this name is measured; one that failed is not. */
bool resume_has(const struct resume *resume, const char *name);
/* From now on it is not. */
void resume_forget(struct resume *resume, const char *name);
/* A counter of it; 0 if the row has not got it. */
double resume_counter(const struct resume *resume, const char *name, const char *counter);
/* Opens the text file of lines "NAME ..." behind `header` that lies beside the JSON, to append to it. Only lines of
 * measured points stay; one that is not there is begun. */
int resume_lines(const struct resume *resume, const char *path, const char *header, FILE **file, struct error *error);
/* The part's rows into the file, by way of a temporary file; the part is gone then. */
int resume_finish(struct resume *resume, struct error *error);
void resume_free(struct resume *resume);

#endif
