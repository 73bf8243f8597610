/* The CPU backend: how to open it, and what its kernels share. */
#ifndef TILEBOOK_CPU_H
#define TILEBOOK_CPU_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/device.h"
#include "kernels/kernel.h"

/* Fills `device` for the processor of this machine. device_close frees what it holds. */
int cpu_open(struct device *device, struct error *error);

/* --- threads (pool.c) --- */

/* A device keeps its worker threads, asleep between calls. They do not survive fork(), and one device
 * serves one caller at a time, as a stream would. */
struct cpu_pool;

struct cpu_pool *cpu_pool_create(void);
void cpu_pool_destroy(struct cpu_pool *pool);

/* Makes sure that `threads` threads (the caller's among them) with `scratch_bytes` each are there. */
int cpu_reserve(const struct device *device, int threads, size_t scratch_bytes, struct error *error);

/* task(context, index, scratch) once for every index in 0..tasks-1, in any order, on up to `threads`
 * threads; returns when all are done. `scratch` is the thread's own, 64-byte aligned. What a task computes
 * must depend on its index alone: then the results do not depend on the number of threads. */
void cpu_parallel(const struct device *device, int threads, int tasks,
                  void (*task)(const void *context, int index, void *scratch), const void *context);

/* 0 if the device has that many usable cores. */
int cpu_threads_legal(const struct device *device, int threads, struct error *why);

/* Microseconds of `operations` vector instructions, cut into equal tasks: arithmetic and memory, which
 * overlap for the most part, and what it costs to wake the threads. */
double cpu_estimate(const struct device *device, const struct problem *problem, int threads, int tasks,
                    double operations);

/* --- epilogues (epilogue.c) --- */

struct cpu_vectors;

/* Applies the problem's epilogue to the sums of columns [column, column + columns) of W in one row and writes what
 * becomes of them to y; both multiples of 16. The sums are used up. */
void cpu_store(const struct cpu_vectors *vectors, const struct problem *problem, const struct operands *operands,
               int row, int column, int columns, float *sums);

/* --- inner loops, once for each instruction set (vector.h, included by avx512.c, avx2.c, generic.c) --- */

/* One register tile of fp16_gemm: adds x (rows, k) times w (columns, k) transposed to sums. */
struct fp16_tile {
    const float *x;
    size_t x_stride;
    const uint16_t *w;
    size_t w_stride;
    int k;     /* a multiple of 16 */
    bool bf16; /* w; else fp16 */
    float *sums;
    size_t sum_stride;
};

/* One register tile of marlin_gemm, inside one group: `depth` tiles of 16 rows of W by 8 columns times
 * `unroll`. Columns come in slots, the order in which Marlin's words give them: slot 8a + 4h + j of a
 * block of 64 is column 16j + a + 8h, and the tile begins at a multiple of 8 slots. */
struct marlin_tile {
    const uint32_t *words; /* (depth, 16 * unroll) */
    size_t word_stride;
    int depth;
    const float *x; /* (rows, depth, 64), as marlin_expand writes them */
    size_t x_stride;
    const float *x_sums; /* one a row: the sum of that row's x */
    size_t x_sum_stride;
    const float *scales, *zeros; /* (8 * unroll), by slot */
    float *sums;                 /* (rows, 8 * unroll), by slot */
    size_t sum_stride;
};

struct cpu_vectors {
    const char *architecture;
    int lanes;     /* of fp32 */
    int registers; /* vectors that the instruction set names */
    /* Between fp32 and bf16, or fp16; count: a multiple of 16 */
    void (*to_float)(const uint16_t *from, bool bf16, float *to, int count);
    void (*to_words)(const float *from, uint16_t *to, bool bf16, int count);
    /* rows, columns: powers of two, rows * columns <= FP16_TILE_MOST, columns <= 4 */
    void (*fp16_tile)(const struct fp16_tile *tile, int rows, int columns);
    /* x (k), bf16 or fp16, k a multiple of 16, to (k/16, 64): every value four times, scaled by a power of 16 that
     * undoes where the nibble lies in its word. Returns the sum of x. */
    float (*marlin_expand)(const uint16_t *x, bool bf16, int k, float *to);
    /* The scales and zero points of one group and 64 columns in Marlin's order to fp32 by slot; zeros may be
     * NULL (8 everywhere). */
    void (*marlin_columns)(const uint16_t *scales, const uint32_t *zeros, bool one_group, float *slot_scales,
                           float *slot_zeros);
    /* rows, unroll: powers of two, rows * unroll <= MARLIN_TILE_MOST */
    void (*marlin_tile)(const struct marlin_tile *tile, int rows, int unroll);
    /* One column of AWQ words inside one group: words (count) to y (8, count) with y_stride. count is a
     * multiple of 16 * unroll; unroll 1, 2 or 4. zeros, scales: of the 8 columns. */
    void (*awq_column)(const uint32_t *words, int count, const float scales[8], const float zeros[8], uint16_t *y,
                       size_t y_stride, int unroll);
};

enum { FP16_TILE_MOST = 16, MARLIN_TILE_MOST = 8 };

static inline int least(int a, int b) {
    return a < b ? a : b;
}

/* Those of device->architecture. */
const struct cpu_vectors *cpu_vectors(const struct device *device);
/* Those of an instruction set by name, the best one for NULL; NULL if this machine lacks it. */
const struct cpu_vectors *cpu_vectors_find(const char *architecture);

#endif
