#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/driver.h"

/* The first match of directory/pattern/name that opens. */
static void *open_below(const char *directory, const char *name) {
    static const char *const folders[] = {"lib64", "lib", "targets/*/lib", "extras/CUPTI/lib64"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof folders / sizeof *folders && !library; i++) {
        char pattern[1024];
        glob_t found;
        snprintf(pattern, sizeof pattern, "%s/%s/%s", directory, folders[i], name);
        if (glob(pattern, 0, NULL, &found)) continue;
        for (size_t j = 0; j < found.gl_pathc && !library; j++)
            library = dlopen(found.gl_pathv[j], RTLD_NOW | RTLD_LOCAL);
        globfree(&found);
    }
    return library;
}

void *cuda_library(const char *const *names) {
    const char *directories[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda"};
    for (; *names; names++) {
        void *library = dlopen(*names, RTLD_NOW | RTLD_LOCAL);
        for (size_t i = 0; i < sizeof directories / sizeof *directories && !library; i++)
            if (directories[i]) library = open_below(directories[i], *names);
        if (library) return library;
    }
    return NULL;
}
