/* Device code compiled for the host (README.md) and loaded. */
#ifndef TILEBOOK_EMULATION_LOAD_H
#define TILEBOOK_EMULATION_LOAD_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kernels/device.h"

/* Runs a launch, asynchronous copies late or at once, in an order of that seed; `arguments` points to what the entry
 * takes. Returns the bank conflicts that ldmatrix met. */
typedef long emulate_function(const void *arguments, const struct device_grid *grid, bool late, unsigned seed);

/* Where what is compiled lies: for all suites of a run where tests/run says, else for this process alone. */
static char emulation_folder[128];

static void emulation_forget(void) {
    char command[sizeof emulation_folder + 8];
    snprintf(command, sizeof command, "rm -r %s", emulation_folder);
    if (system(command)) print_error("%s: failed\n", command);
}

static inline void emulation_open_folder(void) {
    const char *shared = getenv("TILEBOOK_EMULATIONS");
    if (emulation_folder[0]) return;
    snprintf(emulation_folder, sizeof emulation_folder, "%s", shared ? shared : "/tmp/tilebook-emulation-XXXXXX");
    if (!shared && (!mkdtemp(emulation_folder) || atexit(emulation_forget))) fail_msg("%s", emulation_folder);
}

/* The compiler's work with these arguments, done already or now; its name is theirs, hashed. */
static inline void emulation_compile(const char *arguments, char path[192]) {
    char command[2048];
    uint64_t name = 14695981039346656037u;
    emulation_open_folder();
    for (const char *c = arguments; *c; c++) name = (name ^ (unsigned char)*c) * 1099511628211u;
    snprintf(path, 192, "%s/%016llx", emulation_folder, (unsigned long long)name);
    if (!access(path, R_OK)) return;
    int length = snprintf(
        command, sizeof command,
        "c++ -std=c++17 -O1 -w -Wno-psabi -fPIC -Itests/emulation -Ikernels -Ibench -I. %s -o %s.%d && mv %s.%d %s",
        arguments, path, (int)getpid(), path, (int)getpid(), path);
    assert_in_range(length, 1, sizeof command - 1);
    if (system(command)) fail_msg("%s: failed", command);
}

/* `arguments`: the type that the entry takes. The caller closes the library. */
static inline void *emulation_load(const char *source, const char *entry, const char *arguments, const char *options,
                                   emulate_function **emulate) {
    char runs[192], path[192], line[1536];
    emulation_compile("-c tests/emulation/emulate.cc", runs);
    snprintf(line, sizeof line, "-shared -DSOURCE='\"%s\"' -DENTRY=%s -DARGUMENTS='%s' %s tests/emulation/entry.cc %s",
             source, entry, arguments, options, runs);
    emulation_compile(line, path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail_msg("%s", dlerror());
    *emulate = (emulate_function *)dlsym(library, "emulate");
    assert_non_null(*emulate);
    return library;
}

#endif
