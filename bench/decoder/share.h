/* Tensor parallelism: the part of a model that each of several devices (ranks) has. Of qkv, gate_up and lm_head that is
 * columns of W: its own heads, features and logits. Of o and down it is the rows that read those, so that each rank's y
 * is one of as many summands. Norms and the embedding are everybody's. */
#ifndef TILEBOOK_DECODER_SHARE_H
#define TILEBOOK_DECODER_SHARE_H

#include "bench/decoder/checkpoint.h"
#include "bench/decoder/config.h"

struct share {
    int rank, ranks;
};

/* The config of any rank's part: heads, key-value heads and intermediate size are its own, all else is the model's.
 * Errors: one of them cannot be divided by `ranks`. */
int share_config(const struct model_config *config, int ranks, struct model_config *part, struct error *error);

/* Columns of a rank's part of lm_head, a multiple of 64: it has the logits of ids from rank * columns on, as far as
 * there are any. */
int share_head(int vocab, int ranks);

/* Which side of a tensor, as it lies in the checkpoint, is shared out. */
enum share_side { SHARE_NOTHING, SHARE_ROWS, SHARE_COLUMNS };

/* The rank's part of a whole tensor, of `rows` rows; *room, which the caller frees, has its bytes if they do not lie
 * together in the whole. Errors: memory. */
int share_tensor(const struct share *share, const struct tensor *whole, enum share_side side, int64_t rows,
                 struct tensor *part, void **room, struct error *error);

#endif
