/* Which kernel and configuration computes a problem: what everyone asks who runs kernels with a tile table, or without.
 */
#ifndef TILEBOOK_CHOICE_H
#define TILEBOOK_CHOICE_H

#include "kernels/kernel.h"
#include "kernels/tiles.h"

/* How a choice was come by; everything behind CHOICE_ROW is something that a table should have said. */
enum choice_how {
    CHOICE_ROW,     /* the table's row whose range holds m */
    CHOICE_ABOVE,   /* the table's last row of this op and shape, whose range ends below m */
    CHOICE_NO_ROW,  /* the built-in default: the table has no row for it */
    CHOICE_REFUSED, /* the built-in default: the table's row cannot run here */
    CHOICE_NO_TABLE /* the built-in default */
};

struct choice {
    const struct kernel *kernel;
    struct config config;
    enum choice_how how;
    const struct tile_row *row; /* that was looked up, also a refused one; NULL without */
    char why[256];              /* the row was refused: the reason; "" else */
};

/* `kernels` ends with NULL (kernel_list(), or some of it); those of other ops and backends are passed over. */

/* The row alone: how it was found, also CHOICE_NO_ROW and CHOICE_REFUSED; then there is no kernel. */
void choice_look_up(const struct device *device, const struct kernel *const *kernels, const struct tile_table *table,
                    const struct problem *problem, struct choice *choice);
/* The built-in default: of all kernels the legal configuration with the least estimate, the first of equals; a peer's
 * only where there is no other. -1 if none is legal; the error says which rule the last kernel's broke, or that there
 * is no kernel. */
int choice_default(const struct device *device, const struct kernel *const *kernels, const struct problem *problem,
                   struct choice *choice, struct error *error);
/* The table's row where it can run, else the default. The table may be NULL. */
int choice_make(const struct device *device, const struct kernel *const *kernels, const struct tile_table *table,
                const struct problem *problem, struct choice *choice, struct error *error);

#endif
