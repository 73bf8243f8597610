/* Which kernel and configuration computes a problem: the tile table's, else the built-in default. Made when first
 * asked for, and kept. */
#ifndef TILEBOOK_DECODER_PLANS_H
#define TILEBOOK_DECODER_PLANS_H

#include <stdio.h>

#include "bench/misses.h"
#include "kernels/kernel.h"
#include "kernels/tiles.h"

struct plans;

/* The table (NULL for none) must outlive the plans. NULL when out of memory. */
struct plans *plans_create(struct device *device, const struct tile_table *table);
void plans_destroy(struct plans *plans);
/* As they were created with it. */
const struct tile_table *plans_table(const struct plans *plans);
/* Says that a problem will be prepared: chooses what computes it, and begins to compile that on another thread. */
int plans_expect(struct plans *plans, const struct problem *problem, struct error *error);
/* Makes the plan of a problem ready, its workspace too. */
int plans_prepare(struct plans *plans, const struct problem *problem, struct error *error);
/* Whether a problem with a norm is run with it: else its kernel has none, and plans_run takes x that is normalised
 * already. */
bool plans_norms(struct plans *plans, const struct problem *problem);
/* Runs it; operands.workspace is filled in. */
int plans_run(struct plans *plans, const struct problem *problem, struct operands operands, struct error *error);
/* The workspace that all plans share, NULL where none needs one: another one, once a plan is prepared that needs more.
 */
const void *plans_memory(const struct plans *plans);
/* Its bytes. */
size_t plans_workspace(const struct plans *plans);
/* "op k n m kernel configuration tuned|default", and why a table's row was not used, one plan a line. */
void plans_print(const struct plans *plans, FILE *stream);

/* Notes what the table did not say. */
int plans_misses(const struct plans *plans, struct misses *misses, struct error *error);

#endif
