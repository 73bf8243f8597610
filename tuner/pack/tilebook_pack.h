/* GEMM kernels for one kind of GPU, compiled, with the tile table that says which of them is best for a problem.
 * `tilebook table export --format pack` made this folder: cubins, tilebook_pack.c and this header, and tiles.txt, the
 * table. A program compiles tilebook_pack.c as its own and links libcuda; CUDA 12.0 or newer, no run-time compiler.
 *
 * y = x W: x (M, K), y (M, N), fp16, row-major; W (K, N) as the op has it:
 *   fp16_gemm    weights fp16 (N, K) row-major, as a linear's `weight` lies in a checkpoint ([out, in])
 *   marlin_gemm  weights int32 (K/16, 2N), scales fp16 (K/group, N), zeros int32 (K/group, N/8), all in Marlin's order
 *   awq_dequant  weights int32 (K, N/8), scales fp16 (K/group, N), zeros int32 (K/group, N/8), as AWQ stores them;
 *                writes y fp16 (N, K): the weights that fp16_gemm reads
 * Sums are fp32, and y is rounded once, behind the epilogue:
 *   bias      y = x W + addend, addend fp16 (N)
 *   residual  y = x W + addend, addend fp16 (M, N), which may be y itself
 *   silu_mul  y (M, N/2): of every 16 columns of W the first 8 are gates and the others what they multiply */
#ifndef TILEBOOK_PACK_H
#define TILEBOOK_PACK_H

#include <cuda.h>
#include <stddef.h>

enum tilebook_pack_op { TILEBOOK_PACK_AWQ_DEQUANT, TILEBOOK_PACK_MARLIN_GEMM, TILEBOOK_PACK_FP16_GEMM };

enum tilebook_pack_epilogue { TILEBOOK_PACK_NONE, TILEBOOK_PACK_BIAS, TILEBOOK_PACK_RESIDUAL, TILEBOOK_PACK_SILU_MUL };

struct tilebook_pack_problem {
    enum tilebook_pack_op op;
    int m; /* 1 for awq_dequant */
    int n, k;
    int group; /* rows of W that share a scale; k for one group; 0 for fp16_gemm */
    int zeros; /* 1: zero points are stored; 0: they are 8 everywhere, and for fp16_gemm */
    enum tilebook_pack_epilogue epilogue;
};

/* 16-byte aligned; 0 for what the problem lacks. */
struct tilebook_pack_operands {
    CUdeviceptr x, weights, scales, zeros, addend, y;
    CUdeviceptr workspace; /* tilebook_pack_workspace bytes; its first 65536 are zero before and after each launch, so
                              that launches which follow one another share one */
};

/* A matrix of which a kernel requests boxes (cuTensorMapEncodeTiled). */
struct tilebook_pack_tensor {
    int operand; /* its place in struct tilebook_pack_operands */
    int element_bytes;
    long rows; /* 0: m */
    long columns;
    int box_rows, box_columns, swizzle;
};

/* What is launched for m_low <= m <= m_high, in steps of m: those at m, steps = (m - m_first) / m_step. */
struct tilebook_pack_row {
    enum tilebook_pack_op op;
    int k, n, group, zeros;
    enum tilebook_pack_epilogue epilogue;
    int m_low, m_high;
    const char *kernel, *configuration; /* as the table names them */
    int function;                       /* of the pack's */
    int threads, cluster, overlaps;     /* of a block; blocks; whether it may start before the one ahead of it ends */
    int m_first, m_step;
    unsigned blocks[3], blocks_step[3]; /* and for each step so many more */
    size_t workspace, workspace_step;
    int tensor_count;
    struct tilebook_pack_tensor tensors[4];
};

struct tilebook_pack;
enum { TILEBOOK_PACK_MESSAGE = 512 };

/* The row for a problem; NULL if the pack has none. */
const struct tilebook_pack_row *tilebook_pack_find(const struct tilebook_pack_problem *problem);
/* Bytes of workspace that are enough for its launch; 0 if it needs none, or if the pack has no row. */
size_t tilebook_pack_workspace(const struct tilebook_pack_problem *problem);

/* Loads the folder's cubins into the current context. Errors, also as text: a GPU that the pack is not for, what cannot
 * be loaded. */
CUresult tilebook_pack_open(const char *folder, struct tilebook_pack **pack, char message[TILEBOOK_PACK_MESSAGE]);
/* Not while launches run. NULL is nothing. */
void tilebook_pack_close(struct tilebook_pack *pack);

/* Enqueues one call in the context that is current, as it was for open; from any thread, also while a graph is
 * captured. With `overlaps` a kernel that can may start before the one ahead of it in the stream has ended, and waits
 * by itself for what that wrote, unless it is the weights. CUDA_ERROR_NOT_FOUND: the pack has no row. */
CUresult tilebook_pack_launch(const struct tilebook_pack *pack, const struct tilebook_pack_problem *problem,
                              const struct tilebook_pack_operands *operands, int overlaps, CUstream stream);

#endif
