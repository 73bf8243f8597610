#include "bench/decoder/share.h"

#include <stdlib.h>
#include <string.h>

int share_config(const struct model_config *config, int ranks, struct model_config *part, struct error *error) {
    *part = *config;
    part->heads /= ranks;
    part->kv_heads /= ranks;
    part->intermediate /= ranks;
    if (part->heads * ranks == config->heads && part->kv_heads * ranks == config->kv_heads &&
        part->intermediate * ranks == config->intermediate)
        return 0;
    return error_set(error, "%d heads, %d key-value heads and an intermediate size of %d must all be multiples of %d",
                     config->heads, config->kv_heads, config->intermediate, ranks);
}

int share_head(int vocab, int ranks) {
    int unit = 64 * ranks;
    return (vocab + unit - 1) / unit * 64;
}

int share_tensor(const struct share *share, const struct tensor *whole, enum share_side side, int64_t rows,
                 struct tensor *part, void **room, struct error *error) {
    size_t rank = (size_t)share->rank, ranks = (size_t)share->ranks;
    *part = *whole;
    if (side == SHARE_NOTHING || ranks == 1) return 0;
    part->bytes /= ranks;
    part->data = (const char *)whole->data + rank * part->bytes;
    if (side == SHARE_ROWS) return 0;
    size_t row = part->bytes / (size_t)rows;
    char *to = realloc(*room, part->bytes);
    if (!to) return error_set(error, "out of memory");
    part->data = *room = to;
    for (size_t i = 0; i < (size_t)rows; i++)
        memcpy(to + i * row, (const char *)whole->data + (i * ranks + rank) * row, row);
    return 0;
}
