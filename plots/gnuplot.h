/* Runs the scripts of this folder. */
#ifndef TILEBOOK_PLOTS_GNUPLOT_H
#define TILEBOOK_PLOTS_GNUPLOT_H

#include "plots/figures.h"

/* The folder of the scripts: plots/ of the source tree that holds the program, or share/tilebook/plots beside
 * its bin/. */
int gnuplot_scripts(char scripts[4096], struct error *error);

/* Draws OUT/NAME.FORMAT ("png" or "svg") from the data files; an existing file stays whole on failure. `out`
 * and `data` are absolute. No shell is involved, and texts reach the scripts as strings only. */
int gnuplot_draw(const char *scripts, const struct figure *figure, const struct figure_text *text,
                 const struct figure_input *input, const char *data, const char *out, const char *format,
                 struct error *error);

#endif
