/* What the writers of figures share: files of numbers, and the one way to have nothing to draw. */
#ifndef TILEBOOK_PLOTS_DATA_H
#define TILEBOOK_PLOTS_DATA_H

#include <stdio.h>

#include "plots/figures.h"

/* DIRECTORY/NAME-NUMBER.dat: blocks of rows, two blank lines apart. NULL on error. */
FILE *data_open(const char *directory, const char *name, int number, struct error *error);
/* -1 if anything failed to be written. */
int data_close(FILE *file, const char *name, struct error *error);
/* A quoted text and a blank. */
void data_text(FILE *file, const char *text);
/* The first row of a block: the titles of the panel and of the line. */
void data_header(FILE *file, const char *panel, const char *line);

/* A row of a line over M: the value, and between which two, in either order, its band lies. */
void data_band(FILE *file, int m, double value, double one, double other);
/* The only row of a line that is not in this panel. */
void data_none(FILE *file);

/* Sets the message and returns 1: what the figure shows was not measured. */
int figure_missing(struct error *error, const char *what);

#endif
