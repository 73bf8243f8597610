/* Kernels that are not tilebook's, beside its own: a shared library defines `tilebook_peer`, and
 * `tilebook sweep --peer FILE.so` verifies and times what it describes like any other kernel. This header
 * needs nothing else; C11, C++ and CUDA C++ read it. The README beside it has a whole example.
 *
 * y = x W: x (M, K), y (M, N), fp16, row-major; the canonical W (K, N), by op:
 *   TILEBOOK_FP16_GEMM    weights fp16 (N, K) row-major
 *   TILEBOOK_MARLIN_GEMM  weights int32 (K/16, 2N), scales fp16 (K/group, N), zeros int32 (K/group, N/8), in
 *                         Marlin's order (kernels/formats/README.md); without zeros every zero point is 8
 *   TILEBOOK_AWQ_DEQUANT  weights int32 (K, N/8), scales fp16 (K/group, N), zeros int32 (K/group, N/8), as AWQ
 *                         stores them; y is W, fp16 (N, K) row-major, and there is no x
 * All pointers are to the device's memory (the host's on the CPU), 256-byte aligned. */
#ifndef TILEBOOK_PEER_H
#define TILEBOOK_PEER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Any change of this file that a compiled library would notice changes it; another one is refused. */
#define TILEBOOK_PEER_VERSION 1

enum tilebook_op { TILEBOOK_AWQ_DEQUANT = 0, TILEBOOK_MARLIN_GEMM = 1, TILEBOOK_FP16_GEMM = 2 };

enum tilebook_backend { TILEBOOK_ON_CPU = 0, TILEBOOK_ON_CUDA = 1 };

/* What becomes of the sums s = x W before they are rounded:
 *   BIAS      y = s + addend, addend fp16 (N)
 *   RESIDUAL  y = s + addend, addend fp16 (M, N), which may be y itself
 *   SILU_MUL  y (M, N/2): y[m, 8b + r] = silu(s[m, 16b + r]) * s[m, 16b + 8 + r], r < 8 */
enum tilebook_epilogue {
    TILEBOOK_EPILOGUE_NONE = 0,
    TILEBOOK_EPILOGUE_BIAS = 1,
    TILEBOOK_EPILOGUE_RESIDUAL = 2,
    TILEBOOK_EPILOGUE_SILU_MUL = 3
};

struct tilebook_problem {
    int32_t op;
    int32_t m; /* 1 for TILEBOOK_AWQ_DEQUANT */
    int32_t n, k;
    int32_t group; /* rows of W that share a scale: 32, 64, 128 or k; 0 for TILEBOOK_FP16_GEMM */
    int32_t zeros; /* 1: zero points are stored */
    int32_t epilogue;
};

struct tilebook_device {
    int32_t backend;
    int32_t index;              /* of the GPU */
    int32_t compute_capability; /* 90 for sm_90; 0 on the CPU */
    int32_t multiprocessors;    /* cores on the CPU */
    void *stream;               /* a cudaStream_t; NULL on the CPU and in `legal` */
};

/* What one problem takes; zeros at first. */
struct tilebook_needs {
    size_t prepared_bytes;  /* of the weights in the library's own layout; 0: it reads the canonical ones */
    size_t workspace_bytes; /* zeroed before the first run, then as the last run left it */
    void *state;            /* the library's own; every call brings it along */
};

struct tilebook_call {
    const struct tilebook_device *device;
    const struct tilebook_problem *problem;
    void *state;
    const void *weights, *scales, *zeros; /* canonical; NULL where the problem has none */
    void *prepared;                       /* prepared_bytes; NULL for 0 */
    const void *x, *addend;               /* NULL in `prepare` */
    void *y;                              /* likewise */
    void *workspace;                      /* workspace_bytes; NULL for 0 and in `prepare` */
};

enum { TILEBOOK_WHY = 256 }; /* bytes of `why`, which holds "" at first */

/* The functions return 0, or else write a reason to `why`. On a GPU its context is current, and `prepare` and `run`
 * enqueue on device->stream; `run` does nothing else: it neither waits nor allocates, since it may be recorded into a
 * CUDA graph. All are called from one thread. */
struct tilebook_peer {
    int32_t version; /* TILEBOOK_PEER_VERSION */
    int32_t backend;
    const char *name;    /* 1 to 24 of a-z 0-9 _ . -; rows name it OP/peer:NAME */
    const char *summary; /* one line */
    uint32_t ops;        /* 1u << op, or-ed */

    /* Whether this problem runs correctly on this device. NULL: all of the ops' problems, every epilogue. */
    int (*legal)(const struct tilebook_device *device, const struct tilebook_problem *problem, char *why);
    /* Before the first run of a legal problem. NULL: it needs nothing. */
    int (*open)(const struct tilebook_device *device, const struct tilebook_problem *problem,
                struct tilebook_needs *needs, char *why);
    /* Writes call->prepared from the canonical weights; for every matrix of a rotation, maybe more than once. NULL only
     * where prepared_bytes is always 0. */
    int (*prepare)(const struct tilebook_call *call, char *why);
    /* Computes y. */
    int (*run)(const struct tilebook_call *call, char *why);
    /* After the last run; also when `prepare` failed. NULL: there is nothing to free. */
    void (*close)(void *state);
};

/* What the library defines: `const struct tilebook_peer tilebook_peer = {...};` */
#ifdef __GNUC__
__attribute__((visibility("default")))
#endif
extern const struct tilebook_peer tilebook_peer;

#ifdef __cplusplus
}
#endif

#endif
