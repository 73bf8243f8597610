/* safetensors, one file or shards with an index: mapped, checked, looked up by name. Hostile files end in
 * an error: lengths, offsets, overlaps, dtypes and shapes are checked before a pointer is handed out. */
#ifndef TILEBOOK_DECODER_CHECKPOINT_H
#define TILEBOOK_DECODER_CHECKPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I32, DTYPE_OTHER };

struct tensor {
    const char *name; /* valid until the checkpoint closes, as is data */
    const char *file; /* name of the shard */
    enum dtype dtype;
    int rank; /* at most 4 */
    int64_t shape[4];
    const void *data; /* mapped, little-endian; aligned to at least 1 byte only */
    size_t bytes;
};

struct checkpoint;

/* Maps model.safetensors, or the shards of model.safetensors.index.json. */
int checkpoint_open(const char *directory, struct checkpoint **checkpoint, struct error *error);
void checkpoint_close(struct checkpoint *checkpoint);
int checkpoint_count(const struct checkpoint *checkpoint);
const struct tensor *checkpoint_at(const struct checkpoint *checkpoint, int index); /* sorted by name */
/* NULL if it is not there. */
const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name);
/* Must be there with this dtype set (bits 1 << DTYPE_...) and shape (rank 1: columns == 0); the message
 * prints expected and found, and the shard. NULL on error. */
const struct tensor *checkpoint_get(const struct checkpoint *checkpoint, const char *name, unsigned dtypes,
                                    int64_t rows, int64_t columns, struct error *error);

#endif
