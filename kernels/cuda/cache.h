/* Compiled device code on disk, so that a configuration is compiled once on a machine. Not part of what
 * other folders use. */
#ifndef TILEBOOK_CUDA_CACHE_H
#define TILEBOOK_CUDA_CACHE_H

#include <stddef.h>

/* 128 bits of FNV-1a, as 32 hex digits and a NUL. */
struct cache_key {
    char text[33];
};

/* The key of everything that decides what a compiler makes: all embedded sources, and these strings. */
struct cache_key cache_key(const char *const *parts, int count);

/* A copy of the entry that the caller frees. -1 if there is none or it is damaged; no message, since the
 * answer to either is to compile again. */
int cache_read(const struct cache_key *key, void **data, size_t *bytes);
/* Writes by temporary file and rename. Silent when the folder cannot be written: a cache may be absent. */
void cache_write(const struct cache_key *key, const void *data, size_t bytes);

#endif
