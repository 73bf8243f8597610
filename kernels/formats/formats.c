#include "kernels/formats/formats.h"

#include <stdlib.h>
#include <string.h>

/* Every format is a map from (row, column) to a nibble: packing and unpacking walk the plain codes. */
static void pack(const uint8_t *codes, int rows, int n, uint32_t *words, long (*layout)(int, int, int), int add) {
    memset(words, 0, (size_t)rows * (size_t)n / 2);
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < n; column++) {
            long at = layout(row, column, n);
            uint32_t code = (uint32_t)(*codes++ + add) & 15;
            words[at / 8] |= code << at % 8 * 4;
        }
}

static void unpack(const uint32_t *words, int rows, int n, uint8_t *codes, long (*layout)(int, int, int), int add) {
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < n; column++)
            *codes++ = (uint8_t)((layout_code(words, layout(row, column, n)) + (unsigned)add) & 15);
}

void awq_pack(const uint8_t *codes, int k, int n, uint32_t *words) {
    pack(codes, k, n, words, layout_awq, 0);
}

void awq_unpack(const uint32_t *words, int k, int n, uint8_t *codes) {
    unpack(words, k, n, codes, layout_awq, 0);
}

void gptq_pack(const uint8_t *codes, int k, int n, uint32_t *words) {
    pack(codes, k, n, words, layout_gptq, 0);
}

void gptq_unpack(const uint32_t *words, int k, int n, uint8_t *codes) {
    unpack(words, k, n, codes, layout_gptq, 0);
}

void gptq_pack_zeros(const uint8_t *zeros, int groups, int n, bool v1, uint32_t *words) {
    pack(zeros, groups, n, words, layout_gptq_zero, v1 ? -1 : 0);
}

void gptq_unpack_zeros(const uint32_t *words, int groups, int n, bool v1, uint8_t *zeros) {
    unpack(words, groups, n, zeros, layout_gptq_zero, v1 ? 1 : 0);
}

void marlin_pack(const uint8_t *codes, int k, int n, uint32_t *words) {
    pack(codes, k, n, words, layout_marlin, 0);
}

void marlin_unpack(const uint32_t *words, int k, int n, uint8_t *codes) {
    unpack(words, k, n, codes, layout_marlin, 0);
}

void marlin_pack_zeros(const uint8_t *zeros, int groups, int n, uint32_t *words) {
    pack(zeros, groups, n, words, layout_marlin_zero, 0);
}

void marlin_unpack_zeros(const uint32_t *words, int groups, int n, uint8_t *zeros) {
    unpack(words, groups, n, zeros, layout_marlin_zero, 0);
}

void marlin_pack_scales(const uint16_t *scales, int groups, int n, uint16_t *packed) {
    for (int group = 0; group < groups; group++)
        for (int column = 0; column < n; column++) packed[layout_marlin_scale(group, column, n, groups)] = *scales++;
}

void marlin_unpack_scales(const uint16_t *packed, int groups, int n, uint16_t *scales) {
    for (int group = 0; group < groups; group++)
        for (int column = 0; column < n; column++) *scales++ = packed[layout_marlin_scale(group, column, n, groups)];
}

int gptq_permutation(const int32_t *g_idx, int k, int group, int32_t *perm, struct error *error) {
    if (group < 1 || k % group) return error_set(error, "g_idx: K=%d is not a multiple of the group size %d", k, group);
    int groups = k / group, status = 0;
    int *used = calloc((size_t)groups, sizeof *used);
    if (!used) return error_set(error, "g_idx: out of memory");
    for (int row = 0; row < k && !status; row++) {
        int g = g_idx[row];
        if (g < 0 || g >= groups)
            status = error_set(error, "g_idx[%d] is %d; groups are 0 to %d (K=%d, group size %d)", row, g, groups - 1,
                               k, group);
        else if (used[g] == group)
            status = error_set(error, "g_idx: group %d has more than %d rows (K=%d); every group must have exactly %d",
                               g, group, k, group);
        else
            perm[g * group + used[g]++] = row;
    }
    free(used);
    return status;
}
