/* Where a code, a scale or a zero point lies: the one definition of the formats' bits, for C and for
 * device code. Codes are counted in nibbles: nibble i is bits 4(i%8)..4(i%8)+3 of word i/8. `columns` is N. */
#ifndef TILEBOOK_LAYOUT_CUH
#define TILEBOOK_LAYOUT_CUH

#ifdef __CUDACC__
#define LAYOUT static __device__ inline
#else
#define LAYOUT static inline
#endif

/* FORMAT_HALF: fp16 (N, K), rows of columns as fp16_gemm reads them. */
enum format { FORMAT_AWQ, FORMAT_GPTQ_V1, FORMAT_GPTQ_V2, FORMAT_MARLIN, FORMAT_HALF };

/* How the columns of a source lie in their stretch of the destination: side by side, or as the first or the second
 * eight of every 16, which leaves the others to another source. */
enum layout_columns { COLUMNS_TOGETHER, COLUMNS_FIRST_EIGHTS, COLUMNS_SECOND_EIGHTS };

/* --- from (row, column) to where it lies --- */

/* The nibble that holds the i-th of eight: 0, 4, 1, 5, 2, 6, 3, 7. */
LAYOUT int layout_nibble(int i) {
    return i / 2 + i % 2 * 4;
}

/* Its inverse: 0, 2, 4, 6, 1, 3, 5, 7. */
LAYOUT int layout_of_nibble(int nibble) {
    return nibble % 4 * 2 + nibble / 4;
}

/* Words (K, N/8); for weights and zero points alike. */
LAYOUT long layout_awq(int k, int n, int columns) {
    return (long)k * columns + n / 8 * 8 + layout_nibble(n % 8);
}

/* Words (K/8, N). */
LAYOUT long layout_gptq(int k, int n, int columns) {
    return ((long)(k / 8) * columns + n) * 8 + k % 8;
}

/* Words (groups, N/8). */
LAYOUT long layout_gptq_zero(int group, int n, int columns) {
    return (long)group * columns + n;
}

/* Words (K/16, 2N): tiles of 16 x 64, 128 words each. */
LAYOUT long layout_marlin(int k, int n, int columns) {
    int lane = n % 8 * 4 + k % 8 / 2, j = n % 64 / 16;
    int nibble = k % 2 * 4 + n / 8 % 2 * 2 + k / 8 % 2;
    long word = (long)(k / 16) * 2 * columns + n / 64 * 128 + lane * 4 + j;
    return word * 8 + nibble;
}

/* Words (groups, N/8). */
LAYOUT long layout_marlin_zero(int group, int n, int columns) {
    long word = (long)group * (columns / 8) + n / 64 * 8 + n % 8;
    return word * 8 + layout_nibble(n % 64 / 8);
}

/* fp16 (groups, N), counted in elements. */
LAYOUT long layout_marlin_scale(int group, int n, int columns, int groups) {
    long row = (long)group * columns;
    if (groups > 1) return row + n / 64 * 64 + n % 8 * 8 + n % 64 / 8;
    return row + n / 32 * 32 + n % 8 / 2 * 8 + n % 32 / 8 * 2 + n % 2;
}

/* --- and back: the row and column of a nibble of a word --- */

struct layout_place {
    int k, n;
};

LAYOUT struct layout_place layout_awq_place(long word, int nibble, int columns) {
    int width = columns / 8;
    struct layout_place place = {(int)(word / width), (int)(word % width) * 8 + layout_of_nibble(nibble)};
    return place;
}

LAYOUT struct layout_place layout_marlin_place(long word, int nibble, int columns) {
    int width = 2 * columns, at = (int)(word % width), lane = at % 128 / 4, j = at % 4;
    struct layout_place place = {(int)(word / width) * 16 + lane % 4 * 2 + nibble / 4 + nibble % 2 * 8,
                                 at / 128 * 64 + j * 16 + lane / 4 + nibble / 2 % 2 * 8};
    return place;
}

LAYOUT struct layout_place layout_marlin_zero_place(long word, int nibble, int columns) {
    int width = columns / 8, at = (int)(word % width);
    struct layout_place place = {(int)(word / width), at / 8 * 64 + at % 8 + layout_of_nibble(nibble) * 8};
    return place;
}

/* --- one element of the destination of a repack; see formats.h --- */

/* What repacks one matrix; `from` and `to` point to its weights, its scales or its zero points. */
struct layout_repack {
    const void *from;
    void *to;
    const int *perm;
    int from_format, to_format, columns;
    int k, n, groups, n_total, n_offset;
    long count; /* words of the stretch, or scales or fp16 pairs of the source */
};

/* Columns of the destination among which those of the source lie, from n_offset on. */
LAYOUT int layout_stretch(const struct layout_repack *r) {
    return r->columns == COLUMNS_TOGETHER ? r->n : 2 * r->n;
}

/* Where column n of the source comes to in the stretch. */
LAYOUT int layout_target(const struct layout_repack *r, int n) {
    return r->columns == COLUMNS_TOGETHER ? n : n / 8 * 16 + (r->columns == COLUMNS_SECOND_EIGHTS) * 8 + n % 8;
}

/* Which column of the source comes to column n of the stretch; -1 if it is another source's. */
LAYOUT int layout_source(const struct layout_repack *r, int n) {
    if (r->columns == COLUMNS_TOGETHER) return n;
    return n / 8 % 2 == (r->columns == COLUMNS_SECOND_EIGHTS) ? n / 16 * 8 + n % 8 : -1;
}

LAYOUT unsigned layout_code(const unsigned *words, long nibble) {
    return words[nibble / 8] >> (int)(nibble % 8 * 4) & 15;
}

/* Word `word` of the stretch's width, moved into rows of `total` words that begin `offset` earlier. */
LAYOUT long layout_fused(long word, int width, int total, int offset) {
    return word / width * total + offset + word % width;
}

/* Writes the nibbles of `value` that `mask` covers; the others are another source's. */
LAYOUT void layout_merge(unsigned *to, unsigned value, unsigned mask) {
    if (mask) *to = mask == ~0u ? value : (*to & ~mask) | value;
}

LAYOUT void layout_repack_weight(const struct layout_repack *r, long word) {
    int marlin = r->to_format == FORMAT_MARLIN, stretch = layout_stretch(r);
    unsigned value = 0, mask = 0;
    for (int nibble = 0; nibble < 8; nibble++) {
        struct layout_place at =
            marlin ? layout_marlin_place(word, nibble, stretch) : layout_awq_place(word, nibble, stretch);
        int k = r->perm ? r->perm[at.k] : at.k, n = layout_source(r, at.n);
        if (n < 0) continue;
        long from = r->from_format == FORMAT_AWQ ? layout_awq(k, n, r->n) : layout_gptq(k, n, r->n);
        value |= layout_code((const unsigned *)r->from, from) << 4 * nibble;
        mask |= 15u << 4 * nibble;
    }
    long to = marlin ? layout_fused(word, 2 * stretch, 2 * r->n_total, 2 * r->n_offset)
                     : layout_fused(word, stretch / 8, r->n_total / 8, r->n_offset / 8);
    layout_merge((unsigned *)r->to + to, value, mask);
}

LAYOUT void layout_repack_zero(const struct layout_repack *r, long word) {
    unsigned value = 0, mask = 0, stored_less = r->from_format == FORMAT_GPTQ_V1;
    int stretch = layout_stretch(r);
    for (int nibble = 0; nibble < 8; nibble++) {
        struct layout_place at = r->to_format == FORMAT_MARLIN ? layout_marlin_zero_place(word, nibble, stretch)
                                                               : layout_awq_place(word, nibble, stretch);
        int n = layout_source(r, at.n);
        if (n < 0) continue;
        long from = r->from_format == FORMAT_AWQ ? layout_awq(at.k, n, r->n) : layout_gptq_zero(at.k, n, r->n);
        value |= ((layout_code((const unsigned *)r->from, from) + stored_less) & 15) << 4 * nibble;
        mask |= 15u << 4 * nibble;
    }
    long to = layout_fused(word, stretch / 8, r->n_total / 8, r->n_offset / 8);
    layout_merge((unsigned *)r->to + to, value, mask);
}

LAYOUT void layout_repack_scale(const struct layout_repack *r, long element) {
    int group = (int)(element / r->n), n = layout_target(r, (int)(element % r->n)), stretch = layout_stretch(r);
    long to =
        r->to_format == FORMAT_MARLIN ? layout_marlin_scale(group, n, stretch, r->groups) : (long)group * stretch + n;
    ((unsigned short *)r->to)[layout_fused(to, stretch, r->n_total, r->n_offset)] =
        ((const unsigned short *)r->from)[element];
}

/* Two neighbours of a row of fp16. */
LAYOUT void layout_repack_pair(const struct layout_repack *r, long pair) {
    int width = r->k / 2, n = r->n_offset + layout_target(r, (int)(pair / width));
    ((unsigned *)r->to)[(long)n * width + pair % width] = ((const unsigned *)r->from)[pair];
}

#endif
