#include "kernels/cuda/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/embedded.h"

static const unsigned __int128 fnv_offset = (unsigned __int128)0x6c62272e07bb0142 << 64 | 0x62b821756295c58d;
static const unsigned __int128 fnv_prime = (unsigned __int128)1 << 88 | 0x13b;

struct header {
    char magic[8];
    uint64_t bytes;
    unsigned __int128 checksum;
};

static const char magic[8] = "cubin 1";

static unsigned __int128 hash_bytes(unsigned __int128 seed, const void *data, size_t bytes) {
    const unsigned char *byte = data;
    for (size_t i = 0; i < bytes; i++) seed = (seed ^ byte[i]) * fnv_prime;
    return seed;
}

/* With its NUL, so that "ab" "c" and "a" "bc" differ. */
static unsigned __int128 hash_text(unsigned __int128 seed, const char *text) {
    return hash_bytes(seed, text, strlen(text) + 1);
}

static unsigned __int128 sources;

static void hash_sources(void) {
    sources = fnv_offset;
    for (const struct embedded_source *s = embedded_sources; s->name; s++)
        sources = hash_text(hash_text(sources, s->name), s->text);
}

struct cache_key cache_key(const char *const *parts, int count) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, hash_sources);
    unsigned __int128 value = sources;
    for (int i = 0; i < count; i++) value = hash_text(value, parts[i]);
    struct cache_key key;
    snprintf(key.text, sizeof key.text, "%016llx%016llx", (unsigned long long)(value >> 64), (unsigned long long)value);
    return key;
}

/* The folder of the cache, or -1 when the environment names none. */
static int cache_folder(char *path, size_t size) {
    const char *own = getenv("TILEBOOK_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (own && *own)
        length = snprintf(path, size, "%s", own);
    else if (xdg && *xdg)
        length = snprintf(path, size, "%s/tilebook", xdg);
    else if (home && *home)
        length = snprintf(path, size, "%s/.cache/tilebook", home);
    return length > 0 && (size_t)length < size ? 0 : -1;
}

static int make_folders(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        int status = mkdir(path, 0777);
        *slash = '/';
        if (status && errno != EEXIST) return -1;
    }
    return mkdir(path, 0777) && errno != EEXIST ? -1 : 0;
}

static void *read_entry(FILE *file, size_t *bytes) {
    struct header header;
    struct stat stat;
    if (fread(&header, sizeof header, 1, file) != 1 || memcmp(header.magic, magic, sizeof magic)) return NULL;
    if (fstat(fileno(file), &stat) || header.bytes == 0) return NULL;
    if ((uint64_t)stat.st_size - sizeof header != header.bytes) return NULL;
    void *data = malloc(header.bytes);
    if (!data) return NULL;
    *bytes = header.bytes;
    if (fread(data, *bytes, 1, file) == 1 && hash_bytes(fnv_offset, data, *bytes) == header.checksum) return data;
    free(data);
    return NULL;
}

int cache_read(const struct cache_key *key, void **data, size_t *bytes) {
    char folder[1024], path[1100];
    if (cache_folder(folder, sizeof folder)) return -1;
    snprintf(path, sizeof path, "%s/%s.cubin", folder, key->text);
    FILE *file = fopen(path, "rb");
    if (!file) return -1;
    *data = read_entry(file, bytes);
    fclose(file);
    return *data ? 0 : -1;
}

void cache_write(const struct cache_key *key, const void *data, size_t bytes) {
    char folder[1024], path[1100], temporary[1100];
    if (cache_folder(folder, sizeof folder) || make_folders(folder)) return;
    snprintf(path, sizeof path, "%s/%s.cubin", folder, key->text);
    snprintf(temporary, sizeof temporary, "%s/%s.XXXXXX", folder, key->text);
    int descriptor = mkstemp(temporary);
    if (descriptor < 0) return;
    FILE *file = fdopen(descriptor, "wb");
    struct header header = {.bytes = bytes, .checksum = hash_bytes(fnv_offset, data, bytes)};
    memcpy(header.magic, magic, sizeof magic);
    bool written = file && fwrite(&header, sizeof header, 1, file) == 1 && fwrite(data, bytes, 1, file) == 1;
    if (file)
        written = !fclose(file) && written;
    else
        close(descriptor);
    if (!written || rename(temporary, path)) unlink(temporary);
}
