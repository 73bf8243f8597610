/* The options that choose points, for every command that has them: which kernels and configurations, on which problems,
 * with which data, on which device and in which regime. */
#ifndef TILEBOOK_SELECTION_H
#define TILEBOOK_SELECTION_H

#include <argp.h>

#include "bench/sweep.h"

struct selection {
    struct sweep_options sweep;
    const char *device, *table; /* table: a file, or NULL */
    enum regime regime;
    bool small; /* nobody chose the shape and there is no GPU */
};

/* A child parser; its input is a struct selection that began as this. */
extern const struct argp selection_parser;
extern const struct selection selection_default;

/* Fills in what nobody chose and the device decides, and checks that the device has the regime. Errors are the
 * user's. */
int selection_settle(struct selection *selection, const struct device *device, struct error *error);
/* The tile table, which must be this device's; one without rows if none was asked for. For tiles_free. */
int selection_table(const struct selection *selection, const struct device *device, struct tile_table *table,
                    struct error *error);

#endif
