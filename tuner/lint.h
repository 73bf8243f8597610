/* What is wrong with a tile table that reads well. */
#ifndef TILEBOOK_LINT_H
#define TILEBOOK_LINT_H

#include "kernels/device.h"
#include "kernels/tiles.h"

/* One finding: a line without its newline, with what to run next. */
typedef void lint_report(void *context, const char *line);

/* Checks that every row names a kernel of its op, a shape that the op takes and a configuration that the
 * kernel has; that each (op, k, n, group) starts at m = 1; that lookups over each range give its row; that no
 * winner is slower than the default, unless the row says tie; that no throttled card measured it. With a device also
 * that the table is for it and that every configuration is legal there, at both ends of its range; NULL leaves that
 * out. Returns the number of findings. */
int lint_table(const struct tile_table *table, const struct device *device, lint_report *report, void *context);

#endif
