/* Text files of our own: a header, then a row a line, written whole or not at all. */
#ifndef TILEBOOK_LINES_H
#define TILEBOOK_LINES_H

#include "kernels/error.h"

/* NULL, or what is wrong with a row; the line is the function's to take apart. */
typedef const char *lines_take(void *context, char *line);

/* Gives every line behind the header to `take`, without its end. Errors name the file and the line: it cannot be read,
 * is empty, has another header, a byte 0, a line without an end, or one that `take` refuses. */
int lines_read(const char *path, const char *header, lines_take *take, void *context, struct error *error);

#endif
