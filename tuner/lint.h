/* What is wrong with a tile table that reads well. */
#ifndef TILEBOOK_LINT_H
#define TILEBOOK_LINT_H

#include "kernels/device.h"
#include "kernels/tiles.h"

/* One finding: a line without its newline, with what to run next. */
typedef void lint_report(void *context, const char *line);

/* Checks that every row names a kernel of its op, a shape that the op takes and a configuration that the
 * kernel has; that no winner is slower than the default, unless the row says tie; that no throttled card measured it.
 * Then it asks for every m from 1 to 8192, and as far as rows reach, what a consumer asks (choice.h): m without a row,
 * rows of which another hides a part, rows that no lookup gives. With a device also that the table is for it, and that
 * what a lookup gives is legal there at that m; NULL leaves that out. Returns the number of findings. */
int lint_table(const struct tile_table *table, const struct device *device, lint_report *report, void *context);

#endif
