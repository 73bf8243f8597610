#include "bench/decoder/pages.h"

#include <stdlib.h>

#include "bench/decoder/ops.h"

struct pages {
    int count, pitch;
    int32_t *free; /* (count): a stack */
    int free_count;
    int32_t *lists; /* (sequences, pitch) */
    int *reserved;  /* (sequences): positions */
};

int pages_for(int positions) {
    return (positions + OPS_PAGE - 1) / OPS_PAGE;
}

int pages_create(int count, int sequences, int context, struct pages **result, struct error *error) {
    struct pages *pages = *result = malloc(sizeof *pages);
    if (!pages) return error_set(error, "out of memory");
    *pages = (struct pages){.count = count, .pitch = pages_for(context), .free_count = count};
    pages->free = malloc((size_t)count * sizeof *pages->free);
    pages->lists = calloc((size_t)sequences * (size_t)pages->pitch, sizeof *pages->lists);
    pages->reserved = calloc((size_t)sequences, sizeof *pages->reserved);
    if (!pages->free || !pages->lists || !pages->reserved) return error_set(error, "out of memory");
    for (int i = 0; i < count; i++) pages->free[i] = count - 1 - i;
    return 0;
}

void pages_destroy(struct pages *pages) {
    if (!pages) return;
    free(pages->free);
    free(pages->lists);
    free(pages->reserved);
    free(pages);
}

static int32_t *list_of(const struct pages *pages, int sequence) {
    return pages->lists + (size_t)sequence * (size_t)pages->pitch;
}

int pages_reserve(struct pages *pages, int sequence, int positions, struct error *error) {
    pages_release(pages, sequence);
    int needed = pages_for(positions);
    if (needed > pages->free_count)
        return error_set(error,
                         "sequence %d needs %d pages of KV cache, %d tokens each, for its %d tokens; %d of %d are free",
                         sequence, needed, OPS_PAGE, positions, pages->free_count, pages->count);
    for (int i = 0; i < needed; i++) list_of(pages, sequence)[i] = pages->free[--pages->free_count];
    pages->reserved[sequence] = positions;
    return 0;
}

void pages_release(struct pages *pages, int sequence) {
    for (int i = 0; i < pages_for(pages->reserved[sequence]); i++)
        pages->free[pages->free_count++] = list_of(pages, sequence)[i];
    pages->reserved[sequence] = 0;
}

int pages_count(const struct pages *pages) {
    return pages->count;
}

int pages_free(const struct pages *pages) {
    return pages->free_count;
}

int pages_reserved(const struct pages *pages, int sequence) {
    return pages->reserved[sequence];
}

int pages_pitch(const struct pages *pages) {
    return pages->pitch;
}

const int32_t *pages_list(const struct pages *pages, int sequence) {
    return list_of(pages, sequence);
}
