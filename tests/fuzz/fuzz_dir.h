/* One model directory in memory-backed storage for a fuzz target; its files are rewritten for every input. */
#ifndef TILEBOOK_FUZZ_DIR_H
#define TILEBOOK_FUZZ_DIR_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char fuzz_directory[] = "/dev/shm/tilebook-fuzz-XXXXXX";

static void fuzz_clean(void) {
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char path[128];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", fuzz_directory, names[i]);
        unlink(path);
    }
    rmdir(fuzz_directory);
}

static inline const char *fuzz_dir(void) {
    static int made;
    if (!made && (!mkdtemp(fuzz_directory) || atexit(fuzz_clean))) abort();
    made = 1;
    return fuzz_directory;
}

static inline void fuzz_write(const char *name, const uint8_t *bytes, size_t count) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, count, file) != count || fclose(file)) abort();
}

#endif
