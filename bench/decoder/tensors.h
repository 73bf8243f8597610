/* Which tensors the checkpoint of a Qwen2 model holds: names, types and shapes that follow from its config. */
#ifndef TILEBOOK_DECODER_TENSORS_H
#define TILEBOOK_DECODER_TENSORS_H

#include <stdint.h>

#include "bench/decoder/checkpoint.h"
#include "bench/decoder/config.h"

enum tensor_role {
    ROLE_WEIGHT, /* [out, in], or the embeddings */
    ROLE_BIAS,
    ROLE_NORM,
    ROLE_CODES, /* int32 words of 8 codes: qweight */
    ROLE_ZEROS, /* int32 words of 8 zero points: qzeros */
    ROLE_SCALES,
    ROLE_GROUP_INDEX, /* int32 [K]: g_idx */
};

struct tensor_spec {
    char name[64];
    enum tensor_role role;
    enum dtype dtype; /* of floats: config.dtype */
    int rank;         /* 1 or 2 */
    int64_t shape[2]; /* shape[1] is 0 at rank 1 */
    size_t bytes;
};

/* In the order of a checkpoint: embeddings, layers, norm, head. The caller frees *list.
 * Errors: no memory; quantised, and a shape that does not divide into whole words and groups. */
int tensor_specs(const struct model_config *config, struct tensor_spec **list, int *count, struct error *error);

#endif
