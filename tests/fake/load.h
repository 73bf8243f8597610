/* How a suite loads a library of this folder. */
#ifndef TILEBOOK_TESTS_FAKE_LOAD_H
#define TILEBOOK_TESTS_FAKE_LOAD_H

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The library FOLDER/fake/NAME beside this program; its `fake`. NULL if it was not built. */
static inline void *fake_load(const char *name) {
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    if (length <= 0) return NULL;
    path[length] = 0;
    snprintf(strrchr(path, '/'), 64, "/fake/%s", name);
    void *library = dlopen(path, RTLD_NOW);
    return library ? dlsym(library, "fake") : NULL;
}

#endif
