/* AWQ, GPTQ and Marlin: how int4 codes, scales and zero points lie in memory (bits: FORMATS in this
 * folder's README). `codes` are plain: uint8_t (K, N) row-major, 0..15; plain zero points uint8_t
 * (K/group, N); plain scales fp16 (K/group, N). K, N and group as kernel.h allows for marlin_gemm. */
#ifndef TILEBOOK_FORMATS_H
#define TILEBOOK_FORMATS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/device.h"
#include "kernels/formats/layout.cuh" /* enum format */

/* --- host: plain codes to words and back --- */
void awq_pack(const uint8_t *codes, int k, int n, uint32_t *words); /* (K, N/8); zeros: k = groups */
void awq_unpack(const uint32_t *words, int k, int n, uint8_t *codes);
void gptq_pack(const uint8_t *codes, int k, int n, uint32_t *words); /* (K/8, N) */
void gptq_unpack(const uint32_t *words, int k, int n, uint8_t *codes);
/* (groups, N/8). v1 stores z - 1: z = 0 has no v1 word, it wraps to 15 as other packers write it. */
void gptq_pack_zeros(const uint8_t *zeros, int groups, int n, bool v1, uint32_t *words);
void gptq_unpack_zeros(const uint32_t *words, int groups, int n, bool v1, uint8_t *zeros);
void marlin_pack(const uint8_t *codes, int k, int n, uint32_t *words); /* (K/16, 2N) */
void marlin_unpack(const uint32_t *words, int k, int n, uint8_t *codes);
void marlin_pack_zeros(const uint8_t *zeros, int groups, int n, uint32_t *words); /* (groups, N/8) */
void marlin_unpack_zeros(const uint32_t *words, int groups, int n, uint8_t *zeros);
/* (groups, N) fp16; the order differs when one group spans all of K. */
void marlin_pack_scales(const uint16_t *scales, int groups, int n, uint16_t *packed);
void marlin_unpack_scales(const uint16_t *packed, int groups, int n, uint16_t *scales);

/* desc_act: fills perm (K) with argsort(g_idx), stable, so that row perm[i] of W comes i-th and the
 * groups are contiguous. -1 if g_idx is not K/group rows for each of 0..K/group-1. */
int gptq_permutation(const int32_t *g_idx, int k, int group, int32_t *perm, struct error *error);

/* --- device: one linear, as a checkpoint stores it, into a (possibly fused) Marlin, AWQ or fp16 matrix --- */
struct repack {
    enum format from, to;        /* to: FORMAT_MARLIN or FORMAT_AWQ; FORMAT_HALF from FORMAT_HALF alone */
    int k, n, groups;            /* of the source; groups 1 for FORMAT_HALF */
    int n_total, n_offset;       /* columns of the destination, where the source's stretch begins; multiples of 64 */
    const int32_t *perm;         /* device, K; NULL unless desc_act */
    enum layout_columns columns; /* in the stretch, which has 2 N columns unless they lie together */
};
/* Enqueued; all pointers are device memory. Only the source's columns of `to` are changed. Errors: formats without a
 * way between them, a shape that is not whole tiles or groups, columns that `to` does not have. */
int repack_weights(struct device *device, const struct repack *repack, const uint32_t *from, uint32_t *to,
                   struct error *error);
int repack_scales(struct device *device, const struct repack *repack, const uint16_t *from, uint16_t *to,
                  struct error *error);
int repack_zeros(struct device *device, const struct repack *repack, const uint32_t *from, uint32_t *to,
                 struct error *error);

#endif
