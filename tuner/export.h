/* A tile table in other clothes. */
#ifndef TILEBOOK_EXPORT_H
#define TILEBOOK_EXPORT_H

#include <stdio.h>

#include "kernels/tiles.h"

/* An object with the header's fields and "rows": [{op, k, n, group, m_low, m_high, kernel, configuration:
 * {name: value}, us, gbs, tie, default_us}]. -1 when out of memory or if the stream fails. */
int export_json(const struct tile_table *table, FILE *stream);
/* A header line, then a row a line; fields with a comma or a quote are quoted. */
void export_csv(const struct tile_table *table, FILE *stream);
/* A self-contained C11 header: macros that name the device, struct tilebook_row, and
 * tilebook_find(op, k, n, group, m), which gives the row that tiles_find gives. */
void export_c(const struct tile_table *table, FILE *stream);
/* A C string literal: octal escapes for what could end it, start a trigraph or leave ASCII. */
void export_c_string(FILE *stream, const char *text);

#endif
