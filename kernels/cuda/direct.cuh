/* What C and device code of direct.cu share. */
#ifndef TILEBOOK_DIRECT_CUH
#define TILEBOOK_DIRECT_CUH

enum {
    DIRECT_RANKS = 8, /* most */
    DIRECT_THREADS = 256,
    DIRECT_EACH = 2, /* pairs of a thread */
    DIRECT_CHUNK = DIRECT_THREADS * DIRECT_EACH,
    DIRECT_BLOCKS = 512, /* most: few enough to run at the same time */
    DIRECT_PAIRS = DIRECT_BLOCKS * DIRECT_CHUNK
};

struct direct_arguments {
    unsigned *values; /* (pairs): two fp16 each */
    unsigned *epochs; /* (DIRECT_BLOCKS): launches that had this block */
    /* (2, RANKS, DIRECT_PAIRS): what this rank was sent in an even or odd epoch, by whom; and the same of each rank. */
    const unsigned long long *received;
    unsigned long long *sent[DIRECT_RANKS];
    int pairs, rank;
};

#endif
