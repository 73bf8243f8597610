/* Byte-pair merging: which neighbours become one token, lowest rank first, leftmost first among equals. */
#ifndef TILEBOOK_DECODER_BPE_H
#define TILEBOOK_DECODER_BPE_H

#include <stddef.h>
#include <stdint.h>

struct bpe_merge {
    int left, right; /* ids; left < 0: an empty slot */
    int rank, merged;
};

/* An open hash table of merges by their pair. */
struct bpe {
    struct bpe_merge *slots;
    size_t mask;
};

/* Memory of one caller, kept between words; all zero at first. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    struct bpe_candidate *heap;
    size_t room, heap_count;
};

/* Room for `merges` of them. -1 without memory. */
int bpe_create(struct bpe *bpe, size_t merges);
void bpe_destroy(struct bpe *bpe);
/* A pair that is there already gets the new rank. */
void bpe_add(struct bpe *bpe, struct bpe_merge merge);

/* Merges ids[0..count) in place in O(count log count); returns how many are left, -1 without memory. */
int bpe_apply(const struct bpe *bpe, struct bpe_scratch *scratch, int *ids, int count);
void bpe_scratch_free(struct bpe_scratch *scratch);

#endif
