/* Loads libraries that follow tilebook_peer.h and makes their kernels some of the registry. */
#ifndef TILEBOOK_PEER_LOAD_H
#define TILEBOOK_PEER_LOAD_H

#include "kernels/kernel.h"

enum { MAX_PEERS = 16 };

/* Registers a kernel "peer:NAME" for each op of the library, for as long as the process lives. Errors: no file, not a
 * shared library, one for another machine, no or another version of the entry, a bad name, a name twice. */
int peer_load(const char *path, struct error *error);

/* Where the process is in a library's code, for another one that watches it through shared memory. */
struct peer_watch {
    int library;                   /* in the order of loading, from 0 */
    const char *volatile function; /* the last one called, "run"; "loading" in its constructors; NULL: none yet */
    volatile bool inside;          /* not returned yet */
    unsigned seconds; /* more than 0: calls that take longer end the process with SIGALRM, and each is waited for, so
                         that what it enqueued belongs to it */
};
void peer_set_watch(struct peer_watch *watch);

#endif
