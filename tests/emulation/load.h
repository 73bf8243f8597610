/* Device code compiled for the host (README.md) and loaded. */
#ifndef TILEBOOK_EMULATION_LOAD_H
#define TILEBOOK_EMULATION_LOAD_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/device.h"

/* Runs a launch, asynchronous copies late or at once, in an order of that seed; `arguments` points to what the entry
 * takes. Returns the bank conflicts that ldmatrix met. */
typedef long emulate_function(const void *arguments, const struct device_grid *grid, bool late, unsigned seed);

/* `arguments`: the type that the entry takes. The caller closes the library. */
static inline void *emulation_load(const char *source, const char *entry, const char *arguments, const char *options,
                                   emulate_function **emulate) {
    char path[] = "/tmp/tilebook-emulation-XXXXXX", command[1024];
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    snprintf(command, sizeof command,
             "c++ -std=c++17 -O1 -w -shared -fPIC -Itests/emulation -Ikernels -Ibench -I. -DSOURCE='\"%s\"' -DENTRY=%s "
             "-DARGUMENTS='%s' %s tests/emulation/emulate.cc -o %s",
             source, entry, arguments, options, path);
    int status = system(command);
    void *library = status ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unlink(path);
    if (!library) fail_msg("%s: %s", command, status ? "failed" : dlerror());
    *emulate = (emulate_function *)dlsym(library, "emulate");
    assert_non_null(*emulate);
    return library;
}

#endif
