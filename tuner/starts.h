/* Where a search begins: what is stored of the problem, and what tables say of it and of its neighbours in m. */
#ifndef TILEBOOK_STARTS_H
#define TILEBOOK_STARTS_H

#include "kernels/tiles.h"
#include "tuner/search.h"
#include "tuner/store.h"

struct starts {
    struct search_start *list;
    int count;
};

int starts_add(struct starts *starts, const struct kernel *kernel, const struct config *config, bool always,
               struct error *error);
/* The stored trials of the problem in the order they ran, so that a search takes the same path again whatever it once
 * began with. Those of kernels that are not in the list are passed over. */
int starts_add_stored(struct starts *starts, struct store *store, const struct store_scope *scope,
                      const struct kernel *const *kernels, const struct problem *problem, struct error *error);
/* The table's row for the problem, which is tried always, and the rows below and above it, each if it can run here. The
 * table may be of any device and any sources: no time of it counts. `taken`, if not NULL, has a flag for each row. */
int starts_add_rows(struct starts *starts, const struct tile_table *table, const struct device *device,
                    const struct kernel *const *kernels, const struct problem *problem, bool *taken,
                    struct error *error);
void starts_free(struct starts *starts);

#endif
